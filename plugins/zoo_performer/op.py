"""Attention as a product of feature maps: FAVOR+ and generalised kernels, Choromanski et al. 2021.

B batch, H heads, L seq_len, d head dimension, M features, C chunk.

    y_i = phi_q(i) S_i / (phi_q(i) z_i),   S_i = Σ_j phi_k(j) v_jᵀ (M, d),   z_i = Σ_j phi_k(j) (M)

Bidirectional: j runs over all real keys. Causal: over j ≤ i, in chunks: the scores (C, C) of a chunk's own keys, and
one S for all keys before it. Neither (L, L) nor (L, M, d) is ever in memory.

The exponentials need a shift against overflow. Bidirectional, it is the maximum over all keys. Causal, that would let
a future key change the past (through eps and through underflow). Here the shift at j is the running maximum r_j over
the keys up to j, carried like S, and sums are in units of exp(r_j):

    S_i = exp(r_{i-1} - r_i) S_{i-1} + phi_k(i) v_iᵀ,      r_i = max(r_{i-1}, max (a - s)_i),   factors ≤ 1

One unit for all features is too few in float32 where both queries and keys are sharp: the features that a query reads
may have underflowed in every key. Where no constant is added to features or sums, each feature has a unit of its own,
r_i (M): the largest exponent of the keys so far. Each of its sums z is then at least 1, queries take the units back,

    phi_q(i) = exp(a_i + r_i - max (a_i + r_i)),

and no denominator is below 1. Causal, this is linear attention with the gates exp(r_{i-1} - r_i).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.gated_linear_attention import gated_linear_attention
from zoo.ops.random_features import exponents, positive_features, relu_features

NO_KEY = -1e30
"""The running maximum before the first key: far below every exponent, and finite, so that differences are too."""

CHUNK = 128

State = dict[str, Tensor]
"""S (B, H, M, d), z (B, H, M) and, for kernels with a shift, r (B, H), or (B, H, M) with a unit per feature."""


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """The feature map phi of queries and keys.

    kernel      softmax | hyperbolic | relu
    W           (m, d) random features; None only for relu
    eps         added to every feature
    scaled      queries and keys are multiplied by d^(-1/4) first (relu only; the others always are)
    shifted     a maximum is subtracted from the exponents; False: nothing is (for small inputs)
    grad_shift  gradients also flow through that maximum (jax); False holds it constant (performer-pytorch)
    """

    kernel: str
    W: Tensor | None
    eps: float
    scaled: bool = True
    shifted: bool = True
    grad_shift: bool = True

    def queries(self, q: Tensor) -> Tensor:
        """Return phi_q: (B, H, L, d) -> (B, H, L, M), each query shifted by its own largest exponent."""
        if self.kernel == "relu":
            return self._relu(q)
        a, s = self._exponents(q)
        return positive_features(a, s, self._shift(a, s, (-1,)), self.eps)

    def keys(self, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return phi_k for the bidirectional form, shifted by the largest exponent of all real keys of a head."""
        if self.kernel == "relu":
            return self._relu(k)
        a, s = self._exponents(k)
        if mask is not None:
            a = a.masked_fill(~mask[:, None, :, None], NO_KEY)
        return positive_features(a, s, self._shift(a, s, (-2, -1)), self.eps)

    def causal_keys(
        self, k: Tensor, mask: Tensor | None = None, r: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return phi_k in units of the running maximum, and that maximum (B, H, L); r (B, H) of earlier calls."""
        if self.kernel == "relu":
            return self._relu(k), None
        a, s = self._exponents(k)
        running = (a - s).amax(-1)  # (B, H, L)
        if mask is not None:
            # an infinite feature could not be zeroed in the backward pass, so a pad's exponent is low already
            a, running = a.masked_fill(~mask[:, None, :, None], NO_KEY), running.masked_fill(~mask[:, None], NO_KEY)
        if not self.shifted:
            return positive_features(a, s, None, self.eps), None
        if r is not None:
            running = torch.cat([r[..., None].to(running.dtype), running], dim=-1)
        running = running.cummax(-1).values[..., -k.shape[-2] :]
        running = running if self.grad_shift else running.detach()
        return positive_features(a, s, running[..., None], self.eps), running

    def key_exponents(self, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the exponents a - s of the keys (B, H, L, M); those of pads are far below all others."""
        a, s = self._exponents(k)
        return a - s if mask is None else (a - s).masked_fill(~mask[:, None, :, None], NO_KEY)

    def queries_in(self, q: Tensor, unit: Tensor) -> Tensor:
        """Return phi_q for features in units of exp(unit), (B, H, L or 1, M): the largest of each query is 1."""
        e = self._exponents(q)[0] + unit
        return (e - e.detach().amax(-1, keepdim=True)).exp()

    def _exponents(self, u: Tensor) -> tuple[Tensor, Tensor]:
        assert self.W is not None
        return exponents(u, self.W, hyperbolic=self.kernel == "hyperbolic")

    def _relu(self, u: Tensor) -> Tensor:
        return relu_features(u, self.W, scaled=self.scaled, eps=self.eps)

    def _shift(self, a: Tensor, s: Tensor, dims: tuple[int, ...]) -> Tensor | None:
        """The largest exponent a - s over `dims`; with eps the largest a, as published, for eps is in its unit."""
        if not self.shifted:
            return None
        shift = (a if self.eps else a - s).amax(dims, keepdim=True)
        return shift if self.grad_shift else shift.detach()


def exact_attention(phi: FeatureMap, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the bidirectional form with a unit per feature: q, k, v (B, H, L, d), mask (B, L) -> (B, H, L, d)."""
    e = phi.key_exponents(k, mask)
    unit = e.detach().amax(-2, keepdim=True)
    return linear_attention(phi.queries_in(q, unit), (e - unit).exp(), v, mask=mask)


def exact_causal_attention(
    phi: FeatureMap, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    """Compute the causal form with a unit per feature, and the state after the last real key."""
    e = phi.key_exponents(k, mask)
    r = torch.full_like(e[:, :, 0].detach(), NO_KEY) if state is None else state["r"].to(e.dtype)
    units = torch.cat([r[:, :, None], e.detach()], 2).cummax(2).values  # (B, H, 1 + L, M)
    before, unit = units[:, :, :-1], units[:, :, 1:]
    carried = None if state is None else torch.cat([state["S"], state["z"][..., None]], dim=-1)
    y, after = gated_linear_attention(
        phi.queries_in(q, unit), (e - unit).exp(), F.pad(v, (0, 1), value=1.0), before - unit, carried, mask=mask
    )
    return _quotient(y[..., :-1], y[..., -1:]), {"S": after[..., :-1], "z": after[..., -1], "r": unit[:, :, -1]}


def linear_attention(
    phi_q: Tensor, phi_k: Tensor, v: Tensor, *, mask: Tensor | None = None, denominator_eps: float = 0.0
) -> Tensor:
    """Compute the bidirectional form: phi_q, phi_k (B, H, L, M), v (B, H, L, d) -> (B, H, L, d).

    mask  (B, L), True = real key. Pads lose their features: zeroing k or v is not enough, for phi(0) is not 0
    denominator_eps  added to phi_q z
    A row without any real key gets zero.
    """
    if mask is not None:
        phi_k = phi_k.masked_fill(~mask[:, None, :, None], 0)
        v = v.masked_fill(~mask[:, None, :, None], 0)
    S = phi_k.transpose(-1, -2) @ v  # (B, H, M, d)
    z = phi_k.sum(-2)  # (B, H, M)
    return _quotient(phi_q @ S, (phi_q @ z[..., None]) + denominator_eps)


def causal_linear_attention(
    phi_q: Tensor,
    phi_k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    running: Tensor | None = None,
    state: State | None = None,
    denominator_eps: float = 0.0,
    chunk: int = CHUNK,
) -> tuple[Tensor, State]:
    """Compute the causal form in chunks, and the state after the last real key.

    phi_q, phi_k  (B, H, L, M), v (B, H, L, d), mask (B, L) as in `linear_attention`
    running  (B, H, L) from `FeatureMap.causal_keys`: phi_k(j) is in units of exp(running_j); None = one unit for all
    state    of an earlier call with the same kernel
    denominator_eps  added to every entry of z
    """
    B, H, L, M = phi_q.shape
    if mask is not None:
        phi_k = phi_k.masked_fill(~mask[:, None, :, None], 0)
        v = v.masked_fill(~mask[:, None, :, None], 0)
    d = v.shape[-1]
    values = F.pad(v, (0, 1), value=1.0)  # the last column of phi_kᵀ values is z
    r = phi_q.new_zeros(B, H, L) if running is None else running
    C = min(chunk, L)
    n = -(-L // C)
    fill = n * C - L
    q, k, values = (
        F.pad(t, (0, 0, 0, fill)).unflatten(2, (n, C))  # (B, H, n, C, ·)
        for t in (phi_q, phi_k, values)
    )
    r = torch.cat([r, r[..., -1:].expand(-1, -1, fill)], dim=-1).unflatten(2, (n, C))  # (B, H, n, C)
    if state is None:
        before, last = phi_q.new_zeros(B, H, M, d + 1), r.new_full((B, H), 0.0 if running is None else NO_KEY)
    else:
        before = torch.cat([state["S"], state["z"][..., None]], dim=-1).to(phi_q.dtype)
        last = state["r"].to(r.dtype) if running is not None else r.new_zeros(B, H)

    # keys of the same chunk: weights exp(r_j - r_i) ≤ 1 below the diagonal, 0 above it
    later = torch.ones(C, C, dtype=torch.bool, device=q.device).triu(1)
    decay = (r[..., None, :] - r[..., :, None]).masked_fill(later, -torch.inf).exp()  # (B, H, n, C, C)
    inside = (q @ k.transpose(-1, -2) * decay) @ values  # (B, H, n, C, d + 1)

    # keys of earlier chunks: their sum S in the unit of the last key before
    ends = r[..., -1]  # (B, H, n)
    added = (k * (r - ends[..., None]).exp()[..., None]).transpose(-1, -2) @ values
    sums, units = [], []
    for c in range(n):
        sums.append(before)
        units.append(last)
        before = before * (last - ends[..., c]).exp()[..., None, None] + added[:, :, c]
        last = ends[..., c]
    entering = torch.stack(sums, dim=2)  # (B, H, n, M, d + 1)
    since = (torch.stack(units, dim=2)[..., None] - r).exp()  # (B, H, n, C)
    y = (inside + (q @ entering) * since[..., None]).flatten(2, 3)[:, :, :L]  # (B, H, L, d + 1)

    floor = denominator_eps * phi_q.sum(-1, keepdim=True) if denominator_eps else 0.0
    after = {"S": before[..., :d], "z": before[..., d]} | ({} if running is None else {"r": last})
    return _quotient(y[..., :d], y[..., d:] + floor), after


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; 0 where there was no key, or where all weights underflow."""
    return numerator / denominator.masked_fill(denominator == 0, 1.0)
