"""Longformer's attention: a sliding window, and global tokens with projections of their own.

B batch, H heads, L seq_len, d head dimension, g global tokens of an example (padded to the most of the batch).

    N_i = {j real: j global, or j = i + D t, -back <= t <= ahead}                               §3.1
    local row    y_i = softmax_{j in N_i}(q_i.k_j / sqrt(d)) v_j           (Q_s, K_s, V_s, for global keys too)
    global row   y_i = softmax_{j real}(q'_i.k'_j / sqrt(d)) v'_j          (Q_g, K_g, V_g)
    causal       the same with j <= i, for every row
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.attention import reference_attention
from zoo.ops.blocked import Side, blocked_attention
from zoo.ops.rows import put_rows, take_rows


class Globals(NamedTuple):
    """The global tokens.

    places  (B, g) int64, their positions
    real    (B, g) bool; False = an example has fewer
    q       (B, H, g, d) their global queries
    k, v    (B, H, L, d) global keys and values of all tokens
    """

    places: Tensor
    real: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


def longformer_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: tuple[int, int],
    dilation: int | Sequence[int] = 1,
    globals_: Globals | None = None,
    causal: bool = False,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """q, k, v (B, H, L, d), mask (B, L) -> (B, H, L, d); zero at pads. Memory O(L (back + ahead + g))."""
    batch, _, length, _ = q.shape
    mask = torch.ones(batch, length, dtype=torch.bool, device=q.device) if mask is None else mask
    if globals_ is None:
        y = blocked_attention(q, k, v, window=window, dilation=dilation, causal=causal, mask=mask, dropout=dropout)
        return y.masked_fill(~mask[:, None, :, None], 0)
    index, real = globals_.places, globals_.real & mask.gather(1, globals_.places)
    outside = torch.where(real, index, length)  # a place of no token
    is_global = F.pad(torch.zeros_like(mask), (0, 1)).scatter(1, outside, True)[:, :length]
    side = Side(take_rows(k, index), take_rows(v, index), real, index)
    # a global key inside the window must count once: the window shows the others only
    near = mask & ~is_global
    y = blocked_attention(
        q, k, v, window=window, dilation=dilation, side=side, causal=causal, mask=near, dropout=dropout
    )
    visible = mask[:, None, None]  # (B, 1, 1, L)
    if causal:
        visible = visible & (torch.arange(length, device=q.device) <= index[:, None, :, None])  # (B, 1, g, L)
    rows = reference_attention(globals_.q, globals_.k, globals_.v, visible=visible, dropout=dropout)  # few rows
    return put_rows(y, outside, rows).masked_fill(~mask[:, None, :, None], 0)
