"""Softmax attention with padding, causality and ALiBi biases.

B batch, H heads, Lq queries, Lk keys, d head dimension, dv of the values.

Forms: "torch" calls PyTorch's fused kernels without an (L, L) mask or bias, so that memory grows with L (fused.py). On
a CPU these have no dropout; there the scores are computed in parts, and again in backward. "reference" holds all scores
(reference.py). self_extend.py reads beyond the trained length.
"""

from __future__ import annotations

from torch import Tensor

from zoo.ops.attention.fused import fused_attention, visible_attention
from zoo.ops.attention.reference import attention_in_parts, reference_attention
from zoo.ops.attention.self_extend import self_extend_attention, self_extend_weights
from zoo.ops.backend import choose_form, register_op
from zoo.ops.chunks import MAX_SCORES

register_op("attention", ("torch", "reference"))


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Split the channels into heads: (B, L, H d) -> (B, H, L, d)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def join_heads(y: Tensor) -> Tensor:
    """Join the heads' channels: (B, H, L, d) -> (B, L, H d)."""
    return y.transpose(1, 2).flatten(2)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    visible: Tensor | None = None,
    causal: bool = False,
    key_bias: Tensor | None = None,
    symmetric_slopes: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Compute softmax(q kᵀ/√d + bias) v over the visible keys: q (B, H, Lq, d), k (B, H, Lk, d), v (B, H, Lk, dv).

    mask              (B, Lk) bool, True = real key
    visible           bool, broadcastable to (B, H, Lq, Lk): any pattern, for short sequences, since it is held whole;
                      not together with a mask, causal or a bias
    causal            query i sees keys 0 … i; needs Lq = Lk
    key_bias          (1 or B, H, 1, Lk) added to the scores of a key whatever the query (causal ALiBi)
    symmetric_slopes  (H,) adds -slope_h |i - j| (bidirectional ALiBi); needs Lq = Lk, not with causal
    dropout           on the attention weights
    scale             of the products, in place of 1/√d (T5: 1)

    A query that sees no real key gets zero.
    """
    lq, lk = q.shape[-2], k.shape[-2]
    if (causal or symmetric_slopes is not None) and lq != lk:
        raise ValueError(f"{lq} queries and {lk} keys: causal and symmetric attention need equal numbers")
    if causal and symmetric_slopes is not None:
        raise ValueError("symmetric_slopes is the bidirectional form of ALiBi; causal attention takes key_bias")
    if visible is not None and (causal or any(x is not None for x in (mask, key_bias, symmetric_slopes))):
        raise ValueError("visible is the whole pattern; it goes with no mask, causal or bias")
    biased = causal or key_bias is not None or symmetric_slopes is not None
    fused = choose_form("attention", q.device) == "torch"
    in_parts = fused and dropout > 0 and q.device.type == "cpu"
    if fused and biased and not in_parts:
        return fused_attention(q, k, v, mask, causal, key_bias, symmetric_slopes, dropout, scale)
    if mask is not None:
        visible = mask[:, None, None, :]
    if fused and not in_parts:
        return visible_attention(q, k, v, visible, dropout, scale)
    max_scores = MAX_SCORES if in_parts else None
    return attention_in_parts(
        q, k, v, visible, causal, key_bias, symmetric_slopes, dropout, scale, max_scores=max_scores
    )


__all__ = [
    "attention",
    "join_heads",
    "reference_attention",
    "self_extend_attention",
    "self_extend_weights",
    "split_heads",
    "visible_attention",
]
