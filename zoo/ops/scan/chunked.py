"""The diagonal scan in chunks of T = 16 steps, all chunks at once.

The ends of the chunks obey the same recurrence with a^16 and are scanned by the same function; one pass then adds to
every chunk what it inherits. 16 log_16 L calls instead of L, about two multiplications per number, in place.
Backward is the same scan in the other direction, over the gradient, so that only x is kept:

    g_t = dx_t + conj(a) g_{t+1}       dv = g       da = sum_{b,t} g_t conj(x_{t-1})       dx_0 = conj(a) g_1

B batch, L seq_len, P states, Q = L // T chunks. Powers of a are products in double precision (no logarithm), so that
float32 scans lose nothing to them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops.complex import geometric

STEPS = 16
"""T; measured flat between 8 and 64 on a CPU."""


class ChunkedScan(torch.autograd.Function):
    """All states of the recurrence: a (P,) in double precision, v (B, L, P), x0 (B, P) -> x (B, L, P)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
        x = v.clone(memory_format=torch.contiguous_format)
        x[:, -1 if reverse else 0].addcmul_(x0, a.to(v.dtype))
        _scan_(x, a, reverse)
        ctx.reverse = reverse
        ctx.save_for_backward(a, x, x0)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        a, x, x0 = ctx.saved_tensors
        a_conj = a.conj().resolve_conj()
        g = dx.clone(memory_format=torch.contiguous_format)
        _scan_(g, a_conj, not ctx.reverse)
        first = g[:, -1] if ctx.reverse else g[:, 0]
        da = None
        if ctx.needs_input_grad[0]:
            later, before = (g[:, :-1], x[:, 1:]) if ctx.reverse else (g[:, 1:], x[:, :-1])
            da = ((later * before.conj()).sum((0, 1)) + (first * x0.conj()).sum(0)).to(a.dtype)
        return da, g, a_conj.to(g.dtype) * first, None


def _scan_(x: Tensor, a: Tensor, reverse: bool) -> None:
    """Replace the inputs x (B, L, P) by the states, from a zero state, in place; a (P,) in double precision."""
    L = x.shape[1]
    if L <= STEPS:
        _advance_(x.unbind(1), a.to(x.dtype), reverse)
        return
    rest = L % STEPS
    # what fills no chunk stands at the end of time: behind, or in front when time runs backwards
    whole, tail = (x[:, rest:], x[:, :rest]) if reverse else (x[:, : L - rest], x[:, L - rest :])
    chunks = whole.unflatten(1, (-1, STEPS))  # (B, Q, T, P), a view
    steps = chunks.unbind(2)
    _advance_(steps, a.to(x.dtype), reverse)
    powers = geometric(a, STEPS + 1)[:, 1:].t()  # (T, P): a, a², … a^T
    ends = steps[0 if reverse else -1].contiguous()  # (B, Q, P)
    _scan_(ends, powers[-1], reverse)
    inherited = powers.to(x.dtype)
    if reverse:
        chunks[:, :-1].addcmul_(ends[:, 1:, None], inherited.flip(0))
    else:
        chunks[:, 1:].addcmul_(ends[:, :-1, None], inherited)
    if rest:
        end, first = (ends[:, 0], tail[:, -1]) if reverse else (ends[:, -1], tail[:, 0])
        first.addcmul_(end, a.to(x.dtype))
        _advance_(tail.unbind(1), a.to(x.dtype), reverse)


def _advance_(steps: tuple[Tensor, ...], a: Tensor, reverse: bool) -> None:
    """Add a times each step to the next, in place."""
    for before, now in pairwise(steps[::-1] if reverse else steps):
        now.addcmul_(before, a)
