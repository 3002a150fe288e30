"""The selective scan in chunks: only the states between chunks are kept, the rest is computed again in backward.

B batch, L seq_len, D channels, N state size; T steps of a chunk, R rows of the batch that are scanned together. Work
space is (T, R, N, D): time-major, so that one step is one contiguous piece and is updated in place, and channels
innermost, so that every broadcast runs along full vectors.

Backward, with g_t the gradient that reaches h_t and p_t[d,n] that of the exponent delta_t[d] A[d,n]:
    g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}          p_t = g_t exp(delta_t A) h_{t-1}
    dC_t = sum_d dy_t h_t       dB_t = sum_d g_t delta_t u_t       d(delta_t u_t) = sum_n g_t B_t
    ddelta_t = sum_n p_t A + u_t d(delta_t u_t)        dA = sum_{b,t} p_t delta_t       dh_0 = exp(delta_1 A) g_1
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops.chunks import slices
from zoo.ops.tracing import without_autocast

STEP_ELEMENTS = 8192
"""About as many state elements are advanced by one call; fewer, and the call itself costs more than its work."""
CHUNK_ELEMENTS = 262144
"""Elements of a chunk's work space; measured flat around it. More leave the caches, fewer mean more calls."""


def chunk_sizes(batch: int, seq_len: int, D: int, N: int) -> tuple[int, int]:
    """Choose (R, T), the rows that are scanned together and the steps of a chunk."""
    rows = max(1, min(batch, round(STEP_ELEMENTS / (D * N))))
    steps = max(8, min(64, CHUNK_ELEMENTS // (rows * D * N)))
    return rows, min(steps, seq_len)


class ChunkedScan(torch.autograd.Function):
    """Run over the tokens: u, delta (B, L, D), B, C (B, L, N), h0 (B, D, N) -> y (B, L, D), last h (B, D, N).

    Memory: the states between chunks, L/T · B · N · D, and the work space of one chunk.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
    ) -> tuple[Tensor, Tensor]:
        (batch, seq_len, D), N = u.shape, A.shape[1]
        ctx.sizes = R, T = chunk_sizes(batch, seq_len, D, N)
        A_t = A.t().contiguous()  # (N, D)
        y = torch.empty_like(u)
        h_last = u.new_empty(batch, N, D)
        between = u.new_empty(-(-seq_len // T), batch, N, D) if any(ctx.needs_input_grad) else None
        for rows in slices(batch, R):
            h_in = h0[rows].transpose(1, 2)  # (R, N, D)
            a_space, h_space = (_WorkSpace(u.new_empty(steps, *h_in.shape)) for steps in (T, T + 1))
            for k, time in enumerate(slices(seq_len, T)):
                if between is not None:
                    between[k, rows] = h_in
                delta_c, B_c, C_c = (_time_major(x, rows, time) for x in (delta, B, C))
                x = delta_c * u[rows, time].transpose(0, 1)
                _, h = _states(a_space, h_space, h_in, delta_c, x, A_t, B_c)
                y[rows, time] = (C_c.unsqueeze(2) @ h[1:]).squeeze(2).transpose(0, 1)
                h_in = h[-1]
            h_last[rows] = h_in
        ctx.save_for_backward(u, delta, A, B, C, between)
        return y, h_last.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, between = ctx.saved_tensors
        (batch, seq_len, _), (R, T) = u.shape, ctx.sizes
        A_t = A.t().contiguous()
        du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
        dA_t, dh0 = torch.zeros_like(A_t), torch.empty_like(between[0])
        with without_autocast(u):
            for rows in slices(batch, R):
                carried = dh_last[rows].transpose(1, 2)  # gradient that reaches the state after the chunk
                a_space, h_space, g_space, p_space = (
                    _WorkSpace(u.new_empty(steps, *carried.shape)) for steps in (T, T + 1, T, T)
                )
                for k, time in reversed(list(enumerate(slices(seq_len, T)))):
                    u_c, delta_c, B_c, C_c, dy_c = (_time_major(x, rows, time) for x in (u, delta, B, C, dy))
                    x = delta_c * u_c
                    a, h = _states(a_space, h_space, between[k, rows], delta_c, x, A_t, B_c)
                    g, p = g_space.whole[: len(x)], p_space.whole[: len(x)]

                    torch.mul(C_c.unsqueeze(3), dy_c.unsqueeze(2), out=g)
                    g[-1].add_(carried)
                    for t in range(len(x) - 2, -1, -1):
                        g_space.steps[t].addcmul_(a_space.steps[t + 1], g_space.steps[t + 1])

                    dC[rows, time] = (h[1:] @ dy_c.unsqueeze(3)).squeeze(3).transpose(0, 1)
                    dB[rows, time] = (g @ x.unsqueeze(3)).squeeze(3).transpose(0, 1)
                    dx = (B_c.unsqueeze(2) @ g).squeeze(2)
                    du[rows, time] = (dx * delta_c).transpose(0, 1)

                    g.mul_(a)
                    carried = g[0].clone()
                    torch.mul(g, h[:-1], out=p)
                    dx.mul_(u_c).add_(torch.mul(p, A_t, out=g).sum(2))
                    ddelta[rows, time] = dx.transpose(0, 1)
                    dA_t += p.mul_(delta_c.unsqueeze(2)).sum((0, 1))
                dh0[rows] = carried
        return du, ddelta, dA_t.t().contiguous(), dB, dC, dh0.transpose(1, 2).contiguous()


def _time_major(x: Tensor, rows: slice, time: slice) -> Tensor:
    """One chunk of (B, L, X) as (T, R, X), contiguous."""
    return x[rows, time].transpose(0, 1).contiguous()


class _WorkSpace:
    """A buffer that all chunks use, whole and as views of its steps, which are costly to make for every chunk."""

    def __init__(self, whole: Tensor) -> None:
        self.whole, self.steps = whole, whole.unbind(0)


def _states(
    a_space: _WorkSpace, h_space: _WorkSpace, h_in: Tensor, delta: Tensor, x: Tensor, A_t: Tensor, B: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute a = exp(delta A) (T, R, N, D) and the states of a chunk, h_in before them, h (T + 1, R, N, D).

    h_in (R, N, D), delta and x = delta u (T, R, D), A_t (N, D), B (T, R, N)
    """
    T = len(x)
    a, h = a_space.whole[:T], h_space.whole[: T + 1]
    h[0].copy_(h_in)  # first: h_in may be the end of this very h
    torch.mul(delta.unsqueeze(2), A_t, out=a).exp_()
    torch.mul(B.unsqueeze(3), x.unsqueeze(2), out=h[1:])
    for t in range(T):
        h_space.steps[t + 1].addcmul_(a_space.steps[t], h_space.steps[t])
    return a, h
