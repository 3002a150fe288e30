"""Linear attention whose past fades by a constant factor per head: the sums of RetNet's retention, in three forms.

    o_i = sum_{j<=i} gamma^(i-j) (q_i . k_j) v_j  +  gamma^(i+1) q_i S            causal, S carried from before
    o_i = sum_j gamma^|i-j| (q_i . k_j) v_j                                       two-sided, the current token once

B batch, H heads, L seq_len, k and v key and value dimensions per head, c chunk, N = ceil(L / c) chunks. The carried
sum S = sum_j gamma^(n-1-j) k_j v_j^T (B, H, k, v) is that after n tokens. Rotations, denominators and norms belong to
the caller: a pad is a token whose k and v are zero.

    parallel   the definition with its (L, L) matrix; O(L²)
    chunkwise  (c, c) matrices inside chunks, S between them; O(L (c + k)) time, O(L) memory, backward recomputes
    recurrent  S_n = gamma S_{n-1} + k_n v_n^T, o_n = q_n S_n, token by token

Source: Sun et al. 2023, Retentive Network (arXiv 2307.08621), equations 5-7; the symmetric decay: Afzal et al. 2025,
LION (arXiv 2502.16249).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.ops.backend import choose

RETENTION_FORMS = ("chunkwise", "parallel", "recurrent")
FORMS = {"retention": lambda device: ("torch", "reference")}
"""Forms of the op on any device, best first: torch is chunkwise, reference parallel. For `choose`, `zoo doctor`."""


def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_gamma: Tensor,
    state: Tensor | None = None,
    *,
    form: str = "chunkwise",
    chunk: int = 64,
    two_sided: bool = False,
) -> Tensor:
    """The sums at the head of this file.

    q, k       (B, H, L, k), of one dtype, float32 or float64
    v          (B, H, L, v)
    log_gamma  (H,), at most 0; carries no gradient
    state      (B, H, k, v), or None = nothing carried
    form       one of RETENTION_FORMS; a forced backend decides where it is chunkwise
    returns    (B, H, L, v). Gradients flow to q, k, v and state.

    ValueError when shapes do not fit together, or a two-sided call is given a state or asked to be recurrent.
    """
    _check(q, k, v, log_gamma, state, form, two_sided)
    forms = FORMS["retention"](q.device.type) if form == "chunkwise" else ("reference",)
    with torch.autocast(q.device.type, enabled=False):
        log_gamma = log_gamma.detach().to(q.dtype)
        if choose("retention", forms) == "torch":
            return _Chunkwise.apply(q, k, v, state, log_gamma, min(chunk, q.shape[2]), two_sided)
        if form == "recurrent":
            return _recurrent(q, k, v, log_gamma, state)
        return _parallel(q, k, v, log_gamma, state, two_sided)


def advance(state: Tensor, k_t: Tensor, v_t: Tensor, log_gamma: Tensor) -> Tensor:
    """One token of the recurrence: state (B, H, k, v), k_t (B, H, k), v_t (B, H, v) -> state."""
    gamma = log_gamma.to(state.dtype).exp()[:, None, None]
    return gamma * state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)


def final_state(k: Tensor, v: Tensor, log_gamma: Tensor, lengths: Tensor | None, state: Tensor | None) -> Tensor:
    """S after each row's last token: k (B, H, L, k), v (B, H, L, v), lengths (B,) tokens in each row -> (B, H, k, v).

    lengths None = all L. Tokens from lengths[b] on are left out; with lengths[b] = 0 the state stays as it was.
    """
    L = k.shape[2]
    log_gamma = log_gamma.to(k.dtype)
    n = torch.full((1,), L, device=k.device) if lengths is None else lengths
    lag = n[:, None] - 1 - torch.arange(L, device=k.device)  # (B or 1, L)
    weight = torch.exp(log_gamma[None, :, None] * lag.clamp(min=0)[:, None]) * (lag >= 0)[:, None]  # (B or 1, H, L)
    after = (k * weight.unsqueeze(-1)).transpose(-1, -2) @ v
    if state is None:
        return after
    return after + torch.exp(log_gamma * n[:, None])[:, :, None, None] * state


def decay_matrix(log_gamma: Tensor, L: int, *, two_sided: bool = False) -> Tensor:
    """gamma^(i-j) for j <= i and 0 elsewhere, or gamma^|i-j|: log_gamma (H,) -> (H, L, L)."""
    t = torch.arange(L, device=log_gamma.device)
    lag = t[:, None] - t
    # the exponent is never positive, so nothing overflows where the matrix is 0 anyway
    decay = torch.exp(log_gamma[:, None, None] * lag.abs())
    return decay if two_sided else decay * (lag >= 0)


def _parallel(q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, state: Tensor | None, two_sided: bool) -> Tensor:
    L = q.shape[2]
    o = (q @ k.transpose(-1, -2) * decay_matrix(log_gamma, L, two_sided=two_sided)) @ v
    if state is None:
        return o
    since = torch.exp(log_gamma[:, None] * torch.arange(1, L + 1, device=q.device))  # (H, L)
    return o + (q * since.unsqueeze(-1)) @ state


def _recurrent(q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, state: Tensor | None) -> Tensor:
    (B, H, _, key), value = q.shape, v.shape[-1]
    S = q.new_zeros(B, H, key, value) if state is None else state
    outs = []
    for q_t, k_t, v_t in zip(q.unbind(2), k.unbind(2), v.unbind(2), strict=True):
        S = advance(S, k_t, v_t, log_gamma)
        outs.append((q_t.unsqueeze(-2) @ S).squeeze(-2))
    return torch.stack(outs, 2)


# -- the chunkwise form ------------------------------------------------------------------------------------------------


class _Decays:
    """What one chunk needs of gamma; all shaped to multiply (B, H, N, c, ·) or (B, H, k, v)."""

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


def _scan(added: Tensor, decay: Tensor, first: Tensor | None, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """S[0] = first or 0, S[n+1] = decay S[n] + added[n]: added (B, H, N, k, v), decay (H, 1, 1), first (B, H, k, v).

    Returns S[0..N-1] in the shape of `added`, and S[N]. `backwards` runs over n from the end.
    """
    states = torch.empty_like(added)
    S = torch.zeros_like(added[:, :, 0]) if first is None else first
    order = range(added.shape[2])
    for n in reversed(order) if backwards else order:
        states[:, :, n] = S
        S = torch.addcmul(added[:, :, n], decay, S)
    return states, S


class _Chunkwise(torch.autograd.Function):
    """Inside a chunk the (c, c) products; what came before it (and, two-sided, comes after it) as one (k, v) state."""

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
        with torch.autocast(q.device.type, enabled=False):
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
            # the adjoint of a scan is the scan the other way round
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
        wanted = dstate if ctx.needs_input_grad[3] else None
        return _join(dq, L), _join(dk, L), _join(dv, L), wanted, None, None, None


def _split(x: Tensor, c: int) -> Tensor:
    """(B, H, L, d) -> (B, H, N, c, d), with zeros after the end."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % c)).unflatten(2, (-1, c)).contiguous()


def _join(x: Tensor, L: int) -> Tensor:
    return x.flatten(2, 3)[:, :, :L]


def _check(
    q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, state: Tensor | None, form: str, two_sided: bool
) -> None:
    if form not in RETENTION_FORMS:
        raise ValueError(f"retention form {form!r}: expected one of {', '.join(RETENTION_FORMS)}")
    if q.ndim != 4 or q.shape[2] < 1:
        raise ValueError(f"retention: q has shape {tuple(q.shape)}, expected (batch, heads, seq_len >= 1, key)")
    B, H, L, key = q.shape
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "k": (k, (B, H, L, key)),
        "v": (v, (B, H, L, v.shape[-1])),
        "log_gamma": (log_gamma, (H,)),
        "state": (state, (B, H, key, v.shape[-1])),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"retention: {name} has shape {tuple(tensor.shape)}, expected {shape}")
    if two_sided and (state is not None or form == "recurrent"):
        raise ValueError("a two-sided retention carries no state and has no recurrent form")


__all__ = ["RETENTION_FORMS", "advance", "decay_matrix", "final_state", "retention"]
