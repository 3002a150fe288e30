"""The long convolution by real FFTs, with a backward of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.ops.tracing import plain_only


def ring_conv(x: Tensor, k: Tensor, k_back: Tensor | None) -> Tensor:
    """Convolve by FFT, padded so that nothing wraps round: x (B, H, L), k (H, Lk), k_back (H, Lb) -> (B, H, L)."""
    L, Lk, Lb = x.shape[-1], k.shape[-1], 0 if k_back is None else k_back.shape[-1]
    # no lag of either kernel may wrap round into the first L outputs, nor the kernels into each other
    size = fast_length(max(L + Lk - 1, L + Lb, Lk + Lb))
    ring = F.pad(k, (0, size - Lk - Lb))
    if k_back is not None:
        ring = torch.cat([ring, k_back.flip(-1)], -1)
    if plain_only():
        return torch.fft.irfft(torch.fft.rfft(x, n=size) * torch.fft.rfft(ring), n=size)[..., :L]
    return _RingConv.apply(x, ring)


def fast_length(n: int) -> int:
    """The smallest even number >= n without prime factors above 5: a length that FFTs are fast at.

    SciPy's `next_fast_len` gives the same, but is compiled code, which torch.compile cannot trace.
    """
    best = 2
    while best < n:
        best *= 2
    power_of_5 = 1
    while power_of_5 < best:
        odd = power_of_5
        while odd < best:
            size = 2 * odd
            while size < n:
                size *= 2
            best = min(best, size)
            odd *= 3
        power_of_5 *= 5
    return best


class _RingConv(torch.autograd.Function):
    """Circular convolution y = irfft(rfft(x) rfft(ring))[:L], x (B, H, L), ring (H, size), size > L.

    Its adjoint is the same ring convolution with conjugated spectra; autograd's own adjoint of rfft takes a full
    complex transform and three times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ring: Tensor) -> Tensor:
        size = ring.shape[-1]
        x_f, ring_f = torch.fft.rfft(x, n=size), torch.fft.rfft(ring)
        ctx.save_for_backward(x_f if ctx.needs_input_grad[1] else None, ring_f)
        ctx.size, ctx.L = size, x.shape[-1]
        return torch.fft.irfft(x_f * ring_f, n=size)[..., : ctx.L]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_f, ring_f = ctx.saved_tensors
        dy_f = torch.fft.rfft(dy, n=ctx.size)
        dx = dring = None
        if ctx.needs_input_grad[0]:
            dx = torch.fft.irfft(dy_f * ring_f.conj().resolve_conj(), n=ctx.size)[..., : ctx.L]
        if ctx.needs_input_grad[1]:
            # sum over the batch of dy_f conj(x_f), in place: at this size every further array costs a pass of memory
            product = dy_f.conj_physical_().mul_(x_f)
            dring = torch.fft.irfft(product.sum(0).conj().resolve_conj(), n=ctx.size)
        return dx, dring
