"""State space models whose matrix is diagonal plus low rank (S4): kernel, final state, response and step.

B batch, H channels, n conjugate pairs of which one member is kept, N = 2n state size, r rank (1 for HiPPO-LegS),
Ch kernels per channel, L seq_len; time is the last axis. With the conjugates written out again (index f),

    A = diag(Lambda_f) - P_f P_f*,   Abar = (I - dt/2 A)^-1 (I + dt/2 A),   Bbar = (I - dt/2 A)^-1 dt B_f
    s_t = Abar s_{t-1} + Bbar x_t        y_t = C_f s_t        K[c,h,l] = C_f Abar^l Bbar        (S4 eq. 3-5)

Forms of the kernel. "torch": in float32, where 2 L <= N², from the generating function on a circle of L nodes
(generating.py), O(H N L); else by squares: l = T q + r, and C Abar^(Tq) times Abar^r Bbar, GEMMs of O(H N³ log L), in
float64, since rounding Abar to float32 costs 3e-4 of a slow channel's kernel at L = 16384. The rule follows what both
cost on a CPU for N = 4 … 128, forward and backward. "reference": the generating function at 4 L nodes, written plainly.
Source: S4 (Gu, Goel & Ré 2022), section 3 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.ops.backend import choose_form, register_op
from zoo.ops.chunks import right_aligned_chunks, state_chunk
from zoo.ops.complex import as_complex, as_real, pair_weights
from zoo.ops.dplr.generating import Sums, blocked_sums, generating_kernel, plain_sums
from zoo.ops.fftconv.fft import fast_length
from zoo.ops.tracing import plain_only, without_autocast

register_op("dplr_kernel", ("torch", "reference"))


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
    _kept: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("Lambda", "P", "B", "C"):
            object.__setattr__(self, name, getattr(self, name).to(torch.complex128))
        object.__setattr__(self, "dt", self.dt.to(torch.float64))

    @property
    def d_state(self) -> int:
        """Complex numbers of state per channel."""
        return self.Lambda.shape[-1]

    # -- the discretised system ----------------------------------------------------------------------------------

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        """Make a part at its first use and keep it; torch.compile cannot trace the lock of `cached_property`."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Low-rank form of Abar, Bbar: d, b (H, n), u, q (r, H, n), complex; Abar s = d s - sum_i u_i 2 Re(q_i . s).

        Woodbury on I - dt/2 A = D^-1 + dt/2 P P* with D = 1/(1 - dt Lambda/2); of a conjugate-symmetric vector a
        product with P* is twice a real part, so the r x r core is real. Abar = 2 (I - dt/2 A)^-1 - I.
        """
        return self._once("factors", self._make_factors)

    def _make_factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        D = 1 / (1 - self.dt * self.Lambda / 2)
        q = self.P.conj() * D
        v = D * self.dt * self.P
        core = torch.einsum("ihn,jhn->hij", q, self.dt * self.P).real  # P* D (dt/2) P over whole pairs
        core = core + torch.eye(core.shape[-1], dtype=core.dtype, device=core.device)
        u = torch.einsum("ihn,hij->jhn", v, torch.linalg.inv(core).to(v.dtype))
        b = self.dt * self.B
        b = D * b - torch.einsum("ihn,ih->hn", u, (q * b).real.sum(-1).to(u.dtype))
        return 2 * D - 1, b, u, q

    @property
    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """The dense Abar (H, N, N), Bbar (H, N), C (Ch, H, N), real and float64, on states [Re s, Im s]."""
        return self._once("dense", self._make_dense)

    def _make_dense(self) -> tuple[Tensor, Tensor, Tensor]:
        d, b, u, q = self.factors
        re, im = torch.diag_embed(d.real), torch.diag_embed(d.imag)
        A = torch.cat([torch.cat([re, -im], 2), torch.cat([im, re], 2)], 1)
        A = A - torch.einsum("ihm,ihn->hmn", as_real(u), pair_weights(q))
        return A, as_real(b), pair_weights(self.C)

    def square(self, i: int, dtype: torch.dtype) -> Tensor:
        """The power Abar^(2^i) (H, N, N) in `dtype`; each is computed in float64 at its first use and kept."""
        squares = self._once("squares", lambda: [self.dense[0]])
        while len(squares) <= i:
            squares.append(squares[-1] @ squares[-1])
        return squares[i].to(dtype)

    # -- its uses ------------------------------------------------------------------------------------------------

    def kernel(self, L: int, dtype: torch.dtype) -> Tensor:
        """The convolution kernel K (Ch, H, L), real, in `dtype` (float32 or float64)."""
        with without_autocast(self.dt):
            if choose_form("dplr_kernel", self.dt.device) == "reference":
                return self._generate(L, 4 * L, plain_sums).to(dtype)
            if dtype == torch.float32 and (2 * self.d_state) ** 2 >= 2 * L:
                return self._generate(L, fast_length(L), plain_sums if plain_only() else blocked_sums).to(dtype)
            return self._multiply_out(L, dtype)

    def _generate(self, L: int, nodes: int, sums: Sums) -> Tensor:
        return generating_kernel(self.Lambda, self.P, self.B, self.C, self.dt, L, nodes, sums)

    def _multiply_out(self, L: int, dtype: torch.dtype) -> Tensor:
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
        with without_autocast(x):
            L = x.shape[-1]
            T = state_chunk(L)
            t = T.bit_length() - 1
            right = self.dense[1].to(x.dtype)[..., None]
            for i in range(t):
                right = torch.cat([self.square(i, x.dtype) @ right, right], -1)  # (H, N, T): last token last
            v = torch.einsum("bhqt,hnt->bhqn", right_aligned_chunks(x, lengths, T), right)
            while v.shape[2] > 1:  # pair up neighbours; a leading chunk of zeros makes their number even
                if v.shape[2] % 2:
                    v = torch.cat([torch.zeros_like(v[:, :, :1]), v], 2)
                v = torch.einsum("bhqn,hmn->bhqm", v[:, :, 0::2], self.square(t, x.dtype)) + v[:, :, 1::2]
                t += 1
            s = v[:, :, 0]
            if state is not None:
                tokens = torch.full((x.shape[0],), L, device=x.device) if lengths is None else lengths
                before = as_real(state)
                for i in range(L.bit_length()):  # Abar^tokens by squaring
                    moved = torch.einsum("hmn,bhn->bhm", self.square(i, before.dtype), before)
                    before = torch.where((tokens >> i & 1).bool()[:, None, None], moved, before)
                s = s + before
            return as_complex(s)

    def response(self, state: Tensor, L: int) -> Tensor:
        """The outputs y (B, H, L) that the state before the first token alone produces, with C = C[0]."""
        with without_autocast(state):
            start = as_real(state)[:, :, None]  # (B, H, Q, N): Abar^(T q) s
            dtype, T = start.dtype, state_chunk(L)
            t = T.bit_length() - 1
            read = self.dense[2][0].to(dtype)[:, None] @ self.square(0, dtype)  # (H, T, N): C Abar^(r+1)
            for i in range(t):
                read = torch.cat([read, read @ self.square(i, dtype)], 1)
            for i in range(t, (L - 1).bit_length()):
                moved = torch.einsum("bhqn,hmn->bhqm", start, self.square(i, dtype))
                start = torch.cat([start, moved], 2)[:, :, : -(-L // T)]
            return torch.einsum("bhqn,htn->bhqt", start, read).flatten(2)[..., :L]

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Process one token in O(H N r): x_t (B, H), state (B, H, n) -> y_t (B, H), state."""
        d, b, u, q = (f.to(state.dtype) for f in self.factors)
        low_rank = torch.einsum("ihn,bhn->ibh", q, state).real.to(state.dtype)
        state = d * state - 2 * torch.einsum("ihn,ibh->bhn", u, low_rank) + b * x_t[..., None]
        return 2 * (self.C[0].to(state.dtype) * state).real.sum(-1), state
