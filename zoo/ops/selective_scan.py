"""The selective scan (Gu & Dao 2023, arXiv 2312.00752, algorithm 2) with a carried state.

    delta = softplus(delta + delta_bias)
    h_t[d,n] = exp(delta_t[d] A[d,n]) h_{t-1}[d,n] + delta_t[d] B_t[n] u_t[d]     (eq. 2a; A: zero-order hold, B: Euler)
    y_t[d] = (sum_n C_t[n] h_t[d,n] + D[d] u_t[d]) * SiLU(z_t[d])                 (eq. 2b, skip, gate)

Three forms of the recurrence in the middle; what stands before and after it is shared, and cheap: it has no state axis.
    reference   one token after the other under autograd: the definition
    torch       chunks; keeps only the states between chunks and recomputes the rest in backward (below)
    triton      the same plan as one GPU kernel per direction (selective_scan_triton.py)

B batch, L seq_len, D channels, N state size; T steps of a chunk, R rows (of the batch) that are scanned together.
Slabs are (T, R, N, D): time-major, so that one step is one contiguous piece and is updated in place, and channels
innermost, so that every broadcast runs along full vectors. Everything is real, in float32 or float64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.nn.norms import at_least_float32
from zoo.ops.backend import choose

STEP_ELEMENTS = 8192
"""About as many state elements are advanced by one call; fewer, and the call itself costs more than its work."""
SLAB_ELEMENTS = 262144
"""Size of a slab; measured flat around it. Larger slabs leave the caches, smaller ones mean more calls."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    h0: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The selective scan; see the head of this file for the equations.

    u, delta, z    (B, L, D) input, step size, gate (no gate when None)
    A              (D, N), negative
    B, C           (B, L, N)
    D, delta_bias  (D,), left out when None
    h0             (B, D, N) state before the first token; None = zeros
    mask           (B, L) bool; where it is False the state stands still (delta_t = 0)

    Returns y (B, L, D) in u's dtype and the state after the last token (B, D, N) in at least float32. Gradients flow
    through everything, h0 and the returned state included. ValueError when shapes do not fit together.
    """
    _check(u, delta, A, B, C, D, z, delta_bias, h0, mask)
    with torch.autocast(u.device.type, enabled=False):
        u_wide, A, B, C, delta = prepare(u, delta, A, B, C, delta_bias, delta_softplus)
        if mask is not None:
            delta = delta.masked_fill(~mask.unsqueeze(-1), 0.0)
        h0 = u_wide.new_zeros(u.shape[0], *A.shape) if h0 is None else h0.to(u_wide.dtype)
        y, h = scan(u_wide, delta, A, B, C, h0)
        return finish(y, u_wide, D, z).to(u.dtype), h


def selective_scan_step(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    h: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One token of `selective_scan`: u, delta, z (B, D), B, C (B, N), h (B, D, N) -> y (B, D), h."""
    with torch.autocast(u.device.type, enabled=False):
        u_wide, A, B, C, delta = prepare(u, delta, A, B, C, delta_bias, delta_softplus)
        y, h = advance(h.to(u_wide.dtype), u_wide, delta, A, B, C)
        return finish(y, u_wide, D, z).to(u.dtype), h


def prepare(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, delta_bias: Tensor | None, delta_softplus: bool
) -> tuple[Tensor, ...]:
    """(u, A, B, C, delta) in one dtype, at least float32; delta with its bias and through softplus."""
    dtype = torch.promote_types(at_least_float32(u).dtype, at_least_float32(A).dtype)
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)
    return u, A, B, C, F.softplus(delta) if delta_softplus else delta


def finish(y: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """(y + D u) SiLU(z): the skip comes before the gate."""
    if D is not None:
        y = y + D.to(y.dtype) * u
    return y if z is None else y * F.silu(z.to(y.dtype))


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t and y_t = C_t h_t in the form that suits the device."""
    form = choose("selective_scan", forms_on(u.device.type))
    if form == "triton":
        from zoo.ops.selective_scan_triton import scan_triton

        return scan_triton(u, delta, A, B, C, h0)
    if form == "torch":
        y, h = ChunkedScan.apply(u, delta, A, B, C, h0)
        return y, h
    return scan_reference(u, delta, A, B, C, h0)


def forms_on(device: str) -> tuple[str, ...]:
    """Forms that can run on a type of device, best first. On a CPU Triton only interprets: right, but very slow."""
    if find_spec("triton") is None:
        return ("torch", "reference")
    if device == "cuda":
        return ("triton", "torch", "reference")
    interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return ("torch", "reference", "triton") if interpreted else ("torch", "reference")


FORMS = {"selective_scan": forms_on}


def advance(h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """One step: u, delta (B, D), B, C (B, N), h (B, D, N) -> y (B, D), h."""
    h = torch.exp(delta.unsqueeze(-1) * A) * h + (delta * u).unsqueeze(-1) * B.unsqueeze(1)  # (B, D, N)
    return (h * C.unsqueeze(1)).sum(-1), h


def scan_reference(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """The definition."""
    h, ys = h0, []
    for u_t, delta_t, B_t, C_t in zip(u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        y_t, h = advance(h, u_t, delta_t, A, B_t, C_t)
        ys.append(y_t)
    return torch.stack(ys, 1), h


# -- the torch form ----------------------------------------------------------------------------------------------------


class Slabs:
    """Work space for chunks of up to T steps and R rows, allocated once and used for every chunk."""

    def __init__(self, like: Tensor, T: int, R: int, N: int, D: int, names: str) -> None:
        # `h` has the state before the chunk in front
        self._whole = {name: like.new_empty((T + (name == "h"), R, N, D)) for name in names}
        self._steps = {name: slab.unbind(0) for name, slab in self._whole.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._whole[name]

    def steps(self, name: str) -> tuple[Tensor, ...]:
        return self._steps[name]


def _plan(batch: int, seq_len: int, D: int, N: int) -> tuple[int, int]:
    """(R, T): rows that are scanned together and steps of a chunk."""
    rows = max(1, min(batch, round(STEP_ELEMENTS / (D * N))))
    steps = max(8, min(64, SLAB_ELEMENTS // (rows * D * N)))
    return rows, min(steps, seq_len)


def _pieces(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _time_major(x: Tensor, rows: slice, time: slice) -> Tensor:
    """(B, L, X) -> the chunk as (T, R, X), contiguous."""
    return x[rows, time].transpose(0, 1).contiguous()


def _fill(slabs: Slabs, h_in: Tensor, delta: Tensor, x: Tensor, A_t: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The states of one chunk. delta, x = delta u (T, R, D), A_t (N, D), B (T, R, N), h_in (R, N, D).

    Returns a = exp(delta A) (T, R, N, D) and h with h_in in front (T + 1, R, N, D).
    """
    T = delta.shape[0]
    a, h = slabs["a"][:T], slabs["h"][: T + 1]
    h[0].copy_(h_in)  # first: h_in may be the end of this very slab
    torch.mul(delta.unsqueeze(2), A_t, out=a).exp_()
    torch.mul(B.unsqueeze(3), x.unsqueeze(2), out=h[1:])
    a_steps, h_steps = slabs.steps("a"), slabs.steps("h")
    for t in range(T):
        h_steps[t + 1].addcmul_(a_steps[t], h_steps[t])
    return a, h


class ChunkedScan(torch.autograd.Function):
    """The recurrence in chunks. Memory: the states between chunks, L/T · B · N · D, and a few slabs.

    Backward, with g_t the gradient that reaches h_t and p_t[d,n] that of the exponent delta_t[d] A[d,n]:
        g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}          p_t = g_t exp(delta_t A) h_{t-1}
        dC_t = sum_d dy_t h_t       dB_t = sum_d g_t delta_t u_t       d(delta_t u_t) = sum_n g_t B_t
        ddelta_t = sum_n p_t A + u_t d(delta_t u_t)        dA = sum_{b,t} p_t delta_t       dh_0 = exp(delta_1 A) g_1
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
    ) -> tuple[Tensor, Tensor]:
        (batch, seq_len, D), N = u.shape, A.shape[1]
        R, T = _plan(batch, seq_len, D, N)
        A_t = A.t().contiguous()  # (N, D)
        y = torch.empty_like(u)
        h_last = u.new_empty(batch, N, D)
        keep = any(ctx.needs_input_grad)
        between = u.new_empty(len(range(0, seq_len, T)), batch, N, D) if keep else None
        slabs = Slabs(u, T, R, N, D, "ah")
        for rows in _pieces(batch, R):
            h_in = h0[rows].transpose(1, 2)  # (R, N, D)
            if rows.stop - rows.start < R:
                slabs = Slabs(u, T, rows.stop - rows.start, N, D, "ah")
            for k, time in enumerate(_pieces(seq_len, T)):
                if between is not None:
                    between[k, rows] = h_in
                delta_c, B_c, C_c = (_time_major(x, rows, time) for x in (delta, B, C))
                x = delta_c * u[rows, time].transpose(0, 1)
                _, h = _fill(slabs, h_in, delta_c, x, A_t, B_c)
                y_c = torch.bmm(C_c.flatten(0, 1).unsqueeze(1), h[1:].flatten(0, 1))  # (T·R, 1, D)
                y[rows, time] = y_c.view(x.shape).transpose(0, 1)
                h_in = h[-1]
            h_last[rows] = h_in
        ctx.plan = R, T
        ctx.save_for_backward(u, delta, A, B, C, between)
        return y, h_last.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, between = ctx.saved_tensors
        with torch.autocast(u.device.type, enabled=False):
            return _backward(ctx.plan, u, delta, A, B, C, between, dy, dh_last)


def _backward(
    plan: tuple[int, int],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    between: Tensor,
    dy: Tensor,
    dh_last: Tensor,
) -> tuple[Tensor, ...]:
    (batch, seq_len, D), N = u.shape, A.shape[1]
    R, T = plan
    A_t = A.t().contiguous()
    du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
    dA_t = torch.zeros_like(A_t)
    dh0 = u.new_empty(batch, N, D)
    slabs = Slabs(u, T, R, N, D, "ahgp")
    for rows in _pieces(batch, R):
        if rows.stop - rows.start < R:
            slabs = Slabs(u, T, rows.stop - rows.start, N, D, "ahgp")
        a_steps, g_steps = slabs.steps("a"), slabs.steps("g")
        carried = dh_last[rows].transpose(1, 2)  # what reaches the state after the chunk from later on
        for k, time in reversed(list(enumerate(_pieces(seq_len, T)))):
            u_c, delta_c, B_c, C_c, dy_c = (_time_major(x, rows, time) for x in (u, delta, B, C, dy))
            x = delta_c * u_c
            a, h = _fill(slabs, between[k, rows], delta_c, x, A_t, B_c)
            steps = x.shape[0]
            g, p = slabs["g"][:steps], slabs["p"][:steps]

            torch.mul(C_c.unsqueeze(3), dy_c.unsqueeze(2), out=g)
            g_steps[steps - 1].add_(carried)
            for t in range(steps - 2, -1, -1):
                g_steps[t].addcmul_(a_steps[t + 1], g_steps[t + 1])

            dC[rows, time] = torch.mul(h[1:], dy_c.unsqueeze(2), out=p).sum(3).transpose(0, 1)
            dB[rows, time] = torch.mul(g, x.unsqueeze(2), out=p).sum(3).transpose(0, 1)
            dx = torch.bmm(B_c.flatten(0, 1).unsqueeze(1), g.flatten(0, 1)).view(x.shape)
            du[rows, time] = (dx * delta_c).transpose(0, 1)

            g.mul_(a)
            carried = g[0].clone()
            torch.mul(g, h[:-1], out=p)
            dx.mul_(u_c).add_(torch.mul(p, A_t, out=g).sum(2))
            ddelta[rows, time] = dx.transpose(0, 1)
            dA_t += p.mul_(delta_c.unsqueeze(2)).sum((0, 1))
        dh0[rows] = carried
    return du, ddelta, dA_t.t().contiguous(), dB, dC, dh0.transpose(1, 2).contiguous()


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    h0: Tensor | None,
    mask: Tensor | None,
) -> None:
    if u.ndim != 3 or u.shape[1] < 1:
        raise ValueError(f"selective_scan: u has shape {tuple(u.shape)}, expected (batch, seq_len >= 1, channels)")
    if A.ndim != 2:
        raise ValueError(f"selective_scan: A has shape {tuple(A.shape)}, expected (channels, d_state)")
    (batch, seq_len, channels), d_state = u.shape, A.shape[1]
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "delta": (delta, (batch, seq_len, channels)),
        "A": (A, (channels, d_state)),
        "B": (B, (batch, seq_len, d_state)),
        "C": (C, (batch, seq_len, d_state)),
        "D": (D, (channels,)),
        "z": (z, (batch, seq_len, channels)),
        "delta_bias": (delta_bias, (channels,)),
        "h0": (h0, (batch, channels, d_state)),
        "mask": (mask, (batch, seq_len)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"selective_scan: {name} has shape {tuple(tensor.shape)}, expected {shape}")
