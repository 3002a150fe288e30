"""Linformer's attention. B batch, H heads, L seq_len, n the length that E was made for, k compressed length, d head."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.attention import attention


def compress(E: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multiply E with x along the sequence, pads counted as zero.

    E     (k, n) for all heads, x (B, L, D) -> (B, k, D) or x (B, H, L, d) -> (B, H, k, d); or
          (H, k, n), x (B, H, L, d) -> (B, H, k, d). A shorter L uses the first L columns
    mask  (B, L), True = real token
    Raises ValueError when L > n: E has no columns for it.
    """
    seq_len = x.shape[-2]
    if seq_len > E.shape[-1]:
        raise ValueError(f"a sequence of {seq_len} tokens, but the Linformer's projection is made for {E.shape[-1]}")
    if mask is not None:
        pad = ~mask[:, :, None] if x.ndim == 3 else ~mask[:, None, :, None]
        x = x.masked_fill(pad, 0)
    equation = "kl,bld->bkd" if x.ndim == 3 else "kl,bhld->bhkd" if E.ndim == 2 else "hkl,bhld->bhkd"
    return torch.einsum(equation, E[..., :seq_len], x)


def linformer_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    E: Tensor,
    F: Tensor,
    *,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Compute softmax(Q (E K)ᵀ/√d) (F V), Wang et al. 2020, eq. 7; q, k, v (B, H, L, d), E, F (k, n) or (H, k, n).

    mask (B, L) zeroes padded keys and values before they are mixed; the softmax runs over mixtures and needs none.
    """
    return attention(q, compress(E, k, mask), compress(F, v, mask), dropout=dropout)
