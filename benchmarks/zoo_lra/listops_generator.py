"""ListOps expressions: draw, evaluate, write. An example depends on (version, seed, split, index) and the limits.

The distribution is that of the published generator (Long Range Arena, lra_benchmarks/data/listops.py), sampled by
rejection as there: a node above the deepest level is an operator with probability 1/4, its operands number
2 … max_args, operators and digits are uniform; a tree is kept if min_len < tokens < max_len, parentheses not counted.
"""

from __future__ import annotations

import numpy as np

from zoo.data.rng import below, start, uniform
from zoo.ops.compiled import compiled

VERSION = "1"
TOKENS = ("<pad>", "[MIN", "[MAX", "[MED", "[SM", "]", *"0123456789", "<eos>")
PAD, MIN, MAX, MED, SM, CLOSE, ZERO, EOS = 0, 1, 2, 3, 4, 5, 6, 16
IDS = {token: i for i, token in enumerate(TOKENS)}
OPERATOR_P = 0.25
GIVE_UP = 2_000_000
"""After so many rejected trees in a row the limits are taken to be impossible."""


@compiled
def _ranked(counts, rank):
    """The value at a rank, from 0, of values in ascending order that are counted."""
    value = 0
    below_it = counts[0]
    while below_it <= rank:
        value += 1
        below_it += counts[value]
    return value


@compiled
def _apply(operator, values, n):
    """MIN, MAX, SM = sum modulo 10, MED = the median, of an even number the truncated mean of the middle two.

    n values of 0 … 9 are counted: numba compiles the sorts and sums of numpy for seconds.
    """
    total, counts = 0, np.zeros(10, np.int64)
    for i in range(n):
        total += values[i]
        counts[values[i]] += 1
    if operator == SM:
        return total % 10
    if operator == MIN:
        return _ranked(counts, 0)
    if operator == MAX:
        return _ranked(counts, n - 1)
    return (_ranked(counts, (n - 1) // 2) + _ranked(counts, n // 2)) // 2


@compiled
def _tree(stream, out, limit, max_depth, max_args, values, arity, filled, operator):
    """One raw tree into `out`; (tokens, value), or (0, 0) as soon as it has `limit` tokens.

    Row d of values, arity, filled and operator is the operator at depth d that is still open.
    """
    n, depth = 0, 1  # depth of the node to draw next
    while True:
        if n >= limit:
            return 0, 0
        if depth < max_depth and uniform(stream) <= OPERATOR_P:
            operator[depth] = MIN + below(stream, 4)
            arity[depth], filled[depth] = 2 + below(stream, max_args - 1), 0
            out[n] = operator[depth]
            n += 1
            depth += 1
            continue
        value = below(stream, 10)
        out[n] = ZERO + value
        n += 1
        while depth > 1:  # hand the value to the operator above; close what is full
            above = depth - 1
            values[above, filled[above]] = value
            filled[above] += 1
            if filled[above] < arity[above]:
                break
            if n >= limit:
                return 0, 0
            out[n] = CLOSE
            n += 1
            value = _apply(operator[above], values[above], arity[above])
            depth = above
        if depth == 1:
            return n, value


@compiled
def _trees(family, first, skip, min_len, max_len, max_depth, max_args, blob, lengths, labels):
    stream, total = np.empty(1, np.uint64), 0
    values = np.empty((max_depth + 1, max_args), np.int64)
    arity, filled, operator = np.empty((3, max_depth + 1), np.int64)
    for i in range(len(lengths)):
        start(stream, family, first + i)
        left = skip + 1
        rejected = 0
        while left:
            n, value = _tree(stream, blob[total:], max_len, max_depth, max_args, values, arity, filled, operator)
            if min_len < n < max_len:
                left -= 1
                rejected = 0
            else:
                rejected += 1
                if rejected > GIVE_UP:
                    return -1
        lengths[i], labels[i] = n, value
        total += n
    return total


def trees(
    family: np.uint64,
    first: int,
    count: int,
    *,
    min_len: int,
    max_len: int,
    max_depth: int,
    max_args: int,
    skip: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the examples first … first + count - 1 of a family of streams (`zoo.data.rng.key`).

    skip  pass over so many accepted trees of each stream (how a duplicate is replaced)
    Returns token ids of all examples in one (n,) uint8 array, lengths (count,) int64, labels (count,) uint8.
    Raises ValueError when no tree within the limits turns up.
    """
    blob = np.empty((count + 1) * max_len, np.uint8)
    lengths, labels = np.empty(count, np.int64), np.empty(count, np.uint8)
    total = _trees(family, first, skip, min_len, max_len, max_depth, max_args, blob, lengths, labels)
    if total < 0:
        raise ValueError(
            f"no expression with {min_len} < tokens < {max_len} in {GIVE_UP:,} draws"
            f" (operators down to depth {max_depth - 1}, at most {max_args} operands)"
        )
    return blob[:total].copy(), lengths, labels


@compiled
def _value(ids, operator, begin, stack):
    top = values = 0
    for i in range(len(ids)):
        token = ids[i]
        if i > 0 and top == 0:
            return -1
        if MIN <= token <= SM:
            operator[top], begin[top] = token, values
            top += 1
        elif token == CLOSE:
            if top == 0:
                return -1
            top -= 1
            n = values - begin[top]
            if n < 1:
                return -1
            values = begin[top] + 1
            stack[begin[top]] = _apply(operator[top], stack[begin[top] :], n)
        elif ZERO <= token < ZERO + 10:
            stack[values] = token - ZERO
            values += 1
        else:
            return -1
    return stack[0] if top == 0 and values == 1 else -1


def evaluate(ids: np.ndarray) -> int:
    """Return the value of an expression, or -1. ids (n,) uint8 without padding, <eos> or parentheses."""
    scratch = np.empty((3, len(ids) + 1), np.int64)
    return int(_value(np.asarray(ids, np.uint8), *scratch))


def to_published(ids: np.ndarray) -> str:
    """Return the published spelling: left-binarised, every operator with n operands in n + 1 pairs of parentheses."""
    open_: list[list[str]] = []
    for token in (TOKENS[i] for i in ids):
        if token.startswith("["):
            open_.append([token])
            continue
        if token == "]":
            operator, *operands = open_.pop()
            token = "( " * (len(operands) + 1) + operator + "".join(f" {o} )" for o in operands) + " ] )"
        if not open_:
            return token
        open_[-1].append(token)
    raise ValueError("an expression that does not end")
