"""Blocked attention with queries in blocks of S, each of which meets its keys as one piece."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.attention import visible_attention
from zoo.ops.blocked.biased import biased_attention
from zoo.ops.blocked.pattern import Pattern, Side


def window_attention(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, pattern: Pattern) -> Tensor:
    """Window of consecutive keys: queries bS … bS + S - 1 meet keys bS - back … bS + S - 1 + ahead.

    positions (B or 1, L) are those of the queries, for causal side keys.
    """
    assert pattern.window is not None
    length, total, (back, ahead), bias = q.shape[2], k.shape[2], pattern.window, pattern.bias
    if bias is not None:
        bias = bias[:, max(back - total + 1, 0) :]
    back, ahead = min(back, total - 1), 0 if pattern.causal else min(ahead, length - 1)  # more is never seen
    P = min(total - length, back)
    k, v = k[:, :, total - length - P :], v[:, :, total - length - P :]
    S = min(length, pattern.block if pattern.block is not None else max(32, back, ahead))
    n = -(-length // S)
    if pattern.block is None and n * S * (back + S + ahead) >= length * (P + length):
        S, n = length, 1  # fewer scores than blocks would have
    if n == 1:
        before, after, K, own = 0, 0, P + length, P  # one block meets the sequence itself
    else:
        before, after, K, own = back - P, n * S - length + ahead, back + S + ahead, back
    lag = torch.arange(K, device=q.device) - own - torch.arange(S, device=q.device)[:, None]  # (S, K)
    visible = ((lag >= -back) & (lag <= ahead))[None, None, None]  # (1, 1, 1, S, K)
    if pattern.mask is not None or n > 1:
        mask = q.new_ones(1, total, dtype=torch.bool) if pattern.mask is None else pattern.mask
        real = mask[:, total - length - P :]
        visible = visible & F.pad(real, (before, after)).unfold(1, K, S)[:, :, None, None]  # (B or 1, n, 1, S, K)
    if bias is not None:
        bias = bias[:, (lag + back).clamp(0, back + ahead)]  # (H, S, K)
    keys, values = (F.pad(x, (0, 0, before, after)).unfold(2, K, S).permute(0, 2, 1, 4, 3) for x in (k, v))
    return _blocks(q, keys, values, visible, bias, S, positions, pattern)


def dilated_window_attention(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, pattern: Pattern) -> Tensor:
    """Dilated window: dilation D is a plain window over each of the D sequences of tokens that are D apart."""
    (batch, heads, length, _), keys, side = q.shape, k.shape[2], pattern.side
    mask = torch.ones(batch, keys, dtype=torch.bool, device=q.device) if pattern.mask is None else pattern.mask
    outs: dict[int, Tensor] = {}

    def apart(x: Tensor, dim: int, D: int) -> Tensor:
        """Split `dim` of (B, …, P + L, …) into D sequences, which join the batch: (B D, …, (P + L) / D, …).

        P and L are rounded up, so that the first query begins a row of D.
        """
        longer = [0, 0] * (x.ndim - dim - 1) + [(length - x.shape[dim]) % D, -length % D]
        x = F.pad(x, longer).unflatten(dim, (-1, D))
        return x.movedim(dim + 1, 1).flatten(0, 1)

    for D in sorted(set(pattern.dilations)):
        own = [h for h in range(heads) if pattern.dilations[h] == D]
        part = None
        if side is not None:
            part = Side(
                side.k[:, own].repeat_interleave(D, 0),
                side.v[:, own].repeat_interleave(D, 0),
                None if side.mask is None else side.mask.repeat_interleave(D, 0),
                None if side.position is None else side.position.repeat_interleave(D, 0),
                None if side.bias is None else side.bias[own],
                None if side.row is None else apart(side.row, 1, D),
            )
        bias = None if pattern.bias is None else pattern.bias[own]
        spread = pattern._replace(bias=bias, side=part, mask=apart(mask, 1, D))
        q_D, k_D, v_D = (apart(x[:, own], 2, D) for x in (q, k, v))
        y = window_attention(q_D, k_D, v_D, apart(positions.expand(batch, -1), 1, D), spread)
        y = y.unflatten(0, (batch, D)).movedim(1, 3).flatten(2, 3)[:, :, :length]  # (B, own, L, dv)
        outs.update(zip(own, y.unbind(1), strict=True))
    return torch.stack([outs[h] for h in range(heads)], 1)


def table_attention(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    """Listed blocks: queries of block b meet the keys of blocks table[:, :, b], one block beside the other."""
    assert pattern.table is not None
    table, S, mask = pattern.table, pattern.block or 1, pattern.mask
    (batch, heads, length, _), (_, _, n, T), device = q.shape, table.shape, q.device
    order = table.sort(-1).values.transpose(1, 2)  # (B|1, n, H|1, T)
    once = order >= 0
    once[..., 1:] &= order[..., 1:] != order[..., :-1]
    order = order.clamp(min=0)
    real = q.new_ones(1, length, dtype=torch.bool) if mask is None else mask
    real = F.pad(real, (0, n * S - length)).unflatten(1, (n, S))  # (B or 1, n, S)
    example = torch.arange(max(len(real), len(order)), device=device)[:, None, None, None]
    real = real.expand(len(example), -1, -1)[example, order]  # (B|1, n, H|1, T, S)
    visible = (real & once[..., None]).flatten(3).unsqueeze(3)  # (B|1, n, H|1, 1, T S)
    if pattern.causal:
        j = (order[..., None] * S + torch.arange(S, device=device)).flatten(3)  # (B|1, n, H|1, T S): keys' positions
        i = torch.arange(n * S, device=device).view(n, 1, S, 1)
        visible = visible & (j.unsqueeze(3) <= i)  # (B|1, n, H|1, S, T S)
    row = torch.arange(batch * heads, device=device).view(batch, 1, heads, 1)
    pick = (order + n * row).flatten()  # (B, n, H, T) of the (B, H, n) blocks

    def gather(x: Tensor) -> Tensor:
        """The listed blocks of keys or values side by side: (B, H, L, d) -> (B, n, H, T S, d)."""
        x = F.pad(x, (0, 0, 0, n * S - length)).reshape(batch * heads * n, -1)  # (B H n, S d)
        return x.index_select(0, pick).view(batch, n, heads, T * S, -1)

    positions = torch.arange(length, device=device)[None]
    return _blocks(q, gather(k), gather(v), visible, None, S, positions, pattern)


def _blocks(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    visible: Tensor,
    bias: Tensor | None,
    S: int,
    positions: Tensor,
    pattern: Pattern,
) -> Tensor:
    """Attend from each block of S queries to its keys and the side keys, in one softmax.

    q (B, H, L, d), keys, values (B, n, H, K, d), visible (B|1, n|1, H|1, S|1, K), bias (H, S, K) -> (B, H, L, dv).
    """
    (batch, heads, length, d), n, side = q.shape, keys.shape[1], pattern.side
    short = n * S - length
    q = F.pad(q, (0, 0, 0, short)).transpose(1, 2).reshape(batch * n, S, heads, d).transpose(1, 2)  # (B n, H, S, d)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # (B n, H, K, d)
    visible = visible.expand(batch, n, -1, -1, -1).flatten(0, 1)  # (B n, H|1, S|1, K)
    positions = F.pad(positions, (0, short)).expand(batch, -1).reshape(batch * n, S)
    if side is not None and side.row is not None:
        side = side._replace(row=F.pad(side.row, (0, short)).reshape(batch * n, S))

    example = torch.arange(batch * n, device=q.device) // n

    def visible_of(part: slice) -> Tensor:
        """The keys that some of the blocks see: (part, H|1, S|1, K + M)."""
        if side is None:
            return visible[part]
        return _with_side_keys(visible[part], side, example[part], positions[part] if pattern.causal else None)

    if bias is not None or (side is not None and side.bias is not None):
        y = biased_attention(q, keys, values, bias, side, visible_of, pattern.scale, pattern.dropout)
    else:
        if side is not None:
            keys = torch.cat([keys, side.k.index_select(0, example)], 2)
            values = torch.cat([values, side.v.index_select(0, example)], 2)
        y = visible_attention(q, keys, values, visible_of(slice(0, len(q))), pattern.dropout, pattern.scale)
    return y.transpose(1, 2).reshape(batch, n * S, heads, -1)[:, :length].transpose(1, 2)


def _with_side_keys(visible: Tensor, side: Side, example: Tensor, positions: Tensor | None) -> Tensor:
    """Append which side keys r blocks see to visible (r, H|1, S|1, K): (r, H|1, S|1, K + M).

    example (r,), positions of the queries (r, S) when causal.
    """
    M = side.k.shape[2]
    shown = visible.new_ones(len(example), 1, 1, M) if side.mask is None else side.mask[example][:, None, None]
    if positions is not None and side.position is not None:
        shown = shown & (side.position[example][:, None, None] <= positions[:, None, :, None])  # (r, 1, S, M)
    H, S = visible.shape[1], max(visible.shape[2], shown.shape[2])
    return torch.cat([visible.expand(-1, H, S, -1), shown.expand(-1, H, S, -1)], -1)
