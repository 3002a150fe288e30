"""The kernel of a DPLR state space model from its generating function, without powers of Abar.

S4's algorithm 1 evaluates sum_l K_l w^l at the L-th roots of unity, where the endless sum must first be cut after L
terms, by C (I - Abar^L). Here w lies on a circle of radius rho < 1, M nodes: term l + M comes back at l as rho^M
K_{l+M} (|Abar^l| <= 1, so it is small), and the rounding of the sums is magnified by rho^-l < rho^-L. Both are equal at
rho^(M + L) = 1e-16: M = L nodes give 8 digits, 4 L nodes 13, and no power of Abar is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops.chunks import slices

ROUNDING = -16 * math.log(10)
"""Logarithm of the precision of float64."""

Sums = Callable[[Tensor, Tensor, Tensor], Tensor]


def generating_kernel(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, L: int, nodes: int, sums: Sums
) -> Tensor:
    """K (Ch, H, L) in float64 from at least L nodes, an even number; arguments as `DPLRSSM` has them, in double
    precision; `sums` is `plain_sums` or `blocked_sums`.

    With a = 1 + w, b = 2 (1 - w), z = b/a and lam = dt Lambda, a conjugate pair with weight v gives

        v/(z - lam) + conj = a (b 2 Re(v) - a 2 Re(v conj(lam))) / (b² - 2 Re(lam) a b + |lam|² a²)
    """
    log_rho = ROUNDING / (nodes + L)
    k = torch.arange(nodes // 2 + 1, dtype=torch.float64, device=dt.device)
    b = -2 * torch.expm1(torch.complex(torch.full_like(k, log_rho), k * (-2 * math.pi / nodes)))
    a = 2 - b / 2
    lam = dt * Lambda
    v = torch.cat([C, P.conj()])[:, None] * (torch.cat([B[None], P]) * dt)[None]  # (Ch + r, 1 + r, H, n)
    weights = torch.stack([2 * v.real, 2 * (v * lam.conj()).real]).permute(3, 0, 1, 2, 4)  # (H, 2, Ch + r, 1 + r, n)
    quadratic = torch.stack([torch.ones_like(lam.real), -2 * lam.real, lam.real**2 + lam.imag**2], -1)
    R = sums(weights.flatten(1, 3), quadratic, torch.stack([b * b, a * b, a * a])).unflatten(1, weights.shape[1:4])
    m = b * R[:, 0] - a * R[:, 1]  # (H, Ch + r, 1 + r, K): the Cauchy products, divided by a
    for _ in range(len(P)):  # Woodbury: eliminate the last rank, whose pivot is 1 + a Q P
        m = m[:, :-1, :-1] - (a / (1 + a * m[:, -1, -1]))[:, None, None] * m[:, :-1, -1:] * m[:, -1:, :-1]
    undo = torch.exp(-log_rho * torch.arange(L, dtype=torch.float64, device=dt.device))
    return (torch.fft.irfft(2 * m[:, :, 0], n=nodes)[..., :L] * undo).transpose(0, 1)


def plain_sums(weights: Tensor, quadratic: Tensor, basis: Tensor) -> Tensor:
    """sum_n weights[h,m,n] / (quadratic[h,n] . basis[:,k]): (H, m, n), (H, n, 3), complex (3, K) -> (H, m, K)."""
    return weights.to(basis.dtype) @ (1 / (quadratic.to(basis.dtype) @ basis))


def blocked_sums(weights: Tensor, quadratic: Tensor, basis: Tensor) -> Tensor:
    """`plain_sums` in blocks of channels that fit in a cache, which backward computes again; real GEMMs throughout."""
    return _BlockedSums.apply(weights.contiguous(), quadratic, basis)


class _BlockedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, quadratic: Tensor, basis: Tensor) -> Tensor:
        ctx.save_for_backward(weights, quadratic, basis)
        parts = [weights[s] @ _interleaved(_inverse(quadratic[s], basis)) for s in _blocks(weights, basis)]
        return _complex(torch.cat(parts))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dR: Tensor) -> tuple[Tensor | None, ...]:
        weights, quadratic, basis = ctx.saved_tensors
        plain, conj = _interleaved(dR), _interleaved(dR.conj())
        read = _interleaved(basis.conj()).T
        dweights, dquadratic = [], []
        for s in _blocks(weights, basis):
            G = _inverse(quadratic[s], basis)
            dweights.append(plain[s] @ _interleaved(G).transpose(1, 2))
            # d(1/q) = -G² dq; the real part of a product with basis is a real product with its conjugate
            through = _complex(weights[s].transpose(1, 2) @ conj[s]).mul_(G).mul_(G)
            dquadratic.append(-(_interleaved(through) @ read))
        return torch.cat(dweights), torch.cat(dquadratic), None


def _blocks(weights: Tensor, basis: Tensor) -> list[slice]:
    """Slices of the channels; a block of (channels, n, K) complex numbers takes 1 MB (of a GPU 64 MB)."""
    size = 1 << (16 if weights.device.type == "cpu" else 22)
    return list(slices(len(weights), max(size // (weights.shape[-1] * basis.shape[-1]), 1)))


def _inverse(quadratic: Tensor, basis: Tensor) -> Tensor:
    return _complex(quadratic @ _interleaved(basis)).reciprocal_()


def _interleaved(z: Tensor) -> Tensor:
    """(…, K) complex -> (…, 2K), real and imaginary parts in turn."""
    return torch.view_as_real(z.resolve_conj().contiguous()).flatten(-2)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))
