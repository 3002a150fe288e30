"""The definition of softmax attention, with every score in memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

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
