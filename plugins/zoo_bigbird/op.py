"""BigBird's block-sparse attention (Zaheer et al. 2020, arXiv 2007.14062, §2, the internal construction ITC).

Shapes: B batch, H heads, L seq_len, S tokens of a block, n = ceil(L / S) blocks 0 .. n - 1, of which the first c <= n
hold the real tokens of an example, r random blocks, T listed blocks.

    query block b sees   {0, c - 1} + {b - 1, b, b + 1} + r random ones        global, window, random
    blocks 0 and c - 1   see everything
    causal               {0} + {b - 1, b} + r random ones of 0 .. b, and no later token; no block sees everything

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
    """A block-sparse attention pattern.

    table  (B or 1, H or 1, n, T) int64, the blocks that a block sees; -1 = none
    last   (B or 1,) int64, the last block, which like block 0 sees everything; None (causal) = no block does
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
    """Compute block-sparse attention: q, k, v (B, H, L, d), mask (B, L) -> (B, H, L, d), zero at pads.

    side  additional keys for all queries but those of the two global blocks

    Time and memory O(L S T + S L).
    """
    (batch, _, length, _), table = q.shape, pattern.table
    causal = pattern.last is None
    y = blocked_attention(q, k, v, table=table, block=block, side=side, causal=causal, mask=mask, dropout=dropout)
    if pattern.last is not None:
        last = pattern.last.expand(batch)[:, None]  # (B, 1)
        within = torch.arange(block, device=q.device)
        # a single block is first and last, and must not be written twice
        index = torch.cat([within.expand(batch, -1), torch.where(last > 0, last * block + within, length)], 1)
        rows = take_rows(q, index.clamp(max=length - 1))  # (B, H, 2 S, d)
        rows = attention(rows, k, v, mask=mask, dropout=dropout)
        y = put_rows(y, index.clamp(max=length), rows)
    return y if mask is None else y.masked_fill(~mask[:, None, :, None], 0)


def structured_blocks(n: int, last: Tensor | None, device: torch.device) -> Tensor:
    """List the global and window blocks of each of n blocks: (B or 1, n, 3), or (B or 1, n, 5) with last (B or 1,)."""
    b = torch.arange(n, device=device)
    if last is None:
        return torch.stack([torch.zeros_like(b), b - 1, b], -1)[None]
    window = torch.stack([torch.zeros_like(b), b - 1, b, torch.where(b + 1 < n, b + 1, -1)], -1)
    return torch.cat([window.expand(len(last), -1, -1), last[:, None, None].expand(-1, n, 1)], -1)


def build_pattern(chosen: Tensor, last: Tensor | None) -> Pattern:
    """Add the global and window blocks to the random ones: chosen (B or 1, H or 1, n, r), last (B or 1,).

    Without `last` the pattern is causal: blocks after the query's own are not seen.
    """
    own = structured_blocks(chosen.shape[2], last, chosen.device)[:, None]  # (B|1, 1, n, 3 or 5)
    rows = max(own.shape[0], chosen.shape[0])
    own = own.expand(rows, chosen.shape[1], -1, -1)
    return Pattern(torch.cat([own, chosen.expand(rows, -1, -1, -1)], -1), last)


def draw_blocks(draws: Tensor, count: Tensor, taken: Tensor) -> Tensor:
    """Draw distinct blocks below `count` that are not `taken`, uniformly: (B|1, H, n, r), -1 where none is left.

    draws  (H, n, r) int64, random numbers in 0 .. 2^31 - 1
    count  (B or 1, n) int64, block b draws from 0 .. count - 1
    taken  (B or 1, n, t) int64, blocks to leave out; entries outside 0 .. count - 1 are ignored
    """
    r, count, out = draws.shape[-1], count[:, None], []  # (B|1, 1, n)
    taken = taken[:, None].expand(-1, draws.shape[0], -1, -1)  # (B|1, H, n, t)
    for i in range(r):
        order = torch.where((taken >= 0) & (taken < count[..., None]), taken, count[..., None]).sort(-1).values
        new = torch.ones_like(order, dtype=torch.bool)
        new[..., 1:] = order[..., 1:] != order[..., :-1]
        new &= order < count[..., None]
        left = count - new.sum(-1)  # (B|1, H, n): blocks that are left
        pick = (draws[..., i] * left.clamp(min=0)) >> 31  # the pick-th of them
        for j in range(order.shape[-1]):
            pick = pick + (new[..., j] & (pick >= order[..., j]))
        pick = torch.where(left > 0, pick, -1)
        out.append(pick)
        taken = torch.cat([taken, pick[..., None]], -1)
    return torch.stack(out, -1) if out else draws.expand(len(count), -1, -1, -1)
