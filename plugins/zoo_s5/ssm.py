"""S5's state space model: its parameters, their initial values, and the discretised system with its scan.

B batch, L seq_len, H d_model; N d_state, P states kept (N/2 with conj_sym, one of each conjugate pair; else N),
J blocks; Ch readouts (1 causal; 2 bidirectional: of the forward and of the backward states).

    x_t = Lbar x_{t-1} + Bbar u_t        r_t = Lbar r_{t+1} + Bbar u_t        (both see the current input)
    y_t = 2 Re(C_1 x_t + C_2 r_t) + D u_t                                     (without conj_sym: Re instead of 2 Re)
    zoh: Lbar = exp(Lambda Delta), Bbar = (Lbar - 1)/Lambda B                 (section 3.2; Delta one per state)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn import param_options, truncated_normal_
from zoo.ops.diagonal import discretize_diagonal
from zoo.ops.hippo import legs_dplr
from zoo.ops.scan import diagonal_scan
from zoo_s5.config import S5Config

LARGEST_REAL = -1e-4
"""clip_eigs: real parts of eigenvalues are at most this."""


class System(NamedTuple):
    """The discretised system. Bbar and C are real matrices over interleaved (re, im), so that products stay real.

    Lbar  (P,) complex128
    Bbar  (2P, H) real
    C     (Ch, H, 2P) real, the factor 2 included
    D     (H,)
    """

    Lbar: Tensor
    Bbar: Tensor
    C: Tensor
    D: Tensor

    def project_in(self, u: Tensor) -> Tensor:
        """Bbar u: (…, H) -> (…, P) complex."""
        return torch.view_as_complex(F.linear(u, self.Bbar).unflatten(-1, (-1, 2)))

    def project_out(self, x: Tensor, direction: int) -> Tensor:
        """2 Re(C x): (…, P) complex -> (…, H) real."""
        return F.linear(torch.view_as_real(x).flatten(-2), self.C[direction])

    def scan(self, u: Tensor, x0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: u (B, L, H), x0 (B, P) -> y (B, L, H) and the forward states x (B, L, P)."""
        v = self.project_in(u)
        x = diagonal_scan(self.Lbar, v, x0)
        y = self.project_out(x, 0) + self.D * u
        if self.C.shape[0] == 2:
            y = y + self.project_out(diagonal_scan(self.Lbar, v, reverse=True), 1)
        return y, x

    def step(self, u_t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One token of a causal `scan`: u_t (B, H), x (B, P) -> y_t (B, H), x."""
        x = self.Lbar.to(x.dtype) * x + self.project_in(u_t)
        return self.project_out(x, 0) + self.D * u_t, x


class S5SSM(nn.Module):
    """The parameters of one layer's state space model.

    Lambda_re, Lambda_im  (P,)
    B                     (P, H, 2) real and imaginary part of B~ = V^-1 B
    C                     (Ch, H, P, 2) of C~ = C V
    D                     (H,)
    log_step              (P,)
    """

    def __init__(self, config: S5Config, d_model: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.disc, self.conj_sym, self.clip_eigs = config.disc, config.conj_sym, config.clip_eigs
        self.step_rescale = config.step_rescale
        N, H, Ch = config.d_state, d_model, 2 if bidirectional else 1
        Lambda, V = blocks_of_hippo_n(N, config.blocks, conj_sym=config.conj_sym)
        P = Lambda.shape[0]
        self.Lambda_re = nn.Parameter(Lambda.real.float())
        self.Lambda_im = nn.Parameter(Lambda.imag.float())
        self.B = nn.Parameter(torch.view_as_real(to_eigenbasis(V, truncated_normal(N, H, std=N**-0.5))).float())
        if config.c_init == "complex_normal":
            self.C = nn.Parameter(torch.randn(Ch, H, P, 2) * math.sqrt(0.5))
        else:
            # the reference's lecun_normal counts the H outputs into the fan: 1/sqrt(H N), not 1/sqrt(N)
            std = N**-0.5 if config.c_init == "trunc_standard_normal" else (H * N) ** -0.5
            C = torch.view_as_complex(truncated_normal(Ch, H, N, 2, std=std))
            self.C = nn.Parameter(torch.view_as_real(C @ V).float())
        self.D = nn.Parameter(torch.randn(H))
        self.log_step = nn.Parameter(torch.empty(P).uniform_(math.log(config.dt_min), math.log(config.dt_max)))

        param_options(self, "Lambda_re", "Lambda_im", lr=config.ssm_lr, weight_decay=0.0)
        param_options(self, "C", "D")
        B_lr = None if config.groups == "BfastandCdecay" else config.ssm_lr
        param_options(self, "B", lr=B_lr, weight_decay=0.0 if config.groups == "standard" else None)
        if config.dt_global:
            param_options(self, "log_step")
        else:
            param_options(self, "log_step", lr=config.ssm_lr, weight_decay=0.0)

    def discretize(self, dtype: torch.dtype) -> System:
        """Discretise the system, differentiably; Lbar and Bbar are computed in double precision."""
        Lambda_re = self.Lambda_re.double()
        if self.clip_eigs:
            Lambda_re = Lambda_re.clamp(max=LARGEST_REAL)
        Lambda = torch.complex(Lambda_re, self.Lambda_im.double())
        Delta = self.step_rescale * torch.exp(self.log_step.double())
        B = torch.view_as_complex(self.B.double())
        Lbar, Bbar = discretize_diagonal(Lambda[:, None], B, Delta[:, None], self.disc)  # (P, 1), (P, H)
        scale = 2.0 if self.conj_sym else 1.0
        C = self.C * self.C.new_tensor([scale, -scale])  # Re(c x) = Re c Re x - Im c Im x
        return System(
            Lbar[:, 0],
            torch.view_as_real(Bbar).transpose(1, 2).flatten(0, 1).to(dtype),
            C.flatten(2).to(dtype),
            self.D.to(dtype),
        )


def blocks_of_hippo_n(N: int, J: int, *, conj_sym: bool) -> tuple[Tensor, Tensor]:
    """Diagonalise J blocks of HiPPO-N, the normal part of HiPPO-LegS: Lambda (P,) and V (N, P), complex128.

    Eigenvalues of a block ascend by imaginary part; with conj_sym it keeps those where that is negative.
    """
    init = legs_dplr(N // J)
    Lambda, V = init.Lambda, init.V
    if not conj_sym:
        Lambda, V = torch.cat([Lambda, Lambda.conj().flip(0)]), torch.cat([V, V.conj().flip(1)], 1)
    return Lambda.repeat(J), torch.block_diag(*[V] * J)


def to_eigenbasis(V: Tensor, B: Tensor) -> Tensor:
    """Return B~ = V* B: V (N, P) with orthonormal columns, B (N, H) real -> (P, H) complex."""
    return V.conj().T @ B.to(V.dtype)


def truncated_normal(*shape: int, std: float) -> Tensor:
    """Draw float64 values of deviation `std` from a normal distribution truncated at two deviations."""
    return truncated_normal_(torch.empty(*shape, dtype=torch.float64), std)
