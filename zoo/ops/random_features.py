"""Random features of kernels: positive features of the softmax kernel, and ReLU features (Choromanski et al. 2021).

    exp(qᵀk/√d) = E[phi(q)ᵀ phi(k)],   phi(u) = m^(-1/2) exp(a - s),   a = W us,   s = |us|²/2,   us = d^(-1/4) u

with rows of W ~ N(0, I_d) (Lemma 1: positive features; hyperbolic: the mean over W and -W, 2m features). Rows that
are orthogonal within blocks of d, each still N(0, I_d) by itself, lower the variance (§2.4).

… leading dimensions, L positions, d head dimension, m features. The caller passes at least float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.ops.shapes import check_shapes

ROW_NORMS = ("gaussian", "sqrt_d")


def orthogonal_rows(blocks: Tensor, norms: Tensor) -> Tensor:
    """m directions (m, d), orthogonal within each block of d, scaled to the given norms.

    blocks  (ceil(m/d), d, d) Gaussian; of the last one only as many rows as needed are used
    norms   (m,)

    QR leaves the signs open, and LAPACK's choice depends on the matrix: the first row of a block would always have a
    negative first entry, and phi(q)ᵀ phi(k) a bias. With R's diagonal made positive, Q is uniform (Mezzadri 2007).
    """
    m, d = norms.shape[0], blocks.shape[-1]
    check_shapes("orthogonal_rows", {"blocks d d": {"blocks": blocks}}, blocks=math.ceil(m / d))
    Q, R = torch.linalg.qr(blocks)
    signs = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Q.dtype)
    rows = (Q * signs[:, None, :]).transpose(-1, -2).reshape(-1, d)[:m]
    return rows * norms[:, None]


def draw_features(
    m: int, d: int, *, seed: int, row_norms: str = "gaussian", dtype: torch.dtype | None = None
) -> Tensor:
    """Draw W (m, d) float64 on the CPU as a pure function of the arguments: the same on every machine of a run.

    row_norms  gaussian: norms of independent Gaussian rows, so that each row is N(0, I_d) | sqrt_d: all √d
    """
    if row_norms not in ROW_NORMS:
        raise ValueError(f"row_norms {row_norms!r}: expected one of {', '.join(ROW_NORMS)}")
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randn(math.ceil(m / d), d, d, generator=generator, dtype=torch.float64)
    gaussian = torch.randn(m, d, generator=generator, dtype=torch.float64)
    norms = gaussian.norm(dim=-1) if row_norms == "gaussian" else torch.full((m,), math.sqrt(d), dtype=torch.float64)
    return orthogonal_rows(blocks, norms)


def exponents(u: Tensor, W: Tensor, *, hyperbolic: bool = False) -> tuple[Tensor, Tensor]:
    """The exponents a = ±W us and s = |us|²/2: u (…, L, d), W (m, d) -> (…, L, m or 2m), (…, L, 1)."""
    us = u * u.shape[-1] ** -0.25
    a = us @ W.T
    if hyperbolic:
        a = torch.cat([a, -a], dim=-1)
    return a, us.square().sum(-1, keepdim=True) / 2


def positive_features(a: Tensor, s: Tensor, shift: Tensor | None = None, eps: float = 0.0) -> Tensor:
    """Positive features M^(-1/2) (exp(a - s - shift) + eps) over the M features: a (…, L, M), s (…, L, 1) -> (…, L, M).

    shift  broadcastable to (…, L, 1), subtracted against overflow; it cancels in a quotient of two sums over keys if
           it is the same for all features and keys (except in eps, which is added after it)
    """
    exponent = a - s if shift is None else a - s - shift
    return (exponent.exp() + eps) * a.shape[-1] ** -0.5


def relu_features(u: Tensor, W: Tensor | None, *, scaled: bool, eps: float = 1e-3) -> Tensor:
    """Generalised-kernel features relu(W us) + eps, or relu(us) + eps without W: u (…, L, d) -> (…, L, m or d).

    scaled  us = d^(-1/4) u, as in lucidrains' port; otherwise us = u, as in the authors' flax code
    """
    us = u * u.shape[-1] ** -0.25 if scaled else u
    return torch.relu(us if W is None else us @ W.T) + eps
