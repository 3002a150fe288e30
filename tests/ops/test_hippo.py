"""HiPPO-LegS: the normal-plus-low-rank identity, its diagonal form, and the S4D initial values."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.ops.hippo import clip_imaginary, diagonal_init, hippo_legs, legs_dplr, legs_low_rank


@pytest.mark.parametrize("N", [2, 4, 16, 64])
def test_legs_plus_low_rank_is_normal(N: int) -> None:
    A, _ = hippo_legs(N)
    P = legs_low_rank(N)
    normal = A + torch.outer(P, P)
    skew = normal + 0.5 * torch.eye(N, dtype=torch.float64)
    torch.testing.assert_close(skew, -skew.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("N", [2, 4, 16, 64])
def test_dplr_rebuilds_legs(N: int) -> None:
    """V (diag(Lambda) - P P*) V* over whole conjugate pairs is A, and V maps B back."""
    A, B = hippo_legs(N)
    init = legs_dplr(N)
    V = torch.cat([init.V, init.V.conj()], 1)
    Lambda, P, b = (torch.cat([half, half.conj()]) for half in (init.Lambda, init.P, init.B))
    torch.testing.assert_close(V.mH @ V, torch.eye(N, dtype=V.dtype), rtol=0, atol=1e-10)
    rebuilt = V @ (torch.diag(Lambda) - torch.outer(P, P.conj())) @ V.mH
    torch.testing.assert_close(rebuilt, A.to(V.dtype), rtol=1e-9, atol=1e-9 * N)
    torch.testing.assert_close(V @ b, B.to(V.dtype), rtol=1e-9, atol=1e-9)
    assert (init.Lambda.imag < 0).all()
    assert (init.Lambda.imag.diff() > 0).all()


def test_phase_is_fixed() -> None:
    first = legs_dplr(32).V[0]
    assert (first.real > 0).all()
    torch.testing.assert_close(first.imag, torch.zeros(16, dtype=torch.float64), rtol=0, atol=1e-15)


def test_diagonal_inits() -> None:
    A, B = diagonal_init("lin", 6)
    torch.testing.assert_close(A.imag, torch.tensor([0.0, -math.pi, -2 * math.pi], dtype=torch.float64))
    A, B = diagonal_init("inv", 6)
    expected = [-(6 / math.pi) * (6 / (2 * n + 1) - 1) for n in range(3)]
    torch.testing.assert_close(A.imag, torch.tensor(expected, dtype=torch.float64))
    assert (B == 1).all()
    assert (A.real == -0.5).all()
    torch.testing.assert_close(diagonal_init("legs", 6)[0], legs_dplr(6).Lambda)


def test_clip() -> None:
    B = torch.tensor([1 + 3j, -5 - 9j, 0.5 + 1j], dtype=torch.complex128)
    torch.testing.assert_close(clip_imaginary(B), torch.tensor([1 + 2j, -5 - 2j, 0.5 + 1j], dtype=torch.complex128))


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"even state size.*7"):
        legs_dplr(7)
    with pytest.raises(ValueError, match=r"'fout'.*legs, lin, inv"):
        diagonal_init("fout", 8)
    with pytest.raises(ValueError, match="got 0"):
        hippo_legs(0)
    with pytest.raises(ValueError, match="got 3"):
        diagonal_init("lin", 3)
