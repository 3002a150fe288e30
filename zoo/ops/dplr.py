"""State space models whose matrix is diagonal plus low rank (S4): kernel, final state, free response and step.

B batch, H channels, n conjugate pairs of which one member is kept, N = 2n state size, r rank (1 for HiPPO-LegS),
Ch kernels per channel, L seq_len; time is the last axis. With the conjugates written out again (index f),

    A = diag(Lambda_f) - P_f P_f*,   Abar = (I - dt/2 A)^-1 (I + dt/2 A),   Bbar = (I - dt/2 A)^-1 dt B_f
    s_t = Abar s_{t-1} + Bbar x_t        y_t = C_f s_t        K[c,h,l] = C_f Abar^l Bbar        (S4 eq. 3-5)

Two forms of the kernel. "reference" is the paper's algorithm 1: the truncated generating function at the roots of
unity, with Cauchy products. "torch" writes l = T q + r and multiplies C Abar^(Tq) by Abar^r Bbar: since C itself (not
C (I - Abar^L)) is the parameter, both forms need the squares Abar^(2^i), and with them this one needs only GEMMs.
Squares are taken in float64: rounding Abar to float32 costs 3e-4 of a slow channel's kernel at L = 16384, this 1e-6.

Source: S4 (Gu, Goel & Ré 2022), section 3 and appendix C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from zoo.ops.backend import choose
from zoo.ops.diagonal import STATE_BLOCK, in_blocks

FORMS = {"dplr_kernel": lambda device: ("torch", "reference")}
"""Forms of the op on any device, best first; for `choose` and `zoo doctor`."""


@dataclass(frozen=True)
class DPLRSSM:
    """A DPLR system, discretised with the bilinear transform.

    Lambda  (H, n) complex, real part negative
    P       (r, H, n) complex
    B       (H, n) complex
    C       (Ch, H, n) complex; several C share one state
    dt      (H, 1), or (H, n) for a step of its own per state
    """

    Lambda: Tensor
    P: Tensor
    B: Tensor
    C: Tensor
    dt: Tensor
    _squares: list[Tensor] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        for name in ("Lambda", "P", "B", "C"):
            object.__setattr__(self, name, getattr(self, name).to(torch.complex128))
        object.__setattr__(self, "dt", self.dt.to(torch.float64))

    @property
    def d_state(self) -> int:
        """Complex numbers of state per channel."""
        return self.Lambda.shape[-1]

    # -- the discretised system ----------------------------------------------------------------------------------

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """d, b (H, n) and u, q (r, H, n), complex: Abar s = d s - sum_i u_i 2 Re(q_i . s), Bbar = b.

        Woodbury on I - dt/2 A = D^-1 + dt/2 P P* with D = 1/(1 - dt Lambda/2); of a conjugate-symmetric vector a
        product with P* is twice a real part, so the r x r core is real. Abar = 2 (I - dt/2 A)^-1 - I.
        """
        D = 1 / (1 - self.dt * self.Lambda / 2)
        q = self.P.conj() * D
        v = D * self.dt * self.P
        core = torch.einsum("ihn,jhn->hij", q, self.dt * self.P).real  # P* D (dt/2) P over whole pairs
        core = core + torch.eye(core.shape[-1], dtype=core.dtype, device=core.device)
        u = torch.einsum("ihn,hij->jhn", v, torch.linalg.inv(core).to(v.dtype))
        b = self.dt * self.B
        b = D * b - torch.einsum("ihn,ih->hn", u, (q * b).real.sum(-1).to(u.dtype))
        return 2 * D - 1, b, u, q

    @cached_property
    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Abar (H, N, N), Bbar (H, N), C (Ch, H, N), all real and float64, on states [Re s, Im s]."""
        d, b, u, q = self.factors
        re, im = torch.diag_embed(d.real), torch.diag_embed(d.imag)
        A = torch.cat([torch.cat([re, -im], 2), torch.cat([im, re], 2)], 1)
        A = A - 2 * torch.einsum("ihm,ihn->hmn", as_real(u), as_real(q.conj()))
        return A, as_real(b), 2 * as_real(self.C.conj())

    def square(self, i: int, dtype: torch.dtype) -> Tensor:
        """Abar^(2^i) (H, N, N) in `dtype`; each computed once, in float64, when first asked for."""
        if not self._squares:
            self._squares.append(self.dense[0])
        while len(self._squares) <= i:
            self._squares.append(self._squares[-1] @ self._squares[-1])
        return self._squares[i].to(dtype)

    def advance(self, s: Tensor, tokens: int | Tensor, most: int) -> Tensor:
        """Abar^tokens s for real states s (B, H, N); `tokens` one int, or one per row (B,), at most `most`."""
        for i in range(most.bit_length()):
            if isinstance(tokens, Tensor):
                moved = torch.einsum("hmn,bhn->bhm", self.square(i, s.dtype), s)
                s = torch.where((tokens >> i & 1).bool()[:, None, None], moved, s)
            elif tokens >> i & 1:
                s = torch.einsum("hmn,bhn->bhm", self.square(i, s.dtype), s)
        return s

    # -- its uses ------------------------------------------------------------------------------------------------

    def kernel(self, L: int, dtype: torch.dtype) -> Tensor:
        """K (Ch, H, L), real, in `dtype` (float32 or float64)."""
        with torch.autocast(self.dt.device.type, enabled=False):
            if choose("dplr_kernel", FORMS["dplr_kernel"]("any")) == "reference":
                K = generating_kernel(self.Lambda, self.P, self.B, truncated_C(self, L), self.dt, L)
                return K.to(dtype)
            k = (L - 1).bit_length()
            low = (k + 1) // 2
            _, b, c = self.dense
            right, left = b.to(dtype)[..., None], c.to(dtype).transpose(0, 1)[:, :, None]
            for i in range(low):  # (H, N, T): Abar^r Bbar, r < T = 2^low
                right = torch.cat([right, self.square(i, dtype) @ right], -1)
            for i in range(low, k):  # (H, Ch, Q, N): C Abar^(T q)
                left = torch.cat([left, left @ self.square(i, dtype)[:, None]], 2)
            return torch.einsum("hcqn,hnt->chqt", left, right).flatten(2)[..., :L]

    def final_state(self, x: Tensor, lengths: Tensor | None = None, state: Tensor | None = None) -> Tensor:
        """The state after the last real token of every row: (B, H, n) complex.

        x        (B, H, L), float32 or float64
        lengths  (B,) int, real tokens of each row (right padding); None = all L
        state    (B, H, n) before the first token; None = zero
        """
        with torch.autocast(x.device.type, enabled=False):
            L = x.shape[-1]
            t = min(STATE_BLOCK.bit_length() - 1, (L - 1).bit_length())
            right = self.dense[1].to(x.dtype)[..., None]
            for i in range(t):
                right = torch.cat([self.square(i, x.dtype) @ right, right], -1)  # (H, N, T): last token last
            v = torch.einsum("bhqt,hnt->bhqn", in_blocks(x, lengths, 1 << t), right)
            while v.shape[2] > 1:  # pair up neighbours; a leading block of zeros makes their number even
                if v.shape[2] % 2:
                    v = torch.cat([torch.zeros_like(v[:, :, :1]), v], 2)
                v = torch.einsum("bhqn,hmn->bhqm", v[:, :, 0::2], self.square(t, x.dtype)) + v[:, :, 1::2]
                t += 1
            s = v[:, :, 0]
            if state is not None:
                s = s + self.advance(as_real(state), L if lengths is None else lengths, L)
            return as_complex(s)

    def response(self, state: Tensor, L: int) -> Tensor:
        """What the state before the first token adds to the outputs: y (B, H, L) with C = C[0]."""
        with torch.autocast(state.device.type, enabled=False):
            start = as_real(state)[:, :, None]  # (B, H, Q, N): Abar^(T q) s
            dtype, k = start.dtype, (L - 1).bit_length()
            t = min(STATE_BLOCK.bit_length() - 1, k)
            read = self.dense[2][0].to(dtype)[:, None] @ self.square(0, dtype)  # (H, T, N): C Abar^(r+1)
            for i in range(t):
                read = torch.cat([read, read @ self.square(i, dtype)], 1)
            for i in range(t, k):
                moved = torch.einsum("bhqn,hmn->bhqm", start, self.square(i, dtype))
                start = torch.cat([start, moved], 2)[:, :, : -(-L // (1 << t))]
            return torch.einsum("bhqn,htn->bhqt", start, read).flatten(2)[..., :L]

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token in O(H N r): x_t (B, H), state (B, H, n) -> y_t (B, H), state."""
        d, b, u, q = (f.to(state.dtype) for f in self.factors)
        low_rank = torch.einsum("ihn,bhn->ibh", q, state).real.to(state.dtype)
        state = d * state - 2 * torch.einsum("ihn,ibh->bhn", u, low_rank) + b * x_t[..., None]
        return 2 * (self.C[0].to(state.dtype) * state).real.sum(-1), state


def truncated_C(ssm: DPLRSSM, L: int) -> Tensor:
    """C (I - Abar^L) (Ch, H, n) complex: what makes the generating function end after L terms (S4 appendix C.3)."""
    _, _, row = ssm.dense
    moved = row
    for i in range(L.bit_length()):
        if L >> i & 1:
            moved = torch.einsum("chm,hmn->chn", moved, ssm.square(i, torch.float64))
    return as_complex((row - moved) / 2).conj()


def generating_kernel(Lambda: Tensor, P: Tensor, B: Tensor, C_tilde: Tensor, dt: Tensor, L: int) -> Tensor:
    """S4 algorithm 1: K (Ch, H, L) from C_tilde = C (I - Abar^L), by Cauchy products at the L-th roots of unity.

    At w = exp(-i theta), z = 2 (1 - w)/(1 + w) = 2i tan(theta/2). With c, s the cosine and sine of theta/2 and
    lam = dt Lambda, a conjugate pair with weight v gives, multiplied through by (1 + w)²,

        v/(z - lam) + conj = c (2i s 2 Re(v) - c 2 Re(v conj(lam))) G,   G = 1/(|lam|² c² - 4 s² - 4i Re(lam) s c)

    which has no infinity at the Nyquist node (c = 0). Nodes are computed in float64 whatever the precision of the
    rest: in float32 their error alone makes the kernel wrong by 1e-3 at L = 16384.
    """
    real = Lambda.real.dtype
    theta = torch.arange(L // 2 + 1, dtype=torch.float64, device=Lambda.device) * (math.pi / L)
    cos, sin = theta.cos(), theta.sin()
    if L % 2 == 0:
        cos[-1] = 0.0
    half_turn = torch.exp(1j * theta).to(Lambda.dtype)
    c, s = cos.to(real), sin.to(real)
    lam = dt * Lambda
    size = lam.abs()[..., None]  # (H, n, 1)
    G = 1 / torch.complex((size * c - 2 * s) * (size * c + 2 * s), -4 * lam.real[..., None] * (s * c))
    left = torch.cat([C_tilde, P.conj()])  # (Ch + r, H, n)
    right = torch.cat([B[None], P]) * dt  # (1 + r, H, n)
    v = left[:, None] * right[None]
    R1 = torch.einsum("xyhn,hnk->xyhk", (2 * v.real).to(G.dtype), G)
    R2 = torch.einsum("xyhn,hnk->xyhk", (2 * (v * lam.conj()).real).to(G.dtype), G)
    rho = 2j * s * R1 - c * R2  # Cauchy product / c
    Ch, r = C_tilde.shape[0], P.shape[0]
    CB, CP, QB, QP = rho[:Ch, 0], rho[:Ch, 1:], rho[Ch:, 0], rho[Ch:, 1:]
    # Woodbury: CB - CP (I + QP)^-1 QB, products written as rho c
    core = (c * QP).permute(2, 3, 0, 1) + torch.eye(r, dtype=G.dtype, device=G.device)  # (H, K, r, r)
    solved = torch.linalg.solve(core, QB.permute(1, 2, 0)[..., None])[..., 0]  # (H, K, r)
    spectrum = half_turn * (CB - c * torch.einsum("crhk,hkr->chk", CP, solved))
    return torch.fft.irfft(spectrum, n=L)


def as_real(s: Tensor) -> Tensor:
    """Complex (…, n) as real (…, 2n): [Re s, Im s]."""
    return torch.cat([s.real, s.imag], -1)


def as_complex(s: Tensor) -> Tensor:
    """The inverse of `as_real`."""
    re, im = s.chunk(2, -1)
    return torch.complex(re, im)
