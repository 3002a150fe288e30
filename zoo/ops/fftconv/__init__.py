"""Long convolution of every channel with its own kernel.

    y[b,h,t] = sum_{s<=t} k[h,t-s] x[b,h,s]  +  sum_{s>t} k_back[h,s-t-1] x[b,h,s]

B batch, H channels, L seq_len, Lk and Lb lengths of the forward and backward kernels; time is the last axis. The
backward kernel starts at the next token: S4's bidirectional form, where only the forward kernel sees the current one.

Forms: "torch" by FFT, O(L log L) (fft.py); "reference" by direct sums, O(L²) (reference.py).
"""

from __future__ import annotations

from torch import Tensor

from zoo.ops.backend import choose_form, register_op
from zoo.ops.dtypes import compute_dtype
from zoo.ops.fftconv.fft import ring_conv
from zoo.ops.fftconv.reference import direct_conv
from zoo.ops.tracing import without_autocast

register_op("fft_conv", ("torch", "reference"))


def fft_conv(x: Tensor, k: Tensor, k_back: Tensor | None = None) -> Tensor:
    """Convolve x with k causally, or in both directions with `k_back`.

    x       (B, H, L)
    k       (H, Lk), Lk of any length; what lies beyond L has no effect
    k_back  (H, Lb) or None
    Returns (B, H, L) in the dtype of x; computed in float32, or float64 when x or k is, also under autocast.
    """
    L = x.shape[-1]
    with without_autocast(x):
        dtype = compute_dtype(x, k)
        u, k = x.to(dtype), k[..., :L].to(dtype)
        if k_back is not None:
            k_back = k_back[..., : L - 1].to(dtype)
        conv = ring_conv if choose_form("fft_conv", x.device) == "torch" else direct_conv
        return conv(u, k, k_back).to(x.dtype)
