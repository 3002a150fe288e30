"""The Hyena operator (Poli et al. 2023): position features, window, long convolution and the recurrence of gates.

B batch, D d_model, L seq_len, M the longest input that the filters are made for, C filter channels, E features.
Time is normalised by M, not by L: a shorter input sees the beginning of the same filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.dtypes import wide_dtype
from zoo.ops.fftconv import fft_conv


def times(L: int, M: int, device: torch.device | str = "cpu") -> Tensor:
    """Return t_i = i/(M - 1), i = 0 .. L-1, in the wide dtype -> (L,)."""
    return torch.linspace(0, 1, M, dtype=wide_dtype(torch.device(device)), device=device)[:L]


def features(L: int, M: int, emb_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the position features -> (L, E).

    [t, cos(f_1 w), .., cos(f_K w), -sin(f_1 w), .., -sin(f_K w)], w_i = 2 pi i/M, f from 1e-4 to K - 1
    """
    t = times(L, M, device)
    K = (emb_dim - 1) // 2
    f = torch.linspace(1e-4, K - 1, K, dtype=t.dtype, device=device)  # only 1e-4 where K = 1
    angles = torch.arange(L, dtype=t.dtype, device=device)[:, None] * (2 * math.pi / M) * f  # (L, K)
    return torch.cat([t[:, None], angles.cos(), -angles.sin()], -1)


def decay_rates(C: int, fast: float, slow: float, target: float, device: torch.device | str = "cpu") -> Tensor:
    """Return |delta| (C,), evenly spaced: exp(-|delta| t) = target at t = slow for the first, t = fast for the last."""
    dtype = wide_dtype(torch.device(device))
    return torch.linspace(-math.log(target) / slow, -math.log(target) / fast, C, dtype=dtype, device=device)


def window(t: Tensor, rates: Tensor, shift: float) -> Tensor:
    """Return exp(-|delta_c| t_i) + shift: t (L,), rates (C,) -> (L, C)."""
    return torch.exp(-t[:, None] * rates) + shift


def long_conv(x: Tensor, k: Tensor, bias: Tensor, k_back: Tensor | None = None) -> Tensor:
    """Convolve: y_t = sum_{s<=t} k_{t-s} x_s + bias x_t, and with k_back also sum_{s>=t} k_back_{s-t} x_s.

    x (B, D, L), k and k_back (D, L), bias (D,) -> (B, D, L). Lag 0 is in both filters, as in the authors' code.
    """
    now = bias if k_back is None else bias + k_back[:, 0]
    k = k + F.pad(now[:, None], (0, k.shape[1] - 1))
    return fft_conv(x, k, None if k_back is None else k_back[:, 1:])


def hyena(x: Sequence[Tensor], v: Tensor, k: Tensor, bias: Tensor, k_back: Tensor | None = None) -> Tensor:
    """Alternate gates and long convolutions: v <- long_conv_o(x_{n-1-o} v) for o = 0 .. n-2, then x_0 v.

    Definition 3.1 of the paper, in the order of the authors' code.

    x (n tensors) and v (B, D, L); k and k_back (D, n-1, L), bias (D, n-1) -> (B, D, L)
    """
    for o, gate in enumerate(reversed(x[1:])):
        v = long_conv(gate * v, k[:, o], bias[:, o], None if k_back is None else k_back[:, o])
    return x[0] * v
