"""FFT convolution against its definition, written out once more here as double sums."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.ops.backend import forms_that_ran, use_backend
from zoo.ops.fftconv import fft_conv
from zoo.ops.fftconv.fft import fast_length

KERNEL = st.integers(1, 50)


def toeplitz(k: Tensor, k_back: Tensor | None, L: int) -> Tensor:
    """(H, L, L) with y = T x."""
    T = k.new_zeros(k.shape[0], L, L)
    for t in range(L):
        for s in range(L):
            if s <= t and t - s < k.shape[1]:
                T[:, t, s] = k[:, t - s]
            if s > t and k_back is not None and s - t - 1 < k_back.shape[1]:
                T[:, t, s] = k_back[:, s - t - 1]
    return T


@pytest.mark.parametrize("backend", ["torch", "reference"])
@settings(max_examples=40, deadline=None)
@given(
    L=st.integers(1, 40), Lk=st.integers(1, 50), Lb=st.one_of(st.none(), st.integers(1, 50)), seed=st.integers(0, 99)
)
def test_definition_and_gradients(backend: str, L: int, Lk: int, Lb: int | None, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    new = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=g).requires_grad_()  # noqa: E731
    x, k, k_back = new(2, 3, L), new(3, Lk), None if Lb is None else new(3, Lb)
    cotangent = new(2, 3, L).detach()
    leaves = [x, k] + ([] if k_back is None else [k_back])
    with use_backend(backend):
        y = fft_conv(x, k, k_back)
    expected = torch.einsum("hts,bhs->bht", toeplitz(k, k_back, L), x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    ours = torch.autograd.grad((y * cotangent).sum(), leaves, allow_unused=True)
    theirs = torch.autograd.grad((expected * cotangent).sum(), leaves, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None:  # L = 1 has no next token for the backward kernel to see
            assert L == 1
            assert a is None or not a.any()
            assert b is None or not b.any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_causal_and_rows_apart() -> None:
    x = torch.randn(2, 3, 31, dtype=torch.float64, requires_grad=True)
    y = fft_conv(x, torch.randn(3, 31, dtype=torch.float64))
    (leak,) = torch.autograd.grad(y[0, :, 10].sum(), x)
    assert leak[0, :, 11:].abs().max() < 1e-12 * leak[0].abs().max()
    assert (leak[1] == 0).all()


def test_only_the_kernel_needs_a_gradient_or_only_x() -> None:
    x, k = torch.randn(2, 3, 9, dtype=torch.float64), torch.randn(3, 9, dtype=torch.float64)
    (dk,) = torch.autograd.grad(fft_conv(x, k.requires_grad_()).sum(), k)
    (dx,) = torch.autograd.grad(fft_conv(x.requires_grad_(), k.detach()).sum(), x)
    torch.testing.assert_close(dk[:, 0], x.sum((0, 2)).detach())
    torch.testing.assert_close(dx[:, :, -1], k[:, 0].expand(2, 3).detach())


def test_precision() -> None:
    x, k = torch.randn(2, 3, 1000), torch.randn(3, 1000)
    exact = fft_conv(x.double(), k.double())
    assert exact.dtype == torch.float64
    assert (fft_conv(x, k) - exact).abs().max() < 2e-6 * exact.abs().max()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = fft_conv(x.bfloat16(), k)
        assert low.dtype == torch.bfloat16
        torch.testing.assert_close(low, fft_conv(x.bfloat16().float(), k).bfloat16())
        assert (fft_conv(x, k) - exact).abs().max() < 2e-6 * exact.abs().max()


@given(n=st.integers(1, 100_000))
def test_fast_length(n: int) -> None:
    m = fast_length(n)
    assert m >= n
    assert m % 2 == 0
    for prime in (2, 3, 5):
        while m % prime == 0:
            m //= prime
    assert m == 1


def test_fast_length_is_the_smallest() -> None:
    assert [fast_length(n) for n in (1, 2, 3, 7, 13, 17, 2047, 2049, 32767)] == [2, 2, 4, 8, 16, 18, 2048, 2160, 32768]


def test_the_form_is_noted_for_the_record() -> None:
    forms_that_ran(reset=True)
    fft_conv(torch.randn(1, 1, 4), torch.randn(1, 4))
    assert forms_that_ran()["fft_conv"] == "torch"
