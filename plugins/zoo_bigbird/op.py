"""BigBird's attention over blocks (Zaheer et al. 2020, arXiv 2007.14062, §2, the internal construction ITC).

B batch, H heads, L seq_len, S tokens of a block, n = ceil(L / S) blocks 0 .. n - 1, c <= n blocks of an example with
a real token in them, r random blocks, T listed blocks.

    query block b sees   {0, c - 1} + {b - 1, b, b + 1} + r random ones        global, window, random
    blocks 0 and c - 1 see everything
    causal               {0} + {b - 1, b} + r random ones of 0 .. b, and no later token; nobody sees everything

Every key counts once, and pads never.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.ops.attention import attention
from zoo.ops.blocked import Side, blocked_attention
from zoo.ops.rows import put_rows, take_rows


class Pattern(NamedTuple):
    """Who sees whom.

    table  (B or 1, H or 1, n, T) int64, the blocks that a block sees; -1 = none
    last   (B or 1,) int64, the last block, which with block 0 sees everything; None (causal) = nobody does
    """

    table: Tensor
    last: Tensor | None


def bigbird_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    pattern: Pattern,
    block: int,
    side: Side | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """q, k, v (B, H, L, d), mask (B, L) -> (B, H, L, d); zero at pads. Time and memory O(L S T + S L).

    side  keys that all queries but those of the two global blocks see besides
    """
    (batch, _, length, _), table = q.shape, pattern.table
    causal = pattern.last is None
    y = blocked_attention(q, k, v, table=table, block=block, side=side, causal=causal, mask=mask, dropout=dropout)
    if pattern.last is not None:
        last = pattern.last.expand(batch)[:, None]  # (B, 1)
        within = torch.arange(block, device=q.device)
        # where there is one block only it must not be put back twice
        index = torch.cat([within.expand(batch, -1), torch.where(last > 0, last * block + within, length)], 1)
        rows = take_rows(q, index.clamp(max=length - 1))  # (B, H, 2 S, d)
        rows = attention(rows, k, v, mask=mask, dropout=dropout)
        y = put_rows(y, index.clamp(max=length), rows)
    return y if mask is None else y.masked_fill(~mask[:, None, :, None], 0)


def two_way_pattern(chosen: Tensor, last: Tensor) -> Pattern:
    """The bidirectional pattern: chosen (B or 1, H or 1, n, r) random blocks, last (B or 1,) the last block."""
    n, b = chosen.shape[2], torch.arange(chosen.shape[2], device=chosen.device)
    own = torch.stack([torch.zeros_like(b), b - 1, b, torch.where(b + 1 < n, b + 1, -1)], -1)  # (n, 4)
    return Pattern(_joined(own[None], last[:, None, None].expand(-1, n, 1), chosen), last)


def causal_pattern(chosen: Tensor) -> Pattern:
    """The causal pattern: chosen (B or 1, H or 1, n, r) random blocks; those after the query's own are not seen."""
    b = torch.arange(chosen.shape[2], device=chosen.device)
    return Pattern(_joined(torch.stack([torch.zeros_like(b), b - 1, b], -1)[None], chosen), None)


def _joined(*lists: Tensor) -> Tensor:
    """(B|1, n, t) and (B|1, H|1, n, t) -> (B|1, H|1, n, sum of t)"""
    full = [x if x.ndim == 4 else x[:, None] for x in lists]
    rows, heads = (max(x.shape[i] for x in full) for i in (0, 1))
    return torch.cat([x.expand(rows, heads, -1, -1) for x in full], -1)


def draw_blocks(draws: Tensor, count: Tensor, taken: Tensor) -> Tensor:
    """Different blocks below `count` that are not `taken`, uniformly: (B|1, H, n, r), -1 where none is left.

    draws  (H, n, r) int64 in 0 .. 2^31 - 1, the chance of it
    count  (B or 1, n) int64, block b draws from 0 .. count - 1
    taken  (B or 1, n, t) int64, what it must not draw; entries outside 0 .. count - 1 do not matter
    """
    r, count, out = draws.shape[-1], count[:, None], []  # (B|1, 1, n)
    taken = taken[:, None].expand(-1, draws.shape[0], -1, -1)  # (B|1, H, n, t)
    for i in range(r):
        order = torch.where((taken >= 0) & (taken < count[..., None]), taken, count[..., None]).sort(-1).values
        new = torch.ones_like(order, dtype=torch.bool)
        new[..., 1:] = order[..., 1:] != order[..., :-1]
        new &= order < count[..., None]
        left = count - new.sum(-1)  # (B|1, H, n): how many are still to be had
        pick = (draws[..., i] * left.clamp(min=0)) >> 31  # the pick-th of them
        for j in range(order.shape[-1]):
            pick = pick + (new[..., j] & (pick >= order[..., j]))
        pick = torch.where(left > 0, pick, -1)
        out.append(pick)
        taken = torch.cat([taken, pick[..., None]], -1)
    return torch.stack(out, -1) if out else draws.expand(len(count), -1, -1, -1)
