"""Random features: expectation, orthogonality and seeding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.ops.random_features import draw_features, exponents, orthogonal_rows, positive_features, relu_features

FEW = settings(max_examples=25, deadline=None)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@FEW
@given(m=st.integers(1, 40), d=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_rows_are_orthogonal_within_blocks_and_have_the_requested_norms(m: int, d: int, seed: int) -> None:
    W = draw_features(m, d, seed=seed, row_norms="sqrt_d")
    assert W.shape == (m, d)
    for block in W.split(d):
        torch.testing.assert_close(block @ block.T, d * torch.eye(block.shape[0], dtype=W.dtype))


def test_features_are_a_function_of_the_seed() -> None:
    before = torch.random.get_rng_state()
    one, again, other = (draw_features(20, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.isclose(one, other).any()
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_row_is_gaussian() -> None:
    """First and second moments of every entry, and the mean length: QR with LAPACK's signs fails the first."""
    draws = torch.stack([draw_features(5, 3, seed=seed) for seed in range(4000)])  # (N, m, d)
    assert draws.mean(0).abs().max() < 0.08
    assert (draws.square().mean(0) - 1).abs().max() < 0.12
    lengths = draws.norm(dim=-1).mean(0)
    assert (lengths - math.sqrt(2) * math.gamma(2) / math.gamma(1.5)).abs().max() < 0.05


@pytest.mark.parametrize("hyperbolic", [False, True])
def test_features_have_the_kernel_as_their_mean(hyperbolic: bool) -> None:
    d = 4
    q, k = 0.6 * noise(3, d, seed=1), 0.6 * noise(3, d, seed=2)
    blocks, gaussian = noise(30000, d, d, seed=3), noise(30000 * d, d, seed=4)
    W = orthogonal_rows(blocks, gaussian.norm(dim=-1))
    phi_q, phi_k = (positive_features(*exponents(u, W, hyperbolic=hyperbolic)) for u in (q, k))
    torch.testing.assert_close(phi_q @ phi_k.T, (q @ k.T / math.sqrt(d)).exp(), rtol=0.03, atol=0.0)


def test_orthogonal_rows_have_less_variance_than_independent_ones() -> None:
    d, n = 8, 20000
    q, k = 0.5 * noise(1, d, seed=1), 0.5 * noise(1, d, seed=2)

    def spread(W: torch.Tensor) -> float:
        """Variance of the estimate from d rows, over n draws."""
        each = positive_features(*exponents(q, W)) * positive_features(*exponents(k, W))
        return float(each.view(n, d).sum(1).var())

    orthogonal = orthogonal_rows(noise(n, d, d, seed=3), noise(n * d, d, seed=4).norm(dim=-1))
    assert spread(orthogonal) < 0.9 * spread(noise(n * d, d, seed=5))


def test_a_shift_leaves_the_quotient_as_it_is() -> None:
    W, k = draw_features(16, 4, seed=0), noise(2, 7, 4)
    plain = positive_features(*exponents(k, W))
    shifted = positive_features(*exponents(k, W), shift=torch.tensor(3.0, dtype=torch.float64))
    torch.testing.assert_close(shifted * math.exp(3.0), plain)


def test_relu_features() -> None:
    u, W = noise(2, 5, 4), noise(6, 4, seed=1)
    torch.testing.assert_close(relu_features(u, None, scaled=False), u.clamp_min(0) + 1e-3)
    torch.testing.assert_close(relu_features(u, W, scaled=True, eps=0.5), (u @ W.T / 4**0.25).clamp_min(0) + 0.5)


def test_errors_name_the_argument_and_its_numbers() -> None:
    with pytest.raises(ValueError, match=r"blocks has shape \(2, 4, 4\), expected \(blocks=3, d, d\)"):
        orthogonal_rows(noise(2, 4, 4), torch.ones(9))
    with pytest.raises(ValueError, match="'unit': expected one of gaussian, sqrt_d"):
        draw_features(4, 4, seed=0, row_norms="unit")
