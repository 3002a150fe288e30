"""Complex tensors as pairs of real ones, and exact powers."""

from __future__ import annotations

import torch
from torch import Tensor


def as_real(z: Tensor, dim: int = -1) -> Tensor:
    """Real and imaginary parts, one after the other along `dim`; a real tensor is returned as it is."""
    return torch.cat([z.real, z.imag], dim) if z.is_complex() else z


def as_complex(x: Tensor) -> Tensor:
    """The inverse of `as_real` along the last axis: (…, 2n) real -> (…, n) complex."""
    re, im = x.chunk(2, -1)
    return torch.complex(re, im)


def pair_sum(z: Tensor) -> Tensor:
    """Sum of the conjugate pair of which z is the member kept, 2 Re z; a real tensor is returned as it is."""
    return 2 * z.real if z.is_complex() else z


def pair_weights(c: Tensor, dim: int = -1) -> Tensor:
    """Real weights w such that w · as_real(s) is the sum of pair_sum(c s)."""
    return torch.cat([2 * c.real, -2 * c.imag], dim) if c.is_complex() else c


def geometric(a: Tensor, count: int) -> Tensor:
    """Powers 1, a, a², … a^(count-1) along a new last axis, by doubling: exact products, no logarithm of zero."""
    powers = torch.ones_like(a)[..., None]
    factor = a[..., None]
    while powers.shape[-1] < count:
        powers = torch.cat([powers, powers * factor], -1)
        factor = factor * factor
    return powers[..., :count]


def power(a: Tensor, exponent: int) -> Tensor:
    """Raise a to an integer power >= 0, by squaring."""
    result = torch.ones_like(a)
    while exponent:
        if exponent & 1:
            result = result * a
        exponent >>= 1
        if exponent:
            a = a * a
    return result


def power_of_rows(a: Tensor, exponents: Tensor, largest: int) -> Tensor:
    """Raise a (H, n) to each row's own exponent (B,), integers in 0 … largest: (B, H, n)."""
    T = 1 << (largest.bit_length() + 1) // 2
    low, high = geometric(a, T), geometric(power(a, T), largest // T + 1)
    return (low[..., exponents % T] * high[..., exponents // T]).movedim(-1, 0)
