"""S4's state space model: its parameters, their initial values, and the discretised system.

H channels, N = 2n state size (n conjugate pairs, one member kept), S copies of (A, B, P) that channels share,
Ch kernels per channel (1 causal, 2 bidirectional: forward and backward, which differ in C only), r = 1 rank.

    Lambda = -exp(A_real) - i A_imag        dt = softplus(inv_dt)
    dplr: A = diag(Lambda) - P P*           diag: A = diag(Lambda)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn import param_options
from zoo.ops.diagonal import DiagonalSSM, discretize_diagonal
from zoo.ops.dplr import DPLRSSM
from zoo.ops.hippo import clip_imaginary, diagonal_init, legs_dplr
from zoo_s4.config import S4Config


class S4Kernel(nn.Module):
    """A, B, C, P and dt of H independent single-input state space models.

    inv_dt          (H, 1)
    A_real, A_imag  (S, n)
    B               (S, n, 2) real and imaginary part
    P               (r, S, n, 2), only kernel=dplr
    C               (Ch, H, n, 2): C itself, not the published code's C (I - Abar^L), so it is tied to no length
    """

    def __init__(self, config: S4Config, d_model: int, n_kernels: int) -> None:
        super().__init__()
        H, n, S = d_model, config.d_state // 2, config.n_ssm or d_model
        self.disc = "zoh" if config.disc == "auto" else config.disc
        if config.kernel == "dplr":
            init = legs_dplr(config.d_state)
            Lambda, B = init.Lambda, init.B
            self.P = nn.Parameter(as_real(init.P).repeat(1, S, 1, 1))
        else:
            Lambda, B = diagonal_init(config.init, config.d_state)
            self.register_parameter("P", None)
        self.A_real = nn.Parameter(torch.log(-Lambda.real).float().repeat(S, 1))
        self.A_imag = nn.Parameter(-Lambda.imag.float().repeat(S, 1))
        self.B = nn.Parameter(as_real(clip_imaginary(B)).repeat(S, 1, 1))
        self.C = nn.Parameter(torch.randn(n_kernels, H, n, 2) * math.sqrt(0.5))
        log_dt = torch.empty(H, 1).uniform_(math.log(config.dt_min), math.log(config.dt_max))
        self.inv_dt = nn.Parameter(torch.log(torch.expm1(log_dt.exp())))

        ssm = ("A_real", "A_imag", "B") + (("P",) if self.P is not None else ())
        param_options(self, *ssm, lr=config.ssm_lr, weight_decay=0.0)
        param_options(self, "inv_dt", lr=config.dt_lr, weight_decay=0.0)
        param_options(self, "C", lr=config.c_lr)

    def discretize(self) -> DPLRSSM | DiagonalSSM:
        """Discretise the system, differentiably, in float64 also for float32 parameters."""
        H = self.C.shape[1]
        Lambda = torch.complex(-torch.exp(self.A_real.double()), -self.A_imag.double())
        dt = F.softplus(self.inv_dt.double())
        Lambda, B, C = repeat_copies(Lambda, H), repeat_copies(as_complex(self.B), H), as_complex(self.C)
        if self.P is not None:
            P = torch.stack([repeat_copies(p, H) for p in as_complex(self.P)])
            return DPLRSSM(Lambda, P, B, C, dt)
        a, b = discretize_diagonal(Lambda, B, dt, self.disc)
        return DiagonalSSM(a, b, C)


def repeat_copies(copies: Tensor, H: int) -> Tensor:
    """(S, n) -> (H, n): channel h gets copy h mod S."""
    return copies.repeat(H // copies.shape[0], 1)


def as_real(z: Tensor) -> Tensor:
    """Complex (…) -> float32 (…, 2), real and imaginary part."""
    return torch.view_as_real(z).float()


def as_complex(z: Tensor) -> Tensor:
    """Real and imaginary part (…, 2) -> complex128 (…)."""
    return torch.view_as_complex(z.double())
