"""Retention in chunks of c tokens: (c, c) products inside a chunk, everything outside it as one (k, v) state.

N = ceil(L / c) chunks. Backward computes the products again instead of keeping them, so that memory is O(L).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.ops.retention.reference import decay_matrix
from zoo.ops.tracing import without_autocast


class _Decays:
    """Powers of gamma that one chunk needs, shaped to multiply (B, H, N, c, ·) or (B, H, k, v)."""

    def __init__(self, log_gamma: Tensor, c: int, two_sided: bool) -> None:
        t = torch.arange(c, device=log_gamma.device)

        def power(exponent: Tensor) -> Tensor:
            return torch.exp(log_gamma[:, None] * exponent)[:, None, :, None]  # (H, 1, c, 1)

        self.inside = decay_matrix(log_gamma, c, two_sided=two_sided)[:, None]  # (H, 1, c, c)
        self.since_start = power(t + 1)  # from the state before the chunk to token t
        self.to_end = power(c - 1 - t)  # from token t to the state after the chunk
        self.until_next = power(c - t)  # from token t to the first token of the next chunk
        self.from_first = power(t)
        self.chunk = torch.exp(log_gamma * c)[:, None, None]  # (H, 1, 1)


class ChunkwiseRetention(torch.autograd.Function):
    """The outputs (B, H, L, v) of retention with chunks of c tokens (eq. 7)."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, log_gamma: Tensor, c: int, two_sided: bool
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, state, log_gamma)
        ctx.c, ctx.two_sided = c, two_sided
        d = _Decays(log_gamma, c, two_sided)
        L = q.shape[2]
        q, k, v = (_split(x, c) for x in (q, k, v))
        o = (q @ k.mT).mul_(d.inside) @ v
        before, _ = _scan((k * d.to_end).mT @ v, d.chunk, state)
        o += (q * d.since_start) @ before
        if two_sided:
            after, _ = _scan((k * d.from_first).mT @ v, d.chunk, None, backwards=True)
            o += (q * d.until_next) @ after
        return _join(o, L)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, state, log_gamma = ctx.saved_tensors
        with without_autocast(q):
            d = _Decays(log_gamma, ctx.c, ctx.two_sided)
            L = q.shape[2]
            q, k, v, do = (_split(x, ctx.c) for x in (q, k, v, do))
            scores = (q @ k.mT).mul_(d.inside)
            dv = scores.mT @ do
            del scores
            dscores = (do @ v.mT).mul_(d.inside)
            dq, dk = dscores @ k, dscores.mT @ q
            del dscores

            k_end = k * d.to_end
            before, _ = _scan(k_end.mT @ v, d.chunk, state)
            dq += (do @ before.mT).mul_(d.since_start)
            # the adjoint of a scan is the scan in the other direction
            after, dstate = _scan((q * d.since_start).mT @ do, d.chunk, None, backwards=True)
            dk += (v @ after.mT).mul_(d.to_end)
            dv += k_end @ after
            if ctx.two_sided:
                k_first = k * d.from_first
                after, _ = _scan(k_first.mT @ v, d.chunk, None, backwards=True)
                dq += (do @ after.mT).mul_(d.until_next)
                before, _ = _scan((q * d.until_next).mT @ do, d.chunk, None)
                dk += (v @ before.mT).mul_(d.from_first)
                dv += k_first @ before
        return _join(dq, L), _join(dk, L), _join(dv, L), dstate if ctx.needs_input_grad[3] else None, None, None, None


def _scan(added: Tensor, decay: Tensor, first: Tensor | None, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """Scan S[0] = first or 0, S[n+1] = decay S[n] + added[n] over the chunks; `backwards` runs from the last one.

    added (B, H, N, k, v), decay (H, 1, 1), first (B, H, k, v). Returns S[0 … N-1] in the shape of `added`, and S[N].
    """
    states = torch.empty_like(added)
    S = torch.zeros_like(added[:, :, 0]) if first is None else first
    order = range(added.shape[2])
    for n in reversed(order) if backwards else order:
        states[:, :, n] = S
        S = torch.addcmul(added[:, :, n], decay, S)
    return states, S


def _split(x: Tensor, c: int) -> Tensor:
    """Split into chunks, with zeros after the end: (B, H, L, d) -> (B, H, N, c, d)."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % c)).unflatten(2, (-1, c)).contiguous()


def _join(x: Tensor, L: int) -> Tensor:
    """Join the chunks and drop the padding: (B, H, N, c, d) -> (B, H, L, d)."""
    return x.flatten(2, 3)[:, :, :L]
