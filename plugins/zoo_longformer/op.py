"""Longformer's attention: a sliding window, and global tokens with projections of their own.

Shapes: B batch, H heads, L seq_len, P cached keys before the first query, d head dimension, g global tokens of a
sequence (padded to the largest number in the batch), S keys of the global tokens.

    N_i = {j real: j global, or j = i + D t, -back <= t <= ahead}                               §3.1
    local row    y_i = softmax_{j in N_i}(q_i·k_j / √d) v_j                Q_s, K_s, V_s, for global keys too
    global row   y_i = softmax_{j real}(q'_i·k'_j / √d) v'_j               Q_g, K_g, V_g
    causal       the same with j <= i, in every row
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.ops.attention import reference_attention
from zoo.ops.blocked import Side, blocked_attention
from zoo.ops.rows import put_rows


class GlobalTokens(NamedTuple):
    """The global tokens of each sequence.

    position   (B, g) int64, positions among the queries; negative = before the first query
    real       (B, g) bool; False = this sequence has fewer
    k, v       (B, H, g, d), their keys and values in local rows (K_s, V_s)
    q_global   (B, H, g, d), their queries (Q_g)
    k_global, v_global  (B, H, S, d), what they attend to (K_g, V_g)
    visible    bool, broadcastable to (B, H, g, S)
    """

    position: Tensor
    real: Tensor
    k: Tensor
    v: Tensor
    q_global: Tensor
    k_global: Tensor
    v_global: Tensor
    visible: Tensor


def longformer_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: tuple[int, int],
    dilation: int | Sequence[int] = 1,
    tokens: GlobalTokens | None = None,
    causal: bool = False,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Compute Longformer's attention: (B, H, L, d), in O(L (back + ahead + g)) memory.

    q, k, v   (B, H, L, d), (B, H, P + L, d), (B, H, P + L, d)
    window    (back, ahead)
    dilation  one number, or one per head
    mask      (B, P + L) bool, True = the window includes this key: it is real, and no global token, whose key would
              count twice
    """
    side = None if tokens is None else Side(tokens.k, tokens.v, tokens.real, tokens.position)
    y = blocked_attention(
        q, k, v, window=window, dilation=dilation, side=side, causal=causal, mask=mask, dropout=dropout
    )
    if tokens is None:
        return y
    # few rows: all their scores fit in memory
    rows = reference_attention(
        tokens.q_global, tokens.k_global, tokens.v_global, visible=tokens.visible, dropout=dropout
    )
    return put_rows(y, torch.where(tokens.real & (tokens.position >= 0), tokens.position, q.shape[2]), rows)
