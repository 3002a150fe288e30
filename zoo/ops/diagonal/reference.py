"""The definition of the kernel of a diagonal state space model."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.complex import geometric, pair_sum


def vandermonde_kernel(a: Tensor, cb: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """K[c,h,l] = sum_n cb a^l with the whole (H, n, L) matrix of powers: a (H, n), cb (Ch, H, n) -> (Ch, H, L)."""
    return pair_sum(torch.einsum("chn,hnl->chl", cb, geometric(a, L))).to(dtype)
