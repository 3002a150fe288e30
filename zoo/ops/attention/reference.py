"""The definition of softmax attention: with every score in memory, or in parts that are computed again in backward."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.chunks import MAX_SCORES, recompute, slices
from zoo.ops.dtypes import compute_dtype


def reference_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Compute softmax(scale q kᵀ + bias) v over the visible keys; a query that sees no key gets zero.

    visible (bool) and bias are broadcastable to (B, H, Lq, Lk).
    """
    dtype = compute_dtype(q)
    scores = (q @ k.transpose(-1, -2)).to(dtype) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if bias is not None:
        scores = scores + bias.to(dtype)
    if visible is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        sees = visible.any(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(~visible & sees, -torch.inf), dim=-1).masked_fill(~sees, 0)
    return F.dropout(weights, dropout).to(v.dtype) @ v


def attention_in_parts(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor | None,
    causal: bool,
    key_bias: Tensor | None,
    symmetric_slopes: Tensor | None,
    dropout: float,
    scale: float | None,
    *,
    max_scores: int | None = MAX_SCORES,
) -> Tensor:
    """`reference_attention` with the patterns and biases of `attention`, at most `max_scores` scores at a time.

    More than that are computed for some examples and some queries at a time, and again in backward; None = no limit.
    """
    (batch, heads, n_queries, _), n_keys = q.shape, k.shape[-2]

    def attention_of_rows(
        q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, key_bias: Tensor | None, i: Tensor
    ) -> Tensor:
        """The queries at positions i (rows, 1) over the first keys."""
        lag = i - torch.arange(k.shape[-2], device=q.device)
        if causal:
            visible = lag >= 0 if visible is None else visible & (lag >= 0)
        if symmetric_slopes is not None:
            key_bias = -symmetric_slopes[:, None, None] * lag.abs()  # (H, rows, keys)
        return reference_attention(q, k, v, visible=visible, bias=key_bias, dropout=dropout, scale=scale)

    i = torch.arange(n_queries, device=q.device)[:, None]
    if max_scores is None or batch * heads * n_queries * n_keys <= max_scores:
        return attention_of_rows(q, k, v, visible, key_bias, i)
    if visible is not None:
        visible = visible.broadcast_to(batch, heads, n_queries, n_keys)
    if key_bias is not None:
        key_bias = key_bias.broadcast_to(batch, heads, 1, n_keys)
    outs = []
    for part in slices(batch, max(1, max_scores // (heads * n_queries * n_keys))):
        of_part = []
        for rows in slices(n_queries, max(1, max_scores // (heads * n_keys))):
            keys = slice(rows.stop if causal else n_keys)
            seen = None if visible is None else visible[part, :, rows, keys]
            bias = None if key_bias is None else key_bias[part, ..., keys]
            of_part.append(
                recompute(attention_of_rows, q[part, :, rows], k[part, :, keys], v[part, :, keys], seen, bias, i[rows])
            )
        outs.append(torch.cat(of_part, dim=-2))
    return torch.cat(outs)
