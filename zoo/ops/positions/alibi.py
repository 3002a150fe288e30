"""Attention with linear biases (ALiBi, Press et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.ops.dtypes import wide_dtype


def alibi_slopes(n_heads: int, *, bias_max: float = 8.0, device: torch.device | str = "cpu") -> Tensor:
    """The slope of each head (H,), in the wide dtype: 2^(-bias_max h/n) for h = 1 … n (§3).

    If H is no power of two: the slopes of the power of two below, then every second slope of the one above, as in the
    authors' code; BLOOM and MPT build the same list differently.
    """
    device = torch.device(device)
    dtype = wide_dtype(device)
    n = 2 ** math.floor(math.log2(n_heads))
    h = torch.arange(1, n + 1, dtype=dtype, device=device)
    between = 2 * torch.arange(n_heads - n, dtype=dtype, device=device) + 1
    return 2.0 ** (-bias_max * torch.cat([h / n, between / (2 * n)]))


def alibi_key_bias(slopes: Tensor, positions: Tensor) -> Tensor:
    """The causal bias as slope_h * p_j: slopes (H,), positions (L,) or (B, L) -> (1 or B, H, 1, L).

    On causal rows it differs from -slope_h (i - j), which needs (L, L) numbers, by a constant that softmax cancels.
    """
    positions = positions.to(slopes.dtype)
    if positions.ndim == 1:
        positions = positions[None]
    return slopes[None, :, None, None] * positions[:, None, None, :]


def real_positions(mask: Tensor) -> Tensor:
    """Position of each key among the real tokens, 0 at pads, on either side: mask (B, L) -> (B, L)."""
    return (mask.cumsum(-1) - 1) * mask


def alibi_symmetric(slopes: Tensor, seq_len: int) -> Tensor:
    """The bidirectional bias -slope_h |i - j|, keys in reverse order, as a view of O(L) numbers: (H,) -> (1, H, L, L).

    Entry (h, i, j) is the bias of query i and key L - 1 - j: a view needs positive strides, and so the lags i - j
    must grow along both axes. Attention does not depend on the order of keys, so the caller flips keys and values too.
    """
    lag = torch.arange(1 - seq_len, seq_len, dtype=slopes.dtype, device=slopes.device)
    biases = (-slopes[:, None] * lag.abs()).contiguous()  # (H, 2L - 1)
    return biases.as_strided((1, len(slopes), seq_len, seq_len), (0, biases.stride(0), 1, 1))
