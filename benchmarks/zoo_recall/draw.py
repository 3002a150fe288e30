"""Compiled generators of the suite: an example is a function of (family, index) and its settings.

The function of a task fills `ids` (L,) and, where the answers are labels in place, `labels` (L,), else `answer` (k,).
Ids begin with 1, so that 0 stays padding. Texts are made in Python from a stream and the first two functions.
"""

from __future__ import annotations

import numpy as np

from zoo.data.rng import below, start, uniform
from zoo.ops.compiled import compiled

IGNORE = -100


@compiled
def choose(stream, size, n):  # type: ignore[no-untyped-def]
    """Draw n different integers of [0, size) in random order, uniform: the first n places of a Fisher-Yates shuffle."""
    pool = np.arange(size)
    for i in range(n):
        j = i + below(stream, size - i)
        pool[i], pool[j] = pool[j], pool[i]
    return pool[:n]


@compiled
def symbols(stream, size, out):  # type: ignore[no-untyped-def]
    """Fill `out` (n,) with uniform integers of [0, size)."""
    for i in range(len(out)):
        out[i] = below(stream, size)


@compiled
def mqar(family, index, pairs, vocab, weights, random_fillers, filler_keys, ids, labels):  # type: ignore[no-untyped-def]
    """k1 v1 … kn vn, then fillers among which every key is queried once.

    weights         (slots,) of the places for questions, two positions apart; drawn one after the other without return
    random_fillers  any symbol, else the blank
    filler_keys     a filler may equal a key of the example
    The published symbols 0 … vocab - 1 are the ids 1 … vocab here: blank 1, keys 2 … vocab // 2, values above.
    """
    stream = np.empty(1, np.uint64)
    start(stream, family, index)
    half = vocab // 2
    keys = choose(stream, half - 1, pairs) + 2
    values = choose(stream, vocab - half, pairs) + half + 1
    # arrival times with rates w: their order is that of drawing without return with probabilities ~ w
    arrivals = np.empty(len(weights))
    for i in range(len(weights)):
        arrivals[i] = -np.log(1.0 - uniform(stream)) / weights[i]
    gaps = np.argsort(arrivals)[:pairs]
    used = np.zeros(vocab + 1, np.bool_)
    for j in range(pairs):
        ids[2 * j], ids[2 * j + 1] = keys[j], values[j]
        used[keys[j]] = not filler_keys
    labels[:] = IGNORE
    for i in range(2 * pairs, len(ids)):
        ids[i] = 1
        if random_fillers:
            ids[i] = 1 + below(stream, vocab)
            while used[ids[i]]:
                ids[i] = 1 + below(stream, vocab)
    for j in range(pairs):
        at = 2 * pairs + 2 * gaps[j]
        ids[at], labels[at] = keys[j], values[j]


@compiled
def selective_copying(family, index, tokens, vocab, ids, labels):  # type: ignore[no-untyped-def]
    """`tokens` data tokens at random places of the noise, then as many markers, whose labels are the tokens in order.

    Noise is 1, data 2 … vocab - 1, the marker vocab.
    """
    stream = np.empty(1, np.uint64)
    start(stream, family, index)
    noise = len(ids) - tokens
    places = np.sort(choose(stream, noise, tokens))
    labels[:] = IGNORE
    ids[:noise] = 1
    ids[noise:] = vocab
    for j in range(tokens):
        ids[places[j]] = labels[noise + j] = 2 + below(stream, vocab - 2)


@compiled
def induction_heads(family, index, vocab, ids, labels):  # type: ignore[no-untyped-def]
    """Random tokens 1 … vocab - 1 with the trigger, vocab, at one place and at the end; the label is what followed."""
    stream = np.empty(1, np.uint64)
    start(stream, family, index)
    last = len(ids) - 1
    at = below(stream, last - 1)
    for i in range(last):
        ids[i] = 1 + below(stream, vocab - 1)
    ids[at] = ids[last] = vocab
    labels[:] = IGNORE
    labels[last] = ids[at + 1]


@compiled
def needle(family, index, hay, keys, digits, others, depth, ids, answer):  # type: ignore[no-untyped-def]
    """A needle at a depth of a haystack, then the question for it.

    hay     number of hay symbols, ids 1 … hay; keys: number of key symbols, ids hay + 1 …; then ten digits, then three
            words: "magic", "is", "what"
    others  needles with other keys, at random places
    depth   0 (before the first straw) … 1 (after the last), or negative: a random place
    A needle is: magic, key, is, digits; the question: what, key, is.
    """
    stream = np.empty(1, np.uint64)
    start(stream, family, index)
    digit, n = hay + keys + 1, len(answer)
    magic, is_, what = digit + 10, digit + 11, digit + 12
    straws = len(ids) - (1 + others) * (3 + n) - 3
    named = choose(stream, keys, 1 + others) + hay + 1
    values = np.empty((1 + others, n), np.int64)
    places = np.empty(1 + others, np.int64)
    for k in range(1 + others):
        for j in range(n):
            values[k, j] = digit + below(stream, 10)
        places[k] = below(stream, straws + 1)
    if depth >= 0:
        places[0] = np.int64(straws * depth)
    answer[:] = values[0]
    at = 0
    for straw in range(straws + 1):
        for k in range(others, -1, -1):  # the needle itself comes last, so that depth 1 is right before the question
            if places[k] == straw:
                ids[at], ids[at + 1], ids[at + 2] = magic, named[k], is_
                ids[at + 3 : at + 3 + n] = values[k]
                at += 3 + n
        if straw < straws:
            ids[at] = 1 + below(stream, hay)
            at += 1
    ids[at], ids[at + 1], ids[at + 2] = what, named[0], is_


@compiled
def key_values(family, index, position, pairs, alphabet, n_key, n_value, ids, answer):  # type: ignore[no-untyped-def]
    """Pairs of a key and a value with different keys, then the question for one of them, which stands at `position`
    (negative: at a random one). The other pairs and their order do not depend on the position.

    Characters are 1 … alphabet, then the signs ":" "," "?". A pair is: key ":" value ","; the question: "?" key ":".
    """
    stream = np.empty(1, np.uint64)
    start(stream, family, index)
    colon, comma, ask = alphabet + 1, alphabet + 2, alphabet + 3
    at_random = below(stream, pairs)
    if position < 0:
        position = at_random
    drawn = np.empty((pairs, n_key + n_value), np.int64)
    codes = np.empty(pairs, np.int64)
    for i in range(pairs):
        again = True
        while again:
            code = 0
            for j in range(n_key):
                drawn[i, j] = 1 + below(stream, alphabet)
                code = code * alphabet + drawn[i, j] - 1
            codes[i] = code
            again = False
            for k in range(i):
                if codes[k] == code:
                    again = True
        for j in range(n_key, n_key + n_value):
            drawn[i, j] = 1 + below(stream, alphabet)
    width = n_key + n_value + 2
    for i in range(pairs):  # drawn[0] is queried
        place = position if i == 0 else i - 1 if i <= position else i
        at = place * width
        ids[at : at + n_key] = drawn[i, :n_key]
        ids[at + n_key] = colon
        ids[at + n_key + 1 : at + width - 1] = drawn[i, n_key:]
        ids[at + width - 1] = comma
    at = pairs * width
    ids[at] = ask
    ids[at + 1 : at + 1 + n_key] = drawn[0, :n_key]
    ids[at + 1 + n_key] = colon
    answer[:] = drawn[0, n_key:]
