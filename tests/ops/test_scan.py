"""The diagonal scan: both forms against dense matrices, decays that vary, gradients, directions, states, precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.ops.backend import forms_that_ran, use_backend
from zoo.ops.scan import diagonal_scan
from zoo.ops.scan.chunked import STEPS

LENGTHS = [1, 2, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS, 3 * STEPS + 5, STEPS * STEPS + STEPS + 3]


def system(L: int, B: int = 3, P: int = 5, dtype: torch.dtype = torch.complex128) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(L)
    a = torch.polar(
        torch.rand(P, generator=g, dtype=torch.float64) * 0.3 + 0.7,
        torch.rand(P, generator=g, dtype=torch.float64) * 6,
    )
    a = a if dtype.is_complex else a.real
    v = torch.randn(B, L, P, generator=g, dtype=dtype)
    return a, v, torch.randn(B, P, generator=g, dtype=dtype)


def dense(a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
    """x_t = a^(t+1) x0 + sum_{s<=t} a^(t-s) v_s by a matrix of powers, one state after the other."""
    L = v.shape[1]
    t = torch.arange(L)
    lag = (t[None, :] - t[:, None]) if reverse else (t[:, None] - t[None, :])
    M = torch.where(lag >= 0, a[:, None, None] ** lag.clamp(min=0), 0)  # (P, L, L)
    after = a ** ((L - t if reverse else t + 1)[:, None])
    return torch.einsum("pts,bsp->btp", M, v) + after * x0[:, None]


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_forms_equal_the_dense_sum(L: int, reverse: bool, dtype: torch.dtype) -> None:
    leaves = tuple(x.requires_grad_() for x in system(L, dtype=dtype))
    weight = system(L + 1, dtype=dtype)[1][:, :L]
    expected = dense(*leaves, reverse)
    grads = torch.autograd.grad((expected * weight).sum().abs(), leaves)
    for form in ("torch", "reference"):
        forms_that_ran(reset=True)
        with use_backend(form):
            x = diagonal_scan(*leaves, reverse=reverse)
        assert forms_that_ran() == {"diagonal_scan": form}
        torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)
        actual = torch.autograd.grad((x * weight).sum().abs(), leaves)
        for ours, theirs in zip(actual, grads, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradcheck(reverse: bool) -> None:
    leaves = tuple(x.requires_grad_() for x in system(2 * STEPS + 3, B=1, P=2))
    assert torch.autograd.gradcheck(lambda a, v, x0: diagonal_scan(a, v, x0, reverse=reverse), leaves)


def test_pieces_equal_the_whole_and_carry_gradient() -> None:
    a, v, x0 = (x.requires_grad_() for x in system(101))
    weight = system(102)[1][:, :101]
    whole = diagonal_scan(a, v, x0)
    state, pieces = x0, []
    for piece in v.split([1, 40, 17, 43], 1):
        pieces.append(diagonal_scan(a, piece, state))
        state = pieces[-1][:, -1]
    ours = torch.cat(pieces, 1)
    torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad((whole * weight).sum().real, (a, v, x0))
    for g, e in zip(torch.autograd.grad((ours * weight).sum().real, (a, v, x0)), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-10, atol=1e-10)


def test_single_precision_over_many_tokens() -> None:
    """Slow decay over 16,384 tokens: as good as the definition in the same precision."""
    P, L = 4, 16_384
    g = torch.Generator().manual_seed(0)
    a = torch.polar(torch.full((P,), 1 - 1e-5, dtype=torch.float64), torch.rand(P, generator=g, dtype=torch.float64))
    v = torch.randn(1, L, P, generator=g, dtype=torch.complex128)
    exact = diagonal_scan(a, v)
    single = diagonal_scan(a, v.to(torch.complex64))
    assert single.dtype == torch.complex64
    with use_backend("reference"):
        slow = diagonal_scan(a, v.to(torch.complex64))
    error = (single - exact).abs().max() / exact.abs().max()
    assert error < 2e-6
    assert error <= (slow - exact).abs().max() / exact.abs().max()


def test_dtypes() -> None:
    a, v, _ = system(20)
    real = v.real.contiguous()
    assert diagonal_scan(a, real).dtype == torch.complex128
    assert diagonal_scan(a.real.contiguous(), real.float()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert diagonal_scan(a, v.to(torch.complex64)).dtype == torch.complex64
    half, decays = real.bfloat16(), torch.rand(3, 20, 5).bfloat16()
    x = diagonal_scan(decays, half)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, diagonal_scan(decays.double(), half.double()).float())


def varying(
    L: int, B: int = 2, P: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Decays (B, L, P) of any size up to 1, a tenth of them 0, and inputs."""
    g = torch.Generator().manual_seed(seed)
    size = torch.rand(B, L, P, generator=g, dtype=torch.float64) ** torch.rand(P, generator=g, dtype=torch.float64)
    size *= torch.rand(B, L, P, generator=g) > 0.1
    angle = torch.rand(B, L, P, generator=g, dtype=torch.float64) * 6
    a = torch.polar(size, angle) if dtype.is_complex else size
    return a, torch.randn(B, L, P, generator=g, dtype=dtype), torch.randn(B, P, generator=g, dtype=dtype)


def dense_varying(a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
    """The same by matrices M[t,s] = a_t a_(t-1) … a_(s+1) for every state."""
    if reverse:
        return dense_varying(a.flip(1), v.flip(1), x0, False).flip(1)
    M = torch.eye(v.shape[1] + 1, dtype=a.dtype).repeat(*a[:, 0].shape, 1, 1)  # (B, P, t, s), x0 as the first input
    rows = [M[..., 0, :]]
    for t in range(v.shape[1]):
        rows.append(rows[-1] * a[:, t, :, None] + M[..., t + 1, :])
    return torch.einsum("bpts,bsp->btp", torch.stack(rows, 2), torch.cat([x0[:, None], v], 1))[:, 1:]


@settings(max_examples=25, deadline=None)
@given(
    L=st.integers(1, STEPS * STEPS + STEPS + 3) | st.integers(1, 3 * STEPS),
    B=st.integers(1, 3),
    P=st.integers(1, 3),
    dtype=st.sampled_from([torch.float64, torch.complex128]),
    reverse=st.booleans(),
    form=st.sampled_from(["torch", "reference"]),
    seed=st.integers(0, 99),
)
def test_decays_that_vary_with_time(
    L: int, B: int, P: int, dtype: torch.dtype, reverse: bool, form: str, seed: int
) -> None:
    leaves = tuple(x.requires_grad_() for x in varying(L, B, P, dtype, seed))
    expected = dense_varying(*leaves, reverse)
    with use_backend(form):
        x = diagonal_scan(*leaves, reverse=reverse)
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    ours, theirs = (torch.autograd.grad((y * weight).sum().abs(), leaves) for y in (x, expected))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradcheck_with_decays_that_vary(reverse: bool, dtype: torch.dtype) -> None:
    leaves = tuple(x.requires_grad_() for x in varying(2 * STEPS + 3, B=1, P=2, dtype=dtype))
    assert torch.autograd.gradcheck(lambda a, v, x0: diagonal_scan(a, v, x0, reverse=reverse), leaves)


@pytest.mark.parametrize("constant", [False, True])
def test_masked_tokens_leave_the_state_as_it_was(constant: bool) -> None:
    a, v, x0 = varying(70, B=3)
    a = a[0, 0] if constant else a
    mask = torch.rand(3, 70, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[0, 50:], mask[1] = False, False
    x = diagonal_scan(a, v, x0, mask=mask)
    for b, row in enumerate(mask):
        if row.any():
            alone = diagonal_scan(a if constant else a[b, row][None], v[b, row][None], x0[b, None])[0]
            torch.testing.assert_close(x[b, row], alone)
        torch.testing.assert_close(x[b, -1], alone[-1] if row.any() else x0[b])


def test_pieces_with_decays_that_vary_equal_the_whole() -> None:
    a, v, x0 = (x.requires_grad_() for x in varying(101))
    whole = diagonal_scan(a, v, x0)
    state, pieces = x0, []
    for piece, decays in zip(v.split([1, 40, 17, 43], 1), a.split([1, 40, 17, 43], 1), strict=True):
        pieces.append(diagonal_scan(decays, piece, state))
        state = pieces[-1][:, -1]
    ours = torch.cat(pieces, 1)
    torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(whole.square().sum(), (a, v, x0))
    for g, e in zip(torch.autograd.grad(ours.square().sum(), (a, v, x0)), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-10, atol=1e-10)


def test_single_precision_with_decays_that_vary_over_many_tokens() -> None:
    a, v, _ = varying(16_384, B=1)
    a = 1 - 1e-4 * a
    single = diagonal_scan(a.float(), v.float())
    assert (single - diagonal_scan(a.float().double(), v)).abs().max() < 1e-5 * single.abs().max()


def test_the_input_is_not_written_to() -> None:
    a, v, x0 = system(50)
    kept = v.clone()
    diagonal_scan(a, v, x0)
    assert torch.equal(v, kept)


@pytest.mark.parametrize(
    ("a", "v", "x0", "message"),
    [
        ((5,), (2, 7, 4), None, r"v has shape \(2, 7, 4\), expected .*states=5"),
        ((4,), (2, 0, 4), None, "seq_len >= 1"),
        ((2, 7, 5), (2, 7, 4), None, r"a has shape .*states=4"),
        ((2, 4), (2, 7, 4), None, r"a has shape \(2, 4\), expected \(batch=2, seq_len=7, states=4\)"),
        ((4,), (2, 7, 4), (3, 4), r"x0 has shape \(3, 4\), expected \(batch=2, states=4\)"),
    ],
)
def test_wrong_shapes_are_refused(
    a: tuple[int, ...], v: tuple[int, ...], x0: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        diagonal_scan(torch.ones(a), torch.ones(v), None if x0 is None else torch.ones(x0))
