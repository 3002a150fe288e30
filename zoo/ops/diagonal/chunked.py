"""The kernel of a diagonal state space model as a product of two tables of about √L columns."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.complex import as_real, geometric, pair_weights, power


def chunked_kernel(a: Tensor, cb: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """K (Ch, H, L) with l = T q + r and a^l = a^(Tq) a^r: a (H, n), cb (Ch, H, n), in double precision.

    Only the products of the two tables, real batched GEMMs, run in `dtype`; no (H, n, L) matrix is built.
    """
    T = 1 << ((L - 1).bit_length() + 1) // 2
    low = geometric(a, T)  # (H, n, T)
    high = geometric(power(a, T), -(-L // T))  # (H, n, Q)
    left = pair_weights(cb[..., None] * high, 2).to(dtype)  # (Ch, H, N, Q)
    right = as_real(low, 1).to(dtype)  # (H, N, T)
    return torch.einsum("chnq,hnt->chqt", left, right).flatten(2)[..., :L]
