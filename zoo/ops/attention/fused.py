"""Softmax attention by PyTorch's fused kernels, without an (L, L) tensor of our own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.positions import alibi_symmetric


def visible_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, dropout: float, scale: float | None
) -> Tensor:
    """Attention over any pattern of keys, bool, broadcastable to (B, H, Lq, Lk); a query that sees no key gets zero."""
    if visible is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
    sees_nothing = ~visible.any(-1, keepdim=True)  # is shown every key: a softmax over none would be NaN
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | sees_nothing, dropout_p=dropout, scale=scale)
    return y.masked_fill(sees_nothing, 0)


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    key_bias: Tensor | None,
    symmetric_slopes: Tensor | None,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """Causal or biased attention, with the arguments of `attention`."""
    scale, dv = 1 / math.sqrt(q.shape[-1]) if scale is None else scale, v.shape[-1]
    if mask is not None or key_bias is not None:
        real = None if mask is None else mask | ~mask.any(-1, keepdim=True)  # (B, Lk), no row without a key
        q, k = _with_key_terms(q, k, real, key_bias, scale)
        v = F.pad(v, (0, max(q.shape[-1] - dv, 0)))  # fused kernels want one head dimension
    bias = None
    if symmetric_slopes is not None:
        # CPU kernels take a float32 bias beside half-precision queries, GPU kernels only one of the queries' dtype
        half_on_cpu = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
        bias = alibi_symmetric(symmetric_slopes.to(torch.float32 if half_on_cpu else q.dtype), q.shape[-2])
        k, v = k.flip(-2), v.flip(-2)  # the bias is made for keys in reverse order
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal, dropout_p=dropout, scale=scale)
    y = y[..., :dv]
    if mask is None:
        return y
    sees_nothing = mask.cumsum(-1) == 0 if causal else ~mask.any(-1, keepdim=True)  # (B, Lq) or (B, 1)
    return y.masked_fill(sees_nothing[:, None, :, None], 0)


def _with_key_terms(
    q: Tensor, k: Tensor, mask: Tensor | None, key_bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Write what depends on the key alone into extra channels: q gets a constant, k the term.

    The fused kernel does not take a mask together with `is_causal`, and (B, H, 1, L) would have to be spread to
    (L, L); as channels the terms cost O(L). A pad's key is zero but for the mask's channel, so its score is far below
    any real one, and its weight exactly zero.
    """
    batch, heads, length, _ = k.shape
    # a power of two: multiplying by it is exact, and it keeps the key's half within the range of float16
    constant = 16.0
    channels: list[Tensor] = []
    if key_bias is not None:
        term = (key_bias / (scale * constant)).transpose(-1, -2).expand(batch, heads, length, 1)
        channels += _exact_parts(term, k.dtype)
    if mask is not None:
        pad = ~mask[:, None, :, None]
        k = k.masked_fill(pad, 0)
        channels = [c.masked_fill(pad, 0) for c in channels]
        # far below every score that is not already broken, and far from overflow after the multiplication
        lowest = -torch.finfo(k.dtype).max if k.dtype == torch.float16 else -1e30
        far = k.new_zeros(batch, 1, length, 1).masked_fill(pad, lowest)
        channels.append(far.expand(batch, heads, length, 1))
    ones = q.new_full((*q.shape[:-1], len(channels)), constant)
    return torch.cat([q, ones], dim=-1), torch.cat([k, *channels], dim=-1)


def _exact_parts(term: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Split `term` into numbers of `dtype` that sum to it up to float32 precision (bfloat16: three, float16: two)."""
    if dtype in (torch.float32, torch.float64):
        return [term.to(dtype)]
    parts = []
    for _ in range(3 if dtype == torch.bfloat16 else 2):
        parts.append(term.to(dtype))
        term = term - parts[-1].to(term.dtype)
    return parts
