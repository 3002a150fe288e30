"""Diagonal state space models (S4D, Mega's EMA): convolution kernel, final state, free response and step.

B batch, H channels, n conjugate pairs of which one member is kept (state size N = 2n), Ch kernels per channel, L
seq_len; time is the last axis. A system is given discretised, in complex numbers:

    s_t = a s_{t-1} + b x_t        y_t = 2 Re(sum_n c_n s_t,n)        K[c,h,l] = 2 Re(sum_n c b a^l)

or in real ones, N = n of them: the same without the "2 Re".

Powers of a are taken in double precision on tables of about 2 sqrt(L) columns (l = T q + r: a^l = a^(Tq) a^r) and only
their products, real batched GEMMs, run in the working precision. No (H, n, L) Vandermonde matrix is built, and no
(B, H, n, L) trajectory for the final state.

Source: S4D (Gu et al. 2022, section 3, equations 2-3 and listing 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.backend import choose

FORMS = {"diagonal_kernel": lambda device: ("torch", "reference")}
"""Forms of the op on any device, best first; for `choose` and `zoo doctor`."""
STATE_BLOCK = 128
"""Tokens that one GEMM folds into a state; (B, H, N, L / 128) is then half of x at N = 64."""


def discretize_diagonal(A: Tensor, B: Tensor, dt: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """a, b (H, n) complex128 of A, B (H, n) complex and steps dt (H, 1) or (H, n).

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
        """K (Ch, H, L), real, in `dtype` (float32 or float64)."""
        forms = {"torch": self._kernel_gemm, "reference": self._kernel_vandermonde}
        with torch.autocast(self.a.device.type, enabled=False):
            return forms[choose("diagonal_kernel", FORMS["diagonal_kernel"]("any"))](L, dtype)

    def _kernel_vandermonde(self, L: int, dtype: torch.dtype) -> Tensor:
        return observed(torch.einsum("chn,hnl->chl", self.c * self.b, geometric(self.a, L))).to(dtype)

    def _kernel_gemm(self, L: int, dtype: torch.dtype) -> Tensor:
        T = 1 << ((L - 1).bit_length() + 1) // 2
        Q = -(-L // T)
        low = geometric(self.a, T)  # (H, n, T)
        high = geometric(power(self.a, T), Q)  # (H, n, Q)
        left = reading_parts((self.c * self.b)[..., None] * high, 2).to(dtype)  # (Ch, H, N, Q)
        right = real_parts(low, 1).to(dtype)  # (H, N, T)
        return torch.einsum("chnq,hnt->chqt", left, right).flatten(2)[..., :L]

    def final_state(self, x: Tensor, lengths: Tensor | None = None, state: Tensor | None = None) -> Tensor:
        """The state after the last real token of every row: (B, H, n), complex or real as the system is.

        x        (B, H, L), float32 or float64
        lengths  (B,) int, real tokens of each row (right padding); None = all L
        state    (B, H, n) before the first token; None = zero
        """
        with torch.autocast(x.device.type, enabled=False):
            L = x.shape[-1]
            blocks = in_blocks(x, lengths, min(STATE_BLOCK, 1 << (L - 1).bit_length()))  # (B, H, Q, T)
            Q, T = blocks.shape[2:]
            within = self.b[..., None] * geometric(self.a, T).flip(-1)  # (H, n, T): block token j has T-1-j to go
            v = einsum_of_real("bhqt,hnt->bhqn", blocks, within)
            s = (v * geometric(power(self.a, T), Q).flip(-1).transpose(1, 2).to(v.dtype)).sum(2)
            if state is not None:
                decay = power(self.a, L) if lengths is None else power_of_rows(self.a, lengths, L)
                s = s + decay.to(s.dtype) * state
            return s

    def response(self, state: Tensor, L: int) -> Tensor:
        """What the state before the first token adds to the outputs: y (B, H, L) with c = c[0]."""
        with torch.autocast(state.device.type, enabled=False):
            T = min(STATE_BLOCK, 1 << (L - 1).bit_length())
            Q = -(-L // T)
            start = state[:, :, None] * geometric(power(self.a, T), Q).transpose(1, 2).to(state.dtype)  # (B, H, Q, n)
            read = self.c[0][..., None] * self.a[..., None] * geometric(self.a, T)  # (H, n, T)
            start = real_parts(start, -1)
            read = reading_parts(read, 1).to(start.dtype)
            return torch.einsum("bhqn,hnt->bhqt", start, read).flatten(2)[..., :L]

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token: x_t (B, H), state (B, H, n) -> y_t (B, H), state."""
        state = self.a.to(state.dtype) * state + self.b.to(state.dtype) * x_t[..., None]
        return observed(self.c[0].to(state.dtype) * state).sum(-1), state


def observed(z: Tensor) -> Tensor:
    """What a pair contributes when one member z is kept: 2 Re z; a real number stands for itself."""
    return 2 * z.real if z.is_complex() else z


def real_parts(z: Tensor, dim: int) -> Tensor:
    """Real and imaginary parts, one after the other along `dim`; a real z as it is."""
    return torch.cat([z.real, z.imag], dim) if z.is_complex() else z


def reading_parts(z: Tensor, dim: int) -> Tensor:
    """The real vector whose product with `real_parts(s)` is `observed(z s)` summed."""
    return torch.cat([2 * z.real, -2 * z.imag], dim) if z.is_complex() else z


def geometric(a: Tensor, count: int) -> Tensor:
    """1, a, a², … a^(count-1) along a new last axis, by doubling: exact products, no logarithm of zero."""
    powers = torch.ones_like(a)[..., None]
    factor = a[..., None]
    while powers.shape[-1] < count:
        powers = torch.cat([powers, powers * factor], -1)
        factor = factor * factor
    return powers[..., :count]


def power(a: Tensor, exponent: int) -> Tensor:
    """a^exponent for an integer >= 0, by squaring."""
    result = torch.ones_like(a)
    while exponent:
        if exponent & 1:
            result = result * a
        exponent >>= 1
        if exponent:
            a = a * a
    return result


def power_of_rows(a: Tensor, exponents: Tensor, largest: int) -> Tensor:
    """a (H, n) to the power of each row's own exponent (B,) in 0..largest: (B, H, n)."""
    T = 1 << (largest.bit_length() + 1) // 2
    low, high = geometric(a, T), geometric(power(a, T), largest // T + 1)
    return (low[..., exponents % T] * high[..., exponents // T]).movedim(-1, 0)


def in_blocks(x: Tensor, lengths: Tensor | None, T: int) -> Tensor:
    """x (B, H, L) as (B, H, Q, T) with every row's last real token in the last place, zeros before its first.

    From a zero state leading zeros change nothing, so that rows of different lengths end together.
    """
    B, H, L = x.shape
    if lengths is not None:
        source = torch.arange(L, device=x.device) - (L - lengths[:, None])  # (B, L)
        moved = x.gather(2, source.clamp(min=0)[:, None].expand(B, H, L))
        x = moved.masked_fill((source < 0)[:, None], 0.0)
    Q = -(-L // T)
    return (x if Q * T == L else F.pad(x, (Q * T - L, 0))).reshape(B, H, Q, T)


def einsum_of_real(equation: str, x: Tensor, weight: Tensor) -> Tensor:
    """einsum of a real x and a weight, complex as two real GEMMs, in the precision of x."""
    if not weight.is_complex():
        return torch.einsum(equation, x, weight.to(x.dtype))
    return torch.complex(
        torch.einsum(equation, x, weight.real.to(x.dtype)), torch.einsum(equation, x, weight.imag.to(x.dtype))
    )
