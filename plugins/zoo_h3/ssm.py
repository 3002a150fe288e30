"""H3's two state space models: parameters, initial values, and their convolutions and steps.

B batch, L seq_len, G channels of a model (d_model for the shift, heads for the diagonal one), N state size, n = N/2
conjugate pairs, Ch kernels (1 causal; 2 bidirectional: forward and backward, which differ in C only). Time is last.

    shift:     s_t[m] = s_{t-1}[m-1] + B[m] x_t,   y_t = sum_m C[m] s_t[m] + D x_t;   K_l = sum_m B[m] C[m+l], l < N
    diagonal:  s_t = a s_{t-1} + b x_t,            y_t = 2 Re sum_n c_n s_t[n] + D x_t   (zoo.ops.diagonal)

Bidirectional: y_t = sum_{s<=t} K0_{t-s} x_s + sum_{s>=t} K1_{s-t} x_s + D x_t; the current token meets both kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn import param_options
from zoo.ops.diagonal import DiagonalSSM, discretize_diagonal
from zoo.ops.fftconv import fft_conv
from zoo_h3.config import H3Config


@dataclass(frozen=True)
class ShiftSystem:
    """The shift SSM, which remembers the last N inputs, weighted by B: B (G, N) and C (Ch, G, N), real."""

    B: Tensor
    C: Tensor

    def kernel(self, L: int, dtype: torch.dtype) -> Tensor:
        """Return K (Ch, G, min(N, L)); later taps are zero."""
        kernels = [correlate(self.B.double()[None], C)[0] for C in self.C.double()]
        return torch.stack(kernels)[..., :L].to(dtype)

    def final_state(self, x: Tensor, lengths: Tensor | None = None, state: Tensor | None = None) -> Tensor:
        """Return the state after the last real token of every row: (B, G, N).

        x (B, G, L); lengths (B,) real tokens of each row (right padding), None = all L; state (B, G, N) or None = zero.
        """
        (batch, G, L), N = x.shape, self.B.shape[1]
        if lengths is None:
            lengths = torch.full((batch,), L, device=x.device)
        back = torch.arange(N, device=x.device)
        at = lengths[:, None] - 1 - back  # (B, N): index of the input m tokens ago
        recent = x.gather(2, at.clamp(min=0)[:, None].expand(-1, G, -1)).masked_fill((at < 0)[:, None], 0.0)
        s = fft_conv(recent, self.B)
        if state is not None:
            come_from = back - lengths[:, None]  # (B, N)
            moved = state.to(s.dtype).gather(2, come_from.clamp(min=0)[:, None].expand(-1, G, -1))
            s = s + moved.masked_fill((come_from < 0)[:, None], 0.0)
        return s

    def response(self, state: Tensor, L: int) -> Tensor:
        """Return what the state before the first token adds to the outputs: (B, G, L)."""
        y = correlate(state, self.C[0])[..., 1:]  # at token t the state has moved by t + 1
        return F.pad(y, (0, L - y.shape[-1])) if y.shape[-1] < L else y[..., :L]

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token: x_t (B, G), state (B, G, N) -> y_t (B, G), state."""
        state = F.pad(state[..., :-1], (1, 0)) + self.B.to(state.dtype) * x_t[..., None]
        return (self.C[0].to(state.dtype) * state).sum(-1), state


def correlate(s: Tensor, C: Tensor) -> Tensor:
    """Return sum_m s[m] C[m+l] for l = 0 .. N-1: s (B, G, N), C (G, N) -> (B, G, N)."""
    N = C.shape[-1]
    return fft_conv(F.pad(s.flip(-1), (0, N - 1)), C)[..., N - 1 :]


System = ShiftSystem | DiagonalSSM


def run(system: System, D: Tensor, x: Tensor, state: Tensor | None = None) -> Tensor:
    """Run a system as a convolution: x (B, G, L) -> y (B, G, L). Two kernels make it two-sided, without a state."""
    L = x.shape[-1]
    K = system.kernel(L, x.dtype)  # (Ch, G, at most L)
    now = D.to(x.dtype)[:, None]
    if K.shape[0] == 2:
        # the backward kernel of fft_conv begins at the next token: its tap for the current one joins the forward kernel
        k0 = K[0] + F.pad(now + K[1][:, :1], (0, K.shape[-1] - 1))
        return fft_conv(x, k0, K[1][:, 1:])
    y = fft_conv(x, K[0] + F.pad(now, (0, K.shape[-1] - 1)))
    return y if state is None else y + system.response(state, L)


def run_step(system: System, D: Tensor, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of a causal `run`: x_t (B, G), state (B, G, …) -> y_t (B, G), state."""
    y_t, state = system.step(x_t, state)
    return y_t + D.to(x_t.dtype) * x_t, state


class Shift(nn.Module):
    """The parameters of the shift SSM: B (G, N), initially the first unit vector, C (Ch, G, N), D (G,)."""

    def __init__(self, config: H3Config, channels: int, *, n_kernels: int) -> None:
        super().__init__()
        G, N = channels, config.d_state
        self.B = nn.Parameter(F.pad(torch.ones(G, 1), (0, N - 1)))
        # the initial values of a depthwise convolution of N taps in PyTorch
        self.C = nn.Parameter(torch.empty(n_kernels, G, N).uniform_(-(N**-0.5), N**-0.5))
        self.D = nn.Parameter(torch.randn(G))
        param_options(self, "B", lr=config.ssm_lr, weight_decay=0.0)
        param_options(self, "D")  # decays like a weight, although it has one dimension

    def system(self) -> ShiftSystem:
        """Return the system, which is discrete already."""
        return ShiftSystem(self.B, self.C)


class Diagonal(nn.Module):
    """Parameters of the diagonal SSM (S4D-Lin): A = -exp(A_real) + i A_imag, dt = exp(log_dt).

    A_real, A_imag (G, n); B (G, n, 2); C (Ch, G, n, 2); log_dt, D (G,)
    """

    def __init__(self, config: H3Config, channels: int, *, n_kernels: int) -> None:
        super().__init__()
        self.disc = config.disc
        G, n = channels, config.d_state // 2
        self.A_real = nn.Parameter(torch.full((G, n), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(n).float().repeat(G, 1))
        self.B = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(G, n, 1))
        self.C = nn.Parameter(torch.randn(n_kernels, G, n, 2) * math.sqrt(0.5))
        self.log_dt = nn.Parameter(torch.empty(G).uniform_(math.log(config.dt_min), math.log(config.dt_max)))
        self.D = nn.Parameter(torch.randn(G))
        param_options(self, "A_real", "A_imag", "B", "log_dt", lr=config.ssm_lr, weight_decay=0.0)
        param_options(self, "D")

    def system(self) -> DiagonalSSM:
        """Discretise the system, differentiably, in double precision also for float32 parameters."""
        A = torch.complex(-torch.exp(self.A_real.double()), self.A_imag.double())
        B, C = (torch.view_as_complex(p.double()) for p in (self.B, self.C))
        return DiagonalSSM(*discretize_diagonal(A, B, torch.exp(self.log_dt.double())[:, None], self.disc), C)
