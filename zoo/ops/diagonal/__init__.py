"""Diagonal state space models (S4D, Mega's EMA): convolution kernel, final state, response and step.

A discretised system is complex, with one member of every conjugate pair kept, or real, without the "2 Re":

    s_t = a s_{t-1} + b x_t        y_t = 2 Re(sum_n c_n s_t,n)        K[c,h,l] = 2 Re(sum_n c b a^l)

B batch, H channels, n states kept (conjugate pairs or real numbers), N real numbers of state (2n or n), Ch kernels per
channel, L seq_len; time is the last axis. Powers of a are taken in double precision, the sums over n in the working
precision. No (B, H, n, L) trajectory is built for the final state.

Forms of the kernel: "torch" writes l = T q + r and multiplies tables of a^(Tq) and a^r, about √L columns each; no
(H, n, L) matrix is built. "reference" is the Vandermonde product (reference.py).
Source: S4D (Gu et al. 2022, section 3, equations 2-3 and listing 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.ops.backend import choose_form, register_op
from zoo.ops.chunks import right_aligned_chunks, state_chunk
from zoo.ops.complex import as_real, geometric, pair_sum, pair_weights, power, power_of_rows
from zoo.ops.diagonal.reference import vandermonde_kernel
from zoo.ops.tracing import without_autocast

register_op("diagonal_kernel", ("torch", "reference"))


def discretize_diagonal(A: Tensor, B: Tensor, dt: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Discretise A, B (H, n) complex with steps dt (H, 1) or (H, n): a, b (H, n) complex128.

    "zoh": a = exp(dt A), b = (a - 1)/A B. "bilinear": a = (1 + dt A/2)/(1 - dt A/2), b = dt/(1 - dt A/2) B.
    """
    A, B, dt = A.to(torch.complex128), B.to(torch.complex128), dt.to(torch.float64)
    if method == "zoh":
        a = torch.exp(dt * A)
        return a, (a - 1) / A * B
    if method == "bilinear":
        return (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2) * B
    raise ValueError(f"discretisation {method!r}: expected zoh or bilinear")


@dataclass(frozen=True)
class DiagonalSSM:
    """A discretised diagonal system: a, b (H, n) and c (Ch, H, n), double precision, all complex or all real.

    Several c share one state.
    """

    a: Tensor
    b: Tensor
    c: Tensor

    @property
    def d_state(self) -> int:
        """Numbers of state per channel, complex or real as the system is."""
        return self.a.shape[-1]

    def kernel(self, L: int, dtype: torch.dtype) -> Tensor:
        """The convolution kernel K (Ch, H, L), real, in `dtype` (float32 or float64)."""
        with without_autocast(self.a):
            cb = self.c * self.b
            if choose_form("diagonal_kernel", self.a.device) == "reference":
                return vandermonde_kernel(self.a, cb, L, dtype)
            T = 1 << ((L - 1).bit_length() + 1) // 2
            low = geometric(self.a, T)  # (H, n, T)
            high = geometric(power(self.a, T), -(-L // T))  # (H, n, Q)
            left = pair_weights(cb[..., None] * high, 2).to(dtype)  # (Ch, H, N, Q)
            return torch.einsum("chnq,hnt->chqt", left, as_real(low, 1).to(dtype)).flatten(2)[..., :L]

    def final_state(self, x: Tensor, lengths: Tensor | None = None, state: Tensor | None = None) -> Tensor:
        """The state after the last real token of every row: (B, H, n), complex or real as the system is.

        x        (B, H, L), float32 or float64
        lengths  (B,) int, real tokens of each row (right padding); None = all L
        state    (B, H, n) before the first token; None = zero
        """
        with without_autocast(x):
            L = x.shape[-1]
            T = state_chunk(L)
            chunks = right_aligned_chunks(x, lengths, T)  # (B, H, Q, T)
            within = self.b[..., None] * geometric(self.a, T).flip(-1)  # (H, n, T): token j has T-1-j to go
            parts = (within.real, within.imag) if within.is_complex() else (within,)
            sums = [torch.einsum("bhqt,hnt->bhqn", chunks, part.to(x.dtype)) for part in parts]
            v = torch.complex(*sums) if within.is_complex() else sums[0]
            s = (v * geometric(power(self.a, T), v.shape[2]).flip(-1).transpose(1, 2).to(v.dtype)).sum(2)
            if state is not None:
                decay = power(self.a, L) if lengths is None else power_of_rows(self.a, lengths, L)
                s = s + decay.to(s.dtype) * state
            return s

    def response(self, state: Tensor, L: int) -> Tensor:
        """The outputs y (B, H, L) that the state before the first token alone produces, with c = c[0]."""
        with without_autocast(state):
            T = state_chunk(L)
            start = state[:, :, None] * geometric(power(self.a, T), -(-L // T)).transpose(1, 2).to(state.dtype)
            start = as_real(start)  # (B, H, Q, N): the state before every chunk
            read = self.c[0][..., None] * self.a[..., None] * geometric(self.a, T)  # (H, n, T)
            read = pair_weights(read, 1).to(start.dtype)
            return torch.einsum("bhqn,hnt->bhqt", start, read).flatten(2)[..., :L]

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Process one token: x_t (B, H), state (B, H, n) -> y_t (B, H), state."""
        state = self.a.to(state.dtype) * state + self.b.to(state.dtype) * x_t[..., None]
        return pair_sum(self.c[0].to(state.dtype) * state).sum(-1), state
