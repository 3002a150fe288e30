"""The diagonal scan in chunks of T = 16 steps, all chunks at once.

The ends of the chunks obey the same recurrence, with the product of a chunk's decays, and are scanned by the same
function; one pass then adds to every chunk what it inherits. 16 log_16 L calls instead of L, two or three
multiplications per number, in place. Backward is the same scan in the other direction, over the gradient, so that only
x is kept:

    g_t = dx_t + conj(a_{t+1}) g_{t+1}       dv = g       da_t = g_t conj(x_{t-1})       dx_0 = conj(a_1) g_1

B batch, L seq_len, P states, Q = L // T chunks. Decays are (B, L, P), or (P,) in double precision where all steps have
the same: its powers are then products in double precision, and float32 scans lose nothing to them. Nothing is divided
and no logarithm is taken, so that a decay of 0 is as good as any.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

STEPS = 16
"""T; measured flat between 8 and 64 on a CPU."""


class ChunkedScan(torch.autograd.Function):
    """All states of the recurrence: a (P,) in double precision or (B, L, P), v (B, L, P), x0 (B, P) -> x (B, L, P)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
        x = v.clone(memory_format=torch.contiguous_format)
        first = -1 if reverse else 0
        x[:, first].addcmul_(x0, _at(a, first).to(v.dtype))
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
        # g_t takes the decay of the step after it; what `roll` brings round to the last step meets no state
        _scan_(g, a_conj if a.ndim == 1 else a_conj.roll(1 if ctx.reverse else -1, 1), not ctx.reverse)
        first, later, before = (-1, g[:, :-1], x[:, 1:]) if ctx.reverse else (0, g[:, 1:], x[:, :-1])
        da = None
        if ctx.needs_input_grad[0]:
            of_later, of_first = later * before.conj(), g[:, first] * x0.conj()
            if a.ndim == 1:
                da = (of_later.sum((0, 1)) + of_first.sum(0)).to(a.dtype)
            else:
                parts = [of_first[:, None], of_later]
                da = torch.cat(parts[::-1] if ctx.reverse else parts, 1)
        return da, g, _at(a_conj, first).to(g.dtype) * g[:, first], None


def _at(a: Tensor, t: int) -> Tensor:
    """The decay of step t: a (P,) or (B, L, P) -> (P,) or (B, P)."""
    return a if a.ndim == 1 else a[:, t]


def _scan_(x: Tensor, a: Tensor, reverse: bool) -> None:
    """Replace the inputs x (B, L, P) by the states, from a zero state, in place; a (P,) or (B, L, P)."""
    L = x.shape[1]
    if L <= STEPS:
        _advance_(x, a.expand(L, -1) if a.ndim == 1 else a, reverse)
        return
    rest = L % STEPS

    def split(y: Tensor) -> tuple[Tensor, Tensor]:
        """The chunks (B, Q, T, ·), and what fills none: at the end, or in front when time runs backwards."""
        whole, tail = (y[:, rest:], y[:, :rest]) if reverse else (y[:, : L - rest], y[:, L - rest :])
        return whole.unflatten(1, (-1, STEPS)), tail

    chunks, tail = split(x)  # views
    a_chunks, a_tail = (a.expand(STEPS, -1), a.expand(rest, -1)) if a.ndim == 1 else split(a)
    _advance_(chunks, a_chunks, reverse)
    factors = a_chunks.flip(-2).cumprod(-2).flip(-2) if reverse else a_chunks.cumprod(-2)  # of what a chunk inherits
    first, last = (-1, 0) if reverse else (0, -1)
    ends = chunks[:, :, last].contiguous()  # (B, Q, P)
    _scan_(ends, factors[..., last, :], reverse)
    heirs, before = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
    chunks[:, heirs].addcmul_(ends[:, before, None], factors.to(x.dtype).expand_as(chunks)[:, heirs])
    if rest:
        tail[:, first].addcmul_(ends[:, last], a_tail[..., first, :].to(x.dtype))
        _advance_(tail, a_tail, reverse)


def _advance_(x: Tensor, a: Tensor, reverse: bool) -> None:
    """Add to each step its decay times the step before it, in place: x (…, T, P), a (T, P) or (…, T, P)."""
    steps, decays = x.unbind(-2), a.to(x.dtype).unbind(-2)
    if reverse:
        steps, decays = steps[::-1], decays[::-1]
    if torch.compiler.is_compiling():  # its functionalization makes all views anew after each write to one of them
        states = [steps[0]]
        for now, decay in zip(steps[1:], decays[1:], strict=True):
            states.append(now.addcmul(states[-1], decay))
        x.copy_(torch.stack(states[::-1] if reverse else states, -2))
        return
    for (before, now), decay in zip(pairwise(steps), decays[1:], strict=True):
        now.addcmul_(before, decay)
