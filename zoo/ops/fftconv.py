"""Long convolution of every channel with its own kernel, by FFT.

B batch, H channels, L seq_len, Lk and Lb lengths of the forward and backward kernels. Time is the last axis.

    y[b,h,t] = sum_{s<=t} k[h,t-s] x[b,h,s]  +  sum_{s>t} k_back[h,s-t-1] x[b,h,s]

The backward kernel starts at the next token, not at the current one: S4's bidirectional form, where the current
token is seen by the forward kernel only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.ops.backend import choose

FORMS = {"fft_conv": lambda device: ("torch", "reference")}
"""Forms of the op on any device, best first; for `choose` and `zoo doctor`."""


def fft_conv(x: Tensor, k: Tensor, k_back: Tensor | None = None) -> Tensor:
    """Causal long convolution, or two-sided with `k_back`.

    x       (B, H, L)
    k       (H, Lk), Lk of any length; what lies beyond L has no effect
    k_back  (H, Lb) or None
    returns (B, H, L) in the dtype of x; computed in float32, or float64 when x or k is, whatever autocast says
    """
    L = x.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        wide = torch.promote_types(torch.promote_types(x.dtype, k.dtype), torch.float32)
        u, k = x.to(wide), k[..., :L].to(wide)
        if k_back is not None:
            k_back = k_back[..., : L - 1].to(wide)
        if choose("fft_conv", FORMS["fft_conv"]("any")) == "reference":
            return direct_conv(u, k, k_back).to(x.dtype)
        Lk, Lb = k.shape[-1], 0 if k_back is None else k_back.shape[-1]
        # no lag of either kernel may wrap round into the first L outputs, nor the kernels into each other
        size = fast_length(max(L + Lk - 1, L + Lb, Lk + Lb))
        ring = F.pad(k, (0, size - Lk - Lb))
        if k_back is not None:
            ring = torch.cat([ring, k_back.flip(-1)], -1)
        return _RingConv.apply(u, ring).to(x.dtype)


def direct_conv(x: Tensor, k: Tensor, k_back: Tensor | None = None) -> Tensor:
    """The definition: the two sums written out, O(L²) time, O(L) memory. Shapes as in `fft_conv`."""
    H = x.shape[1]
    y = F.conv1d(F.pad(x, (k.shape[-1] - 1, 0)), k.flip(-1)[:, None], groups=H)
    if k_back is not None and k_back.shape[-1]:
        y = y + F.conv1d(F.pad(x, (0, k_back.shape[-1]))[..., 1:], k_back[:, None], groups=H)
    return y


class _RingConv(torch.autograd.Function):
    """y = irfft(rfft(x) rfft(ring))[:L], x (B, H, L), ring (H, size), size > L.

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


@cache
def fast_length(n: int) -> int:
    """The smallest even number >= n without prime factors above 5: a length that FFTs are fast at."""
    best = 2
    while best < n:
        best *= 2
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 2 * three
            while two < n:
                two *= 2
            best = min(best, two)
            three *= 3
        five *= 5
    return best
