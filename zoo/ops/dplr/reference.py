"""The kernel of a DPLR state space model by S4's algorithm 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
