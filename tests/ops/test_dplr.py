"""DPLR SSMs: both forms of the kernel against dense matrix powers, states against the dense recurrence, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zoo.ops.backend import use_backend
from zoo.ops.dplr import DPLRSSM
from zoo.ops.hippo import clip_imaginary, legs_dplr

LENGTHS = [1, 2, 3, 7, 33, 64, 127, 300]


def leaves(H: int = 3, N: int = 8, Ch: int = 2, r: int = 1, *, untied: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    init = legs_dplr(N)
    more = torch.randn(r - 1, N // 2, dtype=torch.complex128)
    tensors = {
        "Lambda": init.Lambda.repeat(H, 1),
        "P": torch.cat([init.P[None], more])[:, None].repeat(1, H, 1),
        "B": init.B.repeat(H, 1),
        "C": torch.randn(Ch, H, N // 2, dtype=torch.complex128),
        "dt": 0.01 + 0.1 * torch.rand(H, N // 2 if untied else 1, dtype=torch.float64),
    }
    return {k: v.requires_grad_() for k, v in tensors.items()}


def dense(p: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Abar (H, N, N), Bbar (H, N), C (Ch, H, N), complex, straight from the bilinear transform."""
    Lf, Pf, Bf, Cf = (torch.cat([p[k], p[k].conj()], -1) for k in ("Lambda", "P", "B", "C"))
    A = torch.diag_embed(Lf) - torch.einsum("ihm,ihn->hmn", Pf, Pf.conj())
    dt = p["dt"] if p["dt"].shape[1] == 1 else torch.cat([p["dt"]] * 2, -1)
    step = torch.diag_embed(dt.expand(Lf.shape)).to(A.dtype)
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    inverse = torch.linalg.inv(eye - step @ A / 2)
    return inverse @ (eye + step @ A / 2), (inverse @ step @ Bf[..., None])[..., 0], Cf


def dense_kernel(p: dict[str, Tensor], L: int) -> Tensor:
    A, column, C = dense(p)
    K = []
    for _ in range(L):
        K.append(torch.einsum("chn,hn->ch", C, column))
        column = torch.einsum("hmn,hn->hm", A, column)
    K = torch.stack(K, -1)
    assert K.imag.abs().max() < 1e-12 * K.abs().max()
    return K.real


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("L", LENGTHS)
def test_kernel_and_gradients(backend: str, L: int) -> None:
    p = leaves(r=1 + (L == 33), untied=L == 7)
    with use_backend(backend):
        K = DPLRSSM(**p).kernel(L, torch.float64)
    expected = dense_kernel(p, L)
    torch.testing.assert_close(K, expected, rtol=1e-9, atol=1e-11)
    cotangent = torch.randn_like(K)
    ours = torch.autograd.grad((K * cotangent).sum(), list(p.values()))
    theirs = torch.autograd.grad((expected * cotangent).sum(), list(p.values()))
    for name, a, b in zip(p, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * float(b.abs().max()), msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("L", [16, 1024, 2048, 2049, 4096, 16384])
def test_float32_kernel_is_exact_to_rounding(L: int) -> None:
    """The published float32 code is off by 1e-3 at L = 16384."""
    torch.manual_seed(0)
    init, H = legs_dplr(64), 3
    ssm = DPLRSSM(
        init.Lambda.repeat(H, 1),
        init.P.repeat(1, H, 1),
        clip_imaginary(init.B).repeat(H, 1),
        torch.randn(1, H, 32, dtype=torch.complex128),
        torch.tensor([[1e-4], [1e-3], [1e-1]], dtype=torch.float64),
    )
    exact = ssm.kernel(L, torch.float64)
    scale = exact.abs().amax((0, 2))
    assert ((ssm.kernel(L, torch.float32) - exact).abs().amax((0, 2)) / scale).max() < 3e-6
    with use_backend("reference"):
        other = ssm.kernel(L, torch.float64)
    assert ((other - exact).abs().amax((0, 2)) / scale).max() < 1e-9


@pytest.mark.parametrize(("L", "r"), [(1, 1), (2, 1), (31, 2), (500, 1), (2048, 2), (2049, 1)])
def test_float32_gradients_are_those_of_float64(L: int, r: int) -> None:
    """On both sides of 2 L = N², where the form of the float32 kernel changes."""
    p = leaves(H=5, N=64, Ch=2, r=r)
    cotangent = torch.randn(2, 5, L)
    exact = torch.autograd.grad((DPLRSSM(**p).kernel(L, torch.float64) * cotangent).sum(), list(p.values()))
    found = torch.autograd.grad((DPLRSSM(**p).kernel(L, torch.float32) * cotangent).sum(), list(p.values()))
    for name, a, b in zip(p, found, exact, strict=True):
        assert (a - b).abs().max() < 2e-5 * b.abs().max(), name


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("with_state", [False, True])
def test_state_response_and_step_are_the_dense_recurrence(L: int, with_state: bool) -> None:
    p = leaves(Ch=1, r=1 + (L == 33), untied=L == 7)
    ssm = DPLRSSM(**p)
    A, Bbar, C = dense(p)
    n = ssm.d_state
    x = torch.randn(4, 3, L, dtype=torch.float64, requires_grad=True)
    s0 = torch.randn(4, 3, n, dtype=torch.complex128, requires_grad=True)
    half = s0 if with_state else torch.zeros_like(s0)
    lengths = torch.tensor([L, L // 2, 0, max(L - 1, 0)])
    s, stepped, free = torch.cat([half, half.conj()], -1), half, torch.cat([half, half.conj()], -1)
    states, free_ys = [s], []
    for t in range(L):
        s = torch.einsum("hmn,bhn->bhm", A, s) + Bbar * x[..., t, None]
        free = torch.einsum("hmn,bhn->bhm", A, free)
        states.append(s)
        free_ys.append(torch.einsum("hn,bhn->bh", C[0], free).real)
        y_t, stepped = ssm.step(x[..., t], stepped)
        torch.testing.assert_close(stepped, s[..., :n])
        torch.testing.assert_close(y_t, torch.einsum("hn,bhn->bh", C[0], s).real)
    initial = s0 if with_state else None
    torch.testing.assert_close(ssm.final_state(x, None, initial), states[-1][..., :n])
    ragged = ssm.final_state(x.masked_fill(torch.arange(L) >= lengths[:, None, None], 0.0), lengths, initial)
    expected = torch.stack([states[k][b, :, :n] for b, k in enumerate(lengths.tolist())])
    torch.testing.assert_close(ragged, expected)
    over = [x, p["Lambda"], p["P"], p["B"], p["dt"]] + ([s0] if with_state else [])
    pairs = [(ragged, expected)]
    if with_state:
        pairs.append((ssm.response(s0, L), torch.stack(free_ys, -1)))
        torch.testing.assert_close(*pairs[-1])
    for got, true in pairs:
        weight = torch.randn_like(true)
        ours = torch.autograd.grad((got * weight).real.sum(), over, allow_unused=True, retain_graph=True)
        theirs = torch.autograd.grad((true * weight).real.sum(), over, allow_unused=True, retain_graph=True)
        for a, b in zip(ours, theirs, strict=True):
            if b is None or not b.any():
                assert a is None or not a.any()
            else:
                torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize(("N", "L"), [(32, 4096), (96, 4096)])
def test_no_trajectory_is_materialised(N: int, L: int) -> None:
    """The final state of (B, H, L) stays far below B H N L numbers in every array that it makes; so does the kernel."""
    B, H = 8, 4
    ssm = DPLRSSM(**{k: v.detach() for k, v in leaves(H=H, N=N, Ch=1).items()})
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        state = torch.zeros(B, H, N // 2, dtype=torch.complex64)
        ssm.final_state(torch.randn(B, H, L), torch.tensor([L, 17] * 4), state)
        ssm.response(state, L)
        ssm.kernel(L, torch.float32)
    assert largest <= B * H * L * 2
    assert largest < B * H * N * L / 8


def test_the_decay_is_a_contraction() -> None:
    """|Abar^l| <= 1 for LegS at any step size: what a state carries never grows."""
    p = leaves(N=16)
    for dt in (1e-4, 1e-2, 1.0, 100.0):
        A = DPLRSSM(p["Lambda"], p["P"], p["B"], p["C"], torch.full((3, 1), dt, dtype=torch.float64)).dense[0]
        assert torch.linalg.matrix_norm(A, 2).max() <= 1 + 1e-12
        assert math.isfinite(float(A.detach().abs().sum()))
