"""Diagonal SSMs: kernel against the Vandermonde sum, states and responses against the recurrence, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo.ops.backend import use_backend
from zoo.ops.complex import geometric, power, power_of_rows
from zoo.ops.diagonal import DiagonalSSM, discretize_diagonal
from zoo.ops.hippo import diagonal_init

LENGTHS = [1, 2, 3, 7, 33, 64, 127, 300]


def leaves(H: int = 3, N: int = 8, Ch: int = 2, *, untied: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    n = N // 2
    A = diagonal_init("lin", N)[0].repeat(H, 1) * (1 + 0.1 * torch.rand(H, n))
    new = lambda *shape: torch.randn(*shape, dtype=torch.complex128)  # noqa: E731
    dt = 0.01 + 0.2 * torch.rand(H, n if untied else 1, dtype=torch.float64)
    return {k: v.requires_grad_() for k, v in {"A": A, "B": new(H, n), "C": new(Ch, H, n), "dt": dt}.items()}


def system(p: dict[str, Tensor], method: str = "zoh") -> DiagonalSSM:
    return DiagonalSSM(*discretize_diagonal(p["A"], p["B"], p["dt"], method), p["C"])


def dense_kernel(p: dict[str, Tensor], method: str, L: int) -> Tensor:
    """The formulas of the paper, term by term."""
    a = p["dt"] * p["A"]
    if method == "zoh":
        b = p["B"] * (torch.exp(a) - 1) / p["A"]
        terms = [torch.exp(a * t) for t in range(L)]
    else:
        b = p["B"] * p["dt"] / (1 - a / 2)
        terms = [((1 + a / 2) / (1 - a / 2)) ** t if t else torch.ones_like(a) for t in range(L)]
    return torch.stack([2 * (p["C"] * b * term).sum(-1).real for term in terms], -1)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("method", ["zoh", "bilinear"])
@pytest.mark.parametrize("L", LENGTHS)
def test_kernel_and_gradients(backend: str, method: str, L: int) -> None:
    p = leaves(untied=L % 2 == 1)
    with use_backend(backend):
        K = system(p, method).kernel(L, torch.float64)
    expected = dense_kernel(p, method, L)
    torch.testing.assert_close(K, expected, rtol=1e-9, atol=1e-11)
    cotangent = torch.randn_like(K)
    ours = torch.autograd.grad((K * cotangent).sum(), list(p.values()))
    theirs = torch.autograd.grad((expected * cotangent).sum(), list(p.values()))
    for name, a, b in zip(p, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()), msg=lambda m, n=name: f"{n}: {m}")


def test_float32_kernel_is_exact_to_rounding() -> None:
    A, B = (z.to(torch.complex64).repeat(4, 1) for z in diagonal_init("inv", 64))
    C = torch.randn(1, 4, 32, dtype=torch.complex64)
    ssm = DiagonalSSM(*discretize_diagonal(A, B, torch.tensor([[1e-4], [1e-3], [1e-2], [1e-1]]), "zoh"), C)
    for L in (1024, 16384):
        exact = ssm.kernel(L, torch.float64)
        error = (ssm.kernel(L, torch.float32) - exact).abs().amax((0, 2)) / exact.abs().amax((0, 2))
        assert error.max() < 2e-6


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("with_state", [False, True])
def test_state_and_response_are_the_recurrence(L: int, with_state: bool) -> None:
    p = leaves(Ch=1)
    ssm = system(p)
    x = torch.randn(4, 3, L, dtype=torch.float64, requires_grad=True)
    s0 = torch.randn(4, 3, 4, dtype=torch.complex128, requires_grad=True)
    s = s0 if with_state else torch.zeros_like(s0)
    lengths = torch.tensor([L, L // 2, 0, max(L - 1, 0)])
    states, ys, zero = [s], [], torch.zeros(4, 3, dtype=torch.float64)
    free, free_ys = s, []
    for t in range(L):
        y_t, s = ssm.step(x[..., t], s)
        f_t, free = ssm.step(zero, free)
        states.append(s)
        ys.append(y_t)
        free_ys.append(f_t)
    initial = s0 if with_state else None
    torch.testing.assert_close(ssm.final_state(x, None, initial), states[-1])
    ragged = ssm.final_state(x.masked_fill(torch.arange(L) >= lengths[:, None, None], 0.0), lengths, initial)
    expected = torch.stack([states[n][b] for b, n in enumerate(lengths.tolist())])
    torch.testing.assert_close(ragged, expected)
    if with_state:
        torch.testing.assert_close(ssm.response(s0, L), torch.stack(free_ys, -1))
    over = [x, p["A"], p["B"], p["dt"]] + ([s0] if with_state else [])
    pairs = [(ragged, expected)]
    if with_state:
        pairs.append((ssm.response(s0, L), torch.stack(free_ys, -1)))
    for got, true in pairs:
        weight = torch.randn_like(true)
        ours = torch.autograd.grad((got * weight).real.sum(), over, allow_unused=True, retain_graph=True)
        theirs = torch.autograd.grad((true * weight).real.sum(), over, allow_unused=True, retain_graph=True)
        for a, b in zip(ours, theirs, strict=True):
            if b is None or not b.any():
                assert a is None or not a.any()
            else:
                torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * float(b.abs().max()))


def test_powers_of_zero() -> None:
    """A bilinear step of exactly -2/A makes a = 0: its powers are 1, 0, 0, …, not NaN."""
    a = torch.tensor([[0.0 + 0j, 0.5 + 0.5j]], dtype=torch.complex128)
    torch.testing.assert_close(geometric(a, 5)[0], torch.stack([a[0] ** i for i in range(5)], -1))
    assert power(a, 0).tolist() == [[1, 1]]
    torch.testing.assert_close(power(a, 13), a**13)
    rows = power_of_rows(a, torch.tensor([0, 1, 6, 13]), 13)
    torch.testing.assert_close(rows[:, 0], torch.stack([a[0] ** i for i in (0, 1, 6, 13)]))


def test_an_unknown_discretisation_is_refused() -> None:
    p = leaves()
    with pytest.raises(ValueError, match="'tustin'"):
        discretize_diagonal(p["A"], p["B"], p["dt"], "tustin")


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("L", [1, 5, 40, 300])
def test_real_systems_are_their_recurrence(backend: str, L: int) -> None:
    """Real a, b, c: no conjugates, so no "2 Re". Kernel, states of ragged rows, response and steps."""
    torch.manual_seed(0)
    a, b, c = torch.rand(3, 4).double(), torch.randn(3, 4).double(), torch.randn(1, 3, 4).double()
    ssm = DiagonalSSM(a, b, c)
    x, start = torch.randn(2, 3, L).double(), torch.randn(2, 3, 4).double()
    lengths = torch.tensor([L, L // 2])
    state, ys, after = start, [], [start]
    for x_t in x.unbind(-1):
        state = a * state + b * x_t[..., None]
        ys.append((c[0] * state).sum(-1))
        after.append(state)
    with use_backend(backend):
        K = ssm.kernel(L, torch.float64)[0]
    response = ssm.response(start, L)
    y = torch.stack([(K[:, : t + 1].flip(-1) * x[..., : t + 1]).sum(-1) for t in range(L)], -1) + response
    torch.testing.assert_close(y, torch.stack(ys, -1), rtol=1e-10, atol=1e-12)
    expected = torch.stack([after[int(n)][row] for row, n in enumerate(lengths)])
    torch.testing.assert_close(ssm.final_state(x, lengths, start), expected, rtol=1e-10, atol=1e-12)
    y_1, state_1 = ssm.step(x[..., 0], start)
    torch.testing.assert_close([y_1, state_1], [ys[0], after[1]])
    assert state_1.dtype == torch.float64
