"""The selective scan as Triton kernels, one per direction; imported only where they run.

A program owns one row of the batch and BD channels and walks over tiles of T steps. Within a tile the recurrence is an
associative scan over pairs (a, b) of h -> a h + b; nothing with a state axis leaves the registers, except one state
per tile, from which backward computes the tile again. Sums over channels (dB, dC) and over the batch (dA) go through
partial results that are added in a fixed order, so that two runs give the same bits.

B batch, L seq_len, D channels, N state size; BD, BN the block sizes over D and N, powers of two; K tiles.
Steps past the end have delta = 0: the decay is 1 and the input 0, so the state and its gradient pass through.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops.selective_scan.reference import scan_reference
from zoo.spec.errors import ZooError

TILE_ELEMENTS = 4096
"""Elements (T, BD, BN) of a tile: 32 registers per thread and tensor with four warps."""


@triton.jit
def _combine(a_first, b_first, a_then, b_then):  # type: ignore[no-untyped-def]
    """Compose two steps: h -> a_then (a_first h + b_first) + b_then."""
    return a_first * a_then, b_first * a_then + b_then


@triton.jit
def _tile_states(delta, x, A, B, h_in):  # type: ignore[no-untyped-def]
    """Inputs b and states h (T, BD, BN) of a tile: delta, x (T, BD), A (BD, BN), B (T, BN), h_in (BD, BN) before it."""
    a = tl.exp(delta[:, :, None] * A[None, :, :])
    b = x[:, :, None] * B[:, None, :]
    decay, own = tl.associative_scan((a, b), 0, _combine)
    return b, decay * h_in[None, :, :] + own


@triton.jit
def _forward_kernel(  # type: ignore[no-untyped-def]
    u_ptr, delta_ptr,  # (B, L, D)
    A_ptr,  # (D, N)
    B_ptr, C_ptr,  # (B, L, N)
    h0_ptr,  # (B, D, N)
    y_ptr,  # (B, L, D)
    h_last_ptr,  # (B, D, N)
    between_ptr,  # (B, K, D, N)
    L, D, N, K, T: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    n = tl.arange(0, BN)
    i = tl.arange(0, T)
    has_d, has_n = d < D, n < N
    dn = d[:, None] * N + n[None, :]
    has_dn = has_d[:, None] & has_n[None, :]
    A = tl.load(A_ptr + dn, mask=has_dn, other=0.0)
    h_in = tl.load(h0_ptr + row * D * N + dn, mask=has_dn, other=0.0)
    for k in range(K):
        t = k * T + i
        has_t = t < L
        td = (row * L + t)[:, None] * D + d[None, :]
        tn = (row * L + t)[:, None] * N + n[None, :]
        has_td = has_t[:, None] & has_d[None, :]
        has_tn = has_t[:, None] & has_n[None, :]
        tl.store(between_ptr + (row * K + k) * D * N + dn, h_in, mask=has_dn)
        delta = tl.load(delta_ptr + td, mask=has_td, other=0.0)
        x = delta * tl.load(u_ptr + td, mask=has_td, other=0.0)
        B = tl.load(B_ptr + tn, mask=has_tn, other=0.0)
        C = tl.load(C_ptr + tn, mask=has_tn, other=0.0)
        _, h = _tile_states(delta, x, A, B, h_in)
        tl.store(y_ptr + td, tl.sum(h * C[:, None, :], 2), mask=has_td)
        h_in = tl.sum(tl.where((i == T - 1)[:, None, None], h, 0.0), 0)
    tl.store(h_last_ptr + row * D * N + dn, h_in, mask=has_dn)


@triton.jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    u_ptr, delta_ptr,  # (B, L, D)
    A_ptr,  # (D, N)
    B_ptr, C_ptr,  # (B, L, N)
    between_ptr,  # (B, K, D, N)
    dy_ptr,  # (B, L, D)
    dh_last_ptr,  # (B, D, N)
    du_ptr, ddelta_ptr,  # (B, L, D)
    dA_ptr,  # (B, D, N)
    dB_ptr, dC_ptr,  # (blocks of channels, B, L, N)
    dh0_ptr,  # (B, D, N)
    batch, L, D, N, K, T: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    n = tl.arange(0, BN)
    i = tl.arange(0, T)
    has_d, has_n = d < D, n < N
    dn = d[:, None] * N + n[None, :]
    has_dn = has_d[:, None] & has_n[None, :]
    A = tl.load(A_ptr + dn, mask=has_dn, other=0.0)
    g_in = tl.load(dh_last_ptr + row * D * N + dn, mask=has_dn, other=0.0)
    dA = tl.zeros_like(A)
    for back in range(K):
        k = K - 1 - back
        t = k * T + i
        has_t = t < L
        td = (row * L + t)[:, None] * D + d[None, :]
        tn = (row * L + t)[:, None] * N + n[None, :]
        has_td = has_t[:, None] & has_d[None, :]
        has_tn = has_t[:, None] & has_n[None, :]
        h_in = tl.load(between_ptr + (row * K + k) * D * N + dn, mask=has_dn, other=0.0)
        delta = tl.load(delta_ptr + td, mask=has_td, other=0.0)
        later = tl.load(delta_ptr + td + D, mask=(t + 1 < L)[:, None] & has_d[None, :], other=0.0)  # delta_{t+1}
        u = tl.load(u_ptr + td, mask=has_td, other=0.0)
        dy = tl.load(dy_ptr + td, mask=has_td, other=0.0)
        B = tl.load(B_ptr + tn, mask=has_tn, other=0.0)
        C = tl.load(C_ptr + tn, mask=has_tn, other=0.0)
        x = delta * u
        b, h = _tile_states(delta, x, A, B, h_in)

        # g_t = C_t dy_t + a_{t+1} g_{t+1}
        a_later = tl.exp(later[:, :, None] * A[None, :, :])
        decay, own = tl.associative_scan((a_later, dy[:, :, None] * C[:, None, :]), 0, _combine, reverse=True)
        g = decay * g_in[None, :, :] + own
        g_in = tl.sum(tl.where((i == 0)[:, None, None], g, 0.0), 0)

        at_block = (block * batch * L * N) + tn
        tl.store(dC_ptr + at_block, tl.sum(h * dy[:, :, None], 1), mask=has_tn)
        tl.store(dB_ptr + at_block, tl.sum(g * x[:, :, None], 1), mask=has_tn)
        dx = tl.sum(g * B[:, None, :], 2)  # (T, BD)
        p = g * (h - b)  # h - b = a_t h_{t-1}
        dA += tl.sum(p * delta[:, :, None], 0)
        tl.store(du_ptr + td, dx * delta, mask=has_td)
        tl.store(ddelta_ptr + td, dx * u + tl.sum(p * A[None, :, :], 2), mask=has_td)
    first = tl.load(delta_ptr + row * L * D + d, mask=has_d, other=0.0)
    tl.store(dh0_ptr + row * D * N + dn, g_in * tl.exp(first[:, None] * A), mask=has_dn)
    tl.store(dA_ptr + row * D * N + dn, dA, mask=has_dn)


def _tile_sizes(D: int, N: int, seq_len: int) -> tuple[int, int, int]:
    """Choose the sizes (T, BD, BN) of a tile."""
    BN = triton.next_power_of_2(N)
    T = min(16, triton.next_power_of_2(seq_len))
    BD = max(1, min(16, triton.next_power_of_2(D), TILE_ELEMENTS // (T * BN)))
    return T, BD, BN


class TritonScan(torch.autograd.Function):
    """The recurrence by the two kernels; inputs in one dtype, float32 or float64, on one device."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
    ) -> tuple[Tensor, Tensor]:
        u, delta, A, B, C, h0 = (x.contiguous() for x in (u, delta, A, B, C, h0))
        (batch, seq_len, D), N = u.shape, A.shape[1]
        T, BD, BN = _tile_sizes(D, N, seq_len)
        K = triton.cdiv(seq_len, T)
        y, h_last = torch.empty_like(u), torch.empty_like(h0)
        between = u.new_empty(batch, K, D, N)
        with torch.cuda.device_of(u):
            _forward_kernel[(batch, triton.cdiv(D, BD))](
                u, delta, A, B, C, h0, y, h_last, between, seq_len, D, N, K, T=T, BD=BD, BN=BN
            )
        ctx.save_for_backward(u, delta, A, B, C, between)
        return y, h_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, between = ctx.saved_tensors
        (batch, seq_len, D), N = u.shape, A.shape[1]
        T, BD, BN = _tile_sizes(D, N, seq_len)
        blocks = triton.cdiv(D, BD)
        dy, dh_last = dy.contiguous(), dh_last.contiguous()
        du, ddelta, dh0 = torch.empty_like(u), torch.empty_like(u), torch.empty_like(dh_last)
        dA = u.new_empty(batch, D, N)
        dB, dC = (u.new_empty(blocks, batch, seq_len, N) for _ in range(2))
        inputs = (u, delta, A, B, C, between, dy, dh_last)
        results = (du, ddelta, dA, dB, dC, dh0)
        with torch.cuda.device_of(u):
            _backward_kernel[(batch, blocks)](
                *inputs, *results, batch, seq_len, D, N, between.shape[1], T=T, BD=BD, BN=BN
            )
        return du, ddelta, dA.sum(0), dB.sum(0), dC.sum(0), dh0


def triton_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """Run over the tokens: u, delta (B, L, D), B, C (B, L, N), h0 (B, D, N) -> y (B, L, D), last h (B, D, N).

    On a GPU the first call checks the kernels.
    """
    if u.is_cuda:
        self_check(u.device, A.shape[1])
    return TritonScan.apply(u, delta, A, B, C, h0)


@cache
def self_check(device: torch.device, N: int) -> None:
    """Compare the compiled kernels with the loop that defines them, once per process, device and state size.

    Raises ZooError when an output or a gradient differs: a miscompiled kernel must not train anything.
    """
    g = torch.Generator().manual_seed(0)
    batch, seq_len, D = 2, 19, 18
    shapes = ((batch, seq_len, D), (batch, seq_len, D), (D, N), (batch, seq_len, N), (batch, seq_len, N), (batch, D, N))
    drawn = [torch.randn(shape, generator=g) for shape in shapes]
    drawn[1], drawn[2] = drawn[1].abs(), -drawn[2].abs()  # step sizes are positive, A is negative
    dy, dh = (torch.randn(shape, generator=g).to(device) for shape in (shapes[0], shapes[-1]))
    results = []
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for scan in (TritonScan.apply, scan_reference):
            inputs = [x.to(device).requires_grad_() for x in drawn]
            y, h = scan(*inputs)
            gradients = torch.autograd.grad((y * dy).sum() + (h * dh).sum(), inputs)
            results.append([y.detach(), h.detach(), *gradients])
    names = ("y", "h_last", "du", "ddelta", "dA", "dB", "dC", "dh0")
    wrong = [
        f"{name} by {float((a - b).abs().max()):.1e}"
        for name, a, b in zip(names, *results, strict=True)
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-3)
    ]
    if wrong:
        raise ZooError(
            f"the Triton form of selective_scan is wrong on {device} (triton {triton.__version__}): "
            f"{', '.join(wrong)}; ZOO_BACKEND=torch avoids it"
        )
