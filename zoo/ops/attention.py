"""Exact softmax attention, and SelfExtend over it.

B batch, H heads, Lq queries, Lk keys, d head dimension, dv of the values.
The form that runs by default goes to PyTorch's fused kernels without an (L, L) mask or bias, so memory grows with L.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.backend import choose
from zoo.ops.positions import alibi_lags, alibi_symmetric, rope, rope_tables, rotate
from zoo.spec.errors import ConfigError

FORMS = {"attention": lambda device: ("torch", "reference")}
"""Forms of the op on any device, best first; for `choose` and `zoo doctor`."""


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, L, H d) -> (B, H, L, d)"""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def join_heads(y: Tensor) -> Tensor:
    """(B, H, L, d) -> (B, L, H d)"""
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
    """softmax(q kᵀ/√d + bias) v over the visible keys; q (B, H, Lq, d), k (B, H, Lk, d), v (B, H, Lk, dv).

    mask              (B, Lk) bool, True = real key
    visible           bool, broadcastable to (B, H, Lq, Lk): any pattern, for short sequences, since it is held whole;
                      not together with a mask, causal or a bias
    causal            query i sees keys 0 .. i; needs Lq = Lk
    key_bias          (1 or B, H, 1, Lk) added to the scores of a key whatever the query (causal ALiBi)
    symmetric_slopes  (H,) adds -slope_h |i - j| (bidirectional ALiBi); needs Lq = Lk, not with causal
    dropout           on the attention weights; on a CPU the fused kernel has none, and (Lq, Lk) is stored
    scale             of the products, in place of 1/√d (T5: 1)

    A query that sees no real key gets zero. Forms: "torch" (the fused kernels), "reference".
    """
    lq, lk = q.shape[-2], k.shape[-2]
    if (causal or symmetric_slopes is not None) and lq != lk:
        raise ValueError(f"{lq} queries and {lk} keys: the causal and the symmetric form need as many of both")
    if causal and symmetric_slopes is not None:
        raise ValueError("symmetric ALiBi is the bidirectional form; the causal one is key_bias")
    if visible is not None:
        if causal or any(given is not None for given in (mask, key_bias, symmetric_slopes)):
            raise ValueError("visible says which keys are seen; it goes with no mask, causal or bias")
        return _over_visible(q, k, v, visible, dropout, scale)
    if choose("attention", FORMS["attention"]("any")) == "torch":
        y = _fused(q, k, v, mask, causal, key_bias, symmetric_slopes, dropout, scale)
    else:
        visible = None if mask is None else mask[:, None, None, :]
        if causal:
            earlier = torch.ones(lq, lk, dtype=torch.bool, device=q.device).tril()
            visible = earlier if visible is None else earlier & visible
        bias = key_bias if symmetric_slopes is None else symmetric_alibi_bias(symmetric_slopes, lk)
        y = reference_attention(q, k, v, visible=visible, bias=bias, dropout=dropout, scale=scale)
    if mask is None:
        return y
    blind = mask.cumsum(-1) == 0 if causal else ~mask.any(-1, keepdim=True)  # (B, Lq) or (B, 1)
    return y.masked_fill(blind[:, None, :, None], 0)


def _over_visible(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, dropout: float, scale: float | None) -> Tensor:
    if choose("attention", FORMS["attention"]("any")) == "reference":
        return reference_attention(q, k, v, visible=visible, dropout=dropout, scale=scale)
    blind = ~visible.any(-1, keepdim=True)  # a softmax over no key at all would be NaN
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | blind, dropout_p=dropout, scale=scale)
    return y.masked_fill(blind, 0)


def _fused(
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
    """PyTorch's fused kernels, never given an (L, L) tensor; queries that see nothing come out finite."""
    if mask is not None:
        mask = mask | ~mask.any(-1, keepdim=True)  # (B, Lk); a softmax over no key at all would be NaN
    if not (causal or key_bias is not None or symmetric_slopes is not None):
        visible = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, Lk), broadcast inside the kernel
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout, scale=scale)
    scale, dv = 1 / math.sqrt(q.shape[-1]) if scale is None else scale, v.shape[-1]
    if mask is not None or key_bias is not None:
        q, k = _with_key_terms(q, k, mask, key_bias, scale)
        v = F.pad(v, (0, max(q.shape[-1] - dv, 0)))  # fused kernels want one head dimension
    bias = None
    if symmetric_slopes is not None:
        # CPU kernels take a float32 bias beside half-precision queries, GPU kernels only one of the queries' dtype
        half_on_cpu = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
        bias = alibi_symmetric(symmetric_slopes.to(torch.float32 if half_on_cpu else q.dtype), q.shape[-2])
        k, v = k.flip(-2), v.flip(-2)  # the bias is made for keys in reverse
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal, dropout_p=dropout, scale=scale)
    return y[..., :dv]


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
    """Numbers of `dtype` that sum to `term` up to float32 precision (three for bfloat16, two for float16)."""
    if dtype in (torch.float32, torch.float64):
        return [term.to(dtype)]
    parts = []
    for _ in range(3 if dtype == torch.bfloat16 else 2):
        parts.append(term.to(dtype))
        term = term - parts[-1].to(term.dtype)
    return parts


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
    """The definition, with every score in memory.

    visible (bool) and bias are broadcastable to (B, H, Lq, Lk). A query that sees nothing gets zero.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = (q @ k.transpose(-1, -2)).to(wide) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if bias is not None:
        scores = scores + bias.to(wide)
    if visible is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        sees = visible.any(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(~visible & sees, -torch.inf), dim=-1).masked_fill(~sees, 0)
    return F.dropout(weights, dropout).to(v.dtype) @ v


def symmetric_alibi_bias(slopes: Tensor, seq_len: int) -> Tensor:
    """-slope_h |i - j| written out, keys in their order: slopes (H,) -> (1, H, L, L)."""
    i = torch.arange(seq_len, device=slopes.device)
    return alibi_lags(slopes, seq_len)[:, i[:, None] - i + seq_len - 1][None]


# -- SelfExtend ----------------------------------------------------------------------------------------------------


def self_extend_weights(
    q: Tensor,
    k: Tensor,
    *,
    group_size: int,
    window: int,
    theta: float = 10000.0,
    rows: slice = slice(None),
) -> Tensor:
    """Attention weights of SelfExtend (Jin et al. 2024, §3.2) for some queries: (B, H, L, d) -> (B, H, rows, L).

    Keys nearer than `window` W are seen at their own distance, farther ones at distances of floor(position / G), so
    that a model trained on L0 positions reads (L0 - W) G + W. q and k come before rotation; causal; inference only.

    q, k  (B, H, L, d), unrotated
    rows  the queries to compute
    Raises ConfigError when G does not divide W: the shift W - W/G of grouped queries must be whole.
    """
    if group_size < 1 or window < 1 or window % group_size:
        raise ConfigError("window", f"must be a positive multiple of group_size {group_size}, got {window}")
    length = k.shape[-2]
    j = torch.arange(length, device=k.device)
    i = j[rows]
    speeds = rope(k.shape[-1], theta=theta, device=k.device)
    shift = window - window // group_size
    q = q[..., rows, :] / math.sqrt(q.shape[-1])
    near = rotate(q, *rope_tables(i, speeds)) @ rotate(k, *rope_tables(j, speeds)).transpose(-1, -2)
    far_q = rotate(q, *rope_tables(i // group_size + shift, speeds))
    far = far_q @ rotate(k, *rope_tables(j // group_size, speeds)).transpose(-1, -2)
    lag = i[:, None] - j
    scores = torch.where(lag < window, near, far).masked_fill(lag < 0, -torch.inf)
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return torch.softmax(scores, dim=-1, dtype=wide).to(scores.dtype)


def self_extend_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    group_size: int,
    window: int,
    theta: float = 10000.0,
    block: int = 256,
) -> Tensor:
    """SelfExtend: q, k (B, H, L, d) before rotation, v (B, H, L, dv) -> (B, H, L, dv), `block` queries at a time."""
    outs = [
        self_extend_weights(q, k, group_size=group_size, window=window, theta=theta, rows=slice(s, s + block)) @ v
        for s in range(0, q.shape[-2], block)
    ]
    return torch.cat(outs, dim=-2)
