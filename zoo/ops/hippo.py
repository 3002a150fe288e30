"""HiPPO-LegS and the initial values that S4, S4D and S5 derive from it.

N state size, n = N/2 conjugate pairs of which one member each is kept (that with negative imaginary part).
Everything is float64 / complex128: these are initial values, computed once.

Sources: HiPPO (Gu et al. 2020, eq. 4), S4 (Gu et al. 2022, eq. 1 and appendix B.1: normal plus low rank),
S4D (Gu et al. 2022, section 4.3: S4D-LegS, S4D-Inv, S4D-Lin).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

DIAGONAL_INITS = ("legs", "lin", "inv")


class DPLRInit(NamedTuple):
    """HiPPO-LegS in the basis of its normal part: A = V (diag(Lambda) - P P*) V*, conjugates left out.

    Lambda  (n,) complex, ascending imaginary part, all negative
    P, B    (n,) complex, V* P and V* B
    V       (N, n) complex, unit eigenvectors of A + P P^T
    """

    Lambda: Tensor
    P: Tensor
    B: Tensor
    V: Tensor


def hippo_legs(N: int) -> tuple[Tensor, Tensor]:
    """Matrices A (N, N), B (N,) of HiPPO-LegS: A[n,k] = -sqrt((2n+1)(2k+1)) below, -(n+1) on, 0 above the diagonal."""
    if N < 1:
        raise ValueError(f"HiPPO-LegS needs a positive state size, got {N}")
    n = torch.arange(N, dtype=torch.float64)
    B = torch.sqrt(2 * n + 1)
    A = -torch.tril(B[:, None] * B[None, :], diagonal=-1) - torch.diag(n + 1)
    return A, B


def legs_low_rank(N: int) -> Tensor:
    """P (N,) for which A + P P^T of HiPPO-LegS is -1/2 I plus a skew-symmetric matrix: P[n] = sqrt(n + 1/2)."""
    return torch.sqrt(torch.arange(N, dtype=torch.float64) + 0.5)


def legs_dplr(N: int) -> DPLRInit:
    """HiPPO-LegS as diagonal plus low rank, one of every conjugate pair. N must be even.

    Eigenvectors are free up to a phase each, on which P, B and anything clipped later depend. It is fixed here, so
    that machines agree: the first component of every eigenvector is real and positive.
    """
    _check_even(N)
    A, B = hippo_legs(N)
    P = legs_low_rank(N)
    # A + P P^T = -1/2 I + skew: -i times the skew part is Hermitian, so eigh gives exact pairs and unitary V
    normal = A + P[:, None] * P[None, :]
    skew = 0.5 * (normal - normal.T)
    frequency, V = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    frequency, V = frequency[: N // 2], V[:, : N // 2]
    V = V * (V[0].conj() / V[0].abs())
    Lambda = torch.complex(torch.full_like(frequency, -0.5), frequency)
    Vh = V.conj().T
    return DPLRInit(Lambda, Vh @ P.to(V.dtype), Vh @ B.to(V.dtype), V)


def clip_imaginary(B: Tensor, limit: float = 2.0) -> Tensor:
    """Clamp the imaginary part of B to [-limit, limit], as the S4 code does at the start."""
    return torch.complex(B.real, B.imag.clamp(-limit, limit))


def diagonal_init(kind: str, N: int, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Initial A (n,) and B (n,), complex, of S4D: "legs" (the normal part of LegS), "lin" or "inv". N must be even.

    `dtype` is the real precision in which lin and inv are evaluated; legs is always computed in float64.
    """
    if kind not in DIAGONAL_INITS:
        raise ValueError(f"init {kind!r}: expected one of {', '.join(DIAGONAL_INITS)}")
    if kind == "legs":
        init = legs_dplr(N)
        return init.Lambda, init.B
    _check_even(N)
    n = torch.arange(N // 2, dtype=dtype)
    pi = torch.tensor(math.pi, dtype=dtype)
    imaginary = pi * n if kind == "lin" else 1 / pi * N * (N / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), -imaginary), torch.ones_like(n).to(dtype.to_complex())


def _check_even(N: int) -> None:
    if N < 2 or N % 2:
        raise ValueError(f"conjugate pairs need an even state size of at least 2, got {N}")
