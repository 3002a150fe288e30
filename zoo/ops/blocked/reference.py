"""The definition of blocked attention: a dense masked softmax over all pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.attention import reference_attention
from zoo.ops.blocked.pattern import Pattern
from zoo.ops.dtypes import at_least_float32


def dense_attention(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    """Blocked attention with the score of every pair in memory."""
    (batch, heads, length, d), keys, side, bias = q.shape, k.shape[2], pattern.side, None
    if pattern.table is not None and pattern.block is not None:
        visible = _table_visibility(q, pattern.table, pattern.block)
    else:
        visible, bias = _window_visibility(q, keys, pattern)
    if pattern.causal:
        visible = visible.tril(keys - length)
    visible = visible.expand(batch, heads, length, keys)
    if pattern.mask is not None:
        visible = visible & pattern.mask[:, None, None, :]
    if side is not None:
        M = side.k.shape[2]
        shown = torch.ones(batch, 1, length, M, dtype=torch.bool, device=q.device)
        if side.mask is not None:
            shown = shown & side.mask[:, None, None, :]
        if pattern.causal and side.position is not None:
            shown = shown & (side.position[:, None, None, :] <= torch.arange(length, device=q.device)[:, None])
        visible = torch.cat([visible, shown.expand(batch, heads, length, M)], -1)
        near = q.new_zeros(()) if bias is None else bias
        far = q.new_zeros(())
        if side.bias is not None and side.row is not None:
            far = side.bias[:, side.row].transpose(0, 1)  # (B, H, L, M)
        bias = torch.cat([near.expand(batch, heads, length, keys), far.expand(batch, heads, length, M)], -1)
        k, v = torch.cat([k, side.k], 2), torch.cat([v, side.v], 2)
    q, k = at_least_float32(q) * (pattern.scale * math.sqrt(d)), at_least_float32(k)
    return reference_attention(q, k, v, visible=visible, bias=bias, dropout=pattern.dropout)


def _window_visibility(q: Tensor, keys: int, pattern: Pattern) -> tuple[Tensor, Tensor | None]:
    """Which keys a query sees through its window (H, L, P + L), and their biases (1, H, L, P + L)."""
    assert pattern.window is not None
    (back, ahead), device = pattern.window, q.device
    j = torch.arange(keys, device=device)
    lag = j - j[keys - q.shape[2] :, None]  # (L, P + L): key position - query position
    D = torch.tensor(pattern.dilations, device=device)[:, None, None]  # per head
    t = lag.div(D, rounding_mode="floor")  # (H, L, P + L)
    visible = (t * D == lag) & (t >= -back) & (t <= ahead)
    if pattern.bias is None:
        return visible, None
    head = torch.arange(q.shape[1], device=device)[:, None, None]
    return visible, pattern.bias[head, (t + back).clamp(0, back + ahead)][None]


def _table_visibility(q: Tensor, table: Tensor, S: int) -> Tensor:
    """Whether the key's block is listed for the query's block: (B or 1, H or 1, L, L)."""
    block_of = torch.arange(q.shape[2], device=q.device) // S
    listed = F.one_hot(table + 1, table.shape[2] + 1).any(3)[..., 1:]  # (B|1, H|1, n, n); column 0 was -1, no block
    return listed[:, :, block_of][..., block_of]
