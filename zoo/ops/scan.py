"""Scan of a diagonal linear recurrence that is the same at every step.

    x_t = a x_{t-1} + v_t          (backwards in time: x_t = a x_{t+1} + v_t)

Two forms.
    reference   one token after the other under autograd: the definition
    torch       chunks of 16 steps, all chunks at once; the chunks' ends are the same recurrence with a^16 and are
                scanned by the same function; one pass then adds what every chunk inherits. 16 log_16 L calls instead
                of L, about two multiplications per number, in place: nothing but x itself is kept.
Its backward is the same scan in the other direction, over the gradient, so it keeps x and nothing else:
    g_t = dx_t + conj(a) g_{t+1}       dv = g       da = sum_{b,t} g_t conj(x_{t-1})       dx_0 = conj(a) g_1

B batch, L seq_len, P states, each with its own a; T = 16 steps of a chunk, Q = L // T chunks.
Powers of a are products in double precision (no logarithm), so that float32 scans lose nothing to them.

Source: S5 (Smith et al. 2023, arXiv 2208.04933), which runs it as a parallel scan (Blelloch 1990).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops.backend import choose
from zoo.ops.diagonal import geometric

FORMS = {"diagonal_scan": lambda device: ("torch", "reference")}
"""Forms of the op on any device, best first; for `choose` and `zoo doctor`."""
STEPS = 16
"""T; measured flat between 8 and 64 on a CPU."""


def diagonal_scan(a: Tensor, v: Tensor, x0: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """All states of the recurrence at the head of this file.

    a        (P,) real or complex, best in double precision
    v        (B, L, P) inputs, L >= 1; at least float32 or complex64
    x0       (B, P) state before the first token (after the last one when `reverse`); None = zeros
    reverse  run from the last token to the first
    returns  x (B, L, P) in v's precision, complex when any of the three is

    Gradients flow through everything. ValueError when shapes do not fit together.
    """
    _check(a, v, x0)
    with torch.autocast(v.device.type, enabled=False):
        dtype = v.dtype
        if a.is_complex() or (x0 is not None and x0.is_complex()):
            dtype = dtype.to_complex()
        v = v.to(dtype)
        x0 = v.new_zeros(v.shape[0], v.shape[2]) if x0 is None else x0.to(dtype)
        if choose("diagonal_scan", FORMS["diagonal_scan"]("any")) == "reference":
            return scan_reference(a.to(dtype), v, x0, reverse)
        a = a.to(torch.complex128 if dtype.is_complex else torch.float64)
        return ChunkedScan.apply(a, v, x0, reverse)


def scan_reference(a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
    """The definition."""
    steps = v.unbind(1)
    x, xs = x0, []
    for v_t in reversed(steps) if reverse else steps:
        x = a * x + v_t
        xs.append(x)
    return torch.stack(xs[::-1] if reverse else xs, 1)


class ChunkedScan(torch.autograd.Function):
    """The torch form: a (P,) in double precision, v (B, L, P), x0 (B, P)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
        x = v.clone(memory_format=torch.contiguous_format)
        x[:, -1 if reverse else 0].addcmul_(x0, a.to(v.dtype))
        scan_(x, a, reverse)
        ctx.reverse = reverse
        ctx.save_for_backward(a, x, x0)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        a, x, x0 = ctx.saved_tensors
        a_conj = a.conj().resolve_conj()
        g = dx.clone(memory_format=torch.contiguous_format)
        scan_(g, a_conj, not ctx.reverse)
        first = g[:, -1] if ctx.reverse else g[:, 0]
        da = None
        if ctx.needs_input_grad[0]:
            later, before = (g[:, :-1], x[:, 1:]) if ctx.reverse else (g[:, 1:], x[:, :-1])
            da = ((later * before.conj()).sum((0, 1)) + (first * x0.conj()).sum(0)).to(a.dtype)
        return da, g, a_conj.to(g.dtype) * first, None


def scan_(x: Tensor, a: Tensor, reverse: bool) -> None:
    """In place: x (B, L, P) holds the inputs and then the states, from a zero state. a (P,) in double precision."""
    L = x.shape[1]
    if L <= STEPS:
        _advance(x.unbind(1), a.to(x.dtype), reverse)
        return
    rest = L % STEPS
    # what fills no chunk stands at the end of time: behind, or in front when time runs backwards
    whole, tail = (x[:, rest:], x[:, :rest]) if reverse else (x[:, : L - rest], x[:, L - rest :])
    chunks = whole.unflatten(1, (-1, STEPS))  # (B, Q, T, P), a view
    steps = chunks.unbind(2)
    _advance(steps, a.to(x.dtype), reverse)
    powers = geometric(a, STEPS + 1)[:, 1:].t()  # (T, P): a, a², … a^T
    ends = steps[0 if reverse else -1].contiguous()  # (B, Q, P)
    scan_(ends, powers[-1], reverse)
    inherited = powers.to(x.dtype)
    if reverse:
        chunks[:, :-1].addcmul_(ends[:, 1:, None], inherited.flip(0))
    else:
        chunks[:, 1:].addcmul_(ends[:, :-1, None], inherited)
    if rest:
        end, first = (ends[:, 0], tail[:, -1]) if reverse else (ends[:, -1], tail[:, 0])
        first.addcmul_(end, a.to(x.dtype))
        _advance(tail.unbind(1), a.to(x.dtype), reverse)


def _advance(steps: tuple[Tensor, ...], a: Tensor, reverse: bool) -> None:
    for before, now in pairwise(steps[::-1] if reverse else steps):
        now.addcmul_(before, a)


def _check(a: Tensor, v: Tensor, x0: Tensor | None) -> None:
    if a.ndim != 1 or v.ndim != 3 or v.shape[2] != a.shape[0]:
        raise ValueError(f"expected a (P,) and v (B, L, P), got {tuple(a.shape)} and {tuple(v.shape)}")
    if v.shape[1] == 0:
        raise ValueError("a scan over 0 tokens")
    if x0 is not None and x0.shape != (v.shape[0], v.shape[2]):
        raise ValueError(f"expected x0 ({v.shape[0]}, {v.shape[2]}) beside v {tuple(v.shape)}, got {tuple(x0.shape)}")
    if v.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise ValueError(f"v in {v.dtype}: a recurrence needs at least float32")


__all__ = ["FORMS", "diagonal_scan"]
