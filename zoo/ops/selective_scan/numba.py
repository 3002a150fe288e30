"""The selective scan on a CPU in float32 by compiled loops (numba_kernels.py); equations and memory of chunked.py.

For PyTorch the loops are two operators: it can trace them without values, and count their matrix products.

B batch, L seq_len, D channels, N state size; T steps of a chunk, K chunks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from zoo.ops.selective_scan.chunked import chunk_sizes

THREAD_ELEMENTS = 1 << 20
"""State elements for which another thread is started: about a millisecond of work."""

LIBRARY = torch.library.Library("zoo", "FRAGMENT")
INPUTS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C"
LIBRARY.define(f"selective_scan({INPUTS}, Tensor h0, SymInt T, bool keep) -> (Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"selective_scan_backward({INPUTS}, Tensor between, Tensor dy, Tensor dh_last, SymInt T)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


class NumbaScan(torch.autograd.Function):
    """Run over the tokens: u, delta (B, L, D), B, C (B, L, N), h0 (B, D, N) -> y (B, L, D), last h (B, D, N).

    Memory: the states between chunks, L/T · B · N · D, and for each thread two work spaces (T, N, D).
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
    ) -> tuple[Tensor, Tensor]:
        (batch, seq_len, D), N = u.shape, A.shape[1]
        _, ctx.T = chunk_sizes(batch, seq_len, D, N)
        keep = any(ctx.needs_input_grad)
        y, h_last, between = torch.ops.zoo.selective_scan(u, delta, A.t(), B, C, h0.transpose(1, 2), ctx.T, keep)
        ctx.save_for_backward(u, delta, A, B, C, between)
        return y, h_last.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, between = ctx.saved_tensors
        du, ddelta, dA_t, dB, dC, dh0_t = torch.ops.zoo.selective_scan_backward(
            u, delta, A.t(), B, C, between, dy, dh_last.transpose(1, 2), ctx.T
        )
        return du, ddelta, dA_t.t().contiguous(), dB, dC, dh0_t.transpose(1, 2).contiguous()


@torch.library.register_fake("zoo::selective_scan", lib=LIBRARY)
def _new_outputs(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor, T: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D), h_last (B, N, D) and between (K, B, N, D), with K = 0 unless states are kept, for A (N, D)."""
    chunks = -(-u.shape[1] // T) if keep else 0
    return u.new_empty(u.shape), h0.new_empty(h0.shape), h0.new_empty(chunks, *h0.shape)


@torch.library.register_fake("zoo::selective_scan_backward", lib=LIBRARY)
def _new_gradients(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, between: Tensor, dy: Tensor, dh_last: Tensor, T: int
) -> tuple[Tensor, ...]:
    """Of u, delta, A (N, D), B, C, h0 (B, N, D)."""
    return tuple(x.new_empty(x.shape) for x in (u, delta, A, B, C, dh_last))


@torch.library.impl("zoo::selective_scan", "cpu", lib=LIBRARY)
def _forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor, T: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from zoo.ops.selective_scan.numba_kernels import forward

    y, h_last, between = _new_outputs(u, delta, A, B, C, h0, T, keep)
    _run(forward, len(u), u.numel() * len(A), (u, delta, A, B, C, h0, y, h_last, between), T)
    return y, h_last, between


@torch.library.impl("zoo::selective_scan_backward", "cpu", lib=LIBRARY)
def _backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, between: Tensor, dy: Tensor, dh_last: Tensor, T: int
) -> tuple[Tensor, ...]:
    from zoo.ops.selective_scan.numba_kernels import backward

    du, ddelta, _, dB, dC, dh0 = _new_gradients(u, delta, A, B, C, between, dy, dh_last, T)
    dA = torch.zeros_like(dh0)  # of each row
    dh0.copy_(dh_last)
    _run(backward, len(u), u.numel() * len(A), (u, delta, A, B, C, between, dy, dh0, du, ddelta, dA, dB, dC), T)
    return du, ddelta, dA.sum(0), dB, dC, dh0


def _run(kernel: Any, rows: int, elements: int, tensors: tuple[Tensor, ...], T: int) -> None:
    """Call a kernel on all rows, in as many threads as PyTorch may use and the state elements are worth.

    A row's results are its own, so that any number of threads gives the same bits.
    """
    call = partial(kernel, *(x.contiguous().numpy(force=True) for x in tensors), T)
    parts = max(1, min(torch.get_num_threads(), rows, elements // THREAD_ELEMENTS))
    if parts == 1:
        call(0, rows)
        return
    ends = [rows * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:  # not kept: after a fork its threads would be missing
        list(pool.map(call, ends[:-1], ends[1:]))


@register_flop_formula(torch.ops.zoo.selective_scan)
def _forward_flops(u: torch.Size, delta: torch.Size, A: torch.Size, *_: Any, **__: Any) -> int:
    """Of y = C h, the matrix product that the form in chunks has."""
    return 2 * u.numel() * A[0]


@register_flop_formula(torch.ops.zoo.selective_scan_backward)
def _backward_flops(u: torch.Size, delta: torch.Size, A: torch.Size, *_: Any, **__: Any) -> int:
    """Of dB, dC and d(delta u)."""
    return 6 * u.numel() * A[0]
