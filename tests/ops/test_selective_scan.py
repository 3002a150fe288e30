"""The selective scan: its forms against the loop that defines it, gradients, and the carried state."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from zoo import ConfigError
from zoo.ops.backend import forms_that_ran, survey, use_backend
from zoo.ops.selective_scan import chunked, forms_on, numba, scan_reference, selective_scan, selective_scan_step
from zoo.ops.selective_scan.chunked import ChunkedScan
from zoo.ops.selective_scan.numba import NumbaScan

Scan = Callable[..., tuple[Tensor, Tensor]]
ON_CPU = pytest.mark.parametrize("scan", [ChunkedScan.apply, NumbaScan.apply], ids=["torch", "numba"])


def core_inputs(batch: int, seq_len: int, D: int, N: int, seed: int = 0, dtype: torch.dtype = torch.float64):
    """u, delta, A, B, C, h0 as leaves."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_()

    def positive(*shape: int) -> Tensor:
        return F.softplus(torch.randn(shape, generator=g, dtype=torch.float64)).to(dtype)

    return (
        normal(batch, seq_len, D),
        positive(batch, seq_len, D).requires_grad_(),
        (-positive(D, N)).requires_grad_(),
        normal(batch, seq_len, N),
        normal(batch, seq_len, N),
        normal(batch, D, N),
    )


def outputs_and_gradients(scan: Scan, inputs: tuple[Tensor, ...], seed: int = 1) -> list[Tensor]:
    """y, h_last and the gradient of a random functional of both for every input."""
    y, h = scan(*inputs)
    g = torch.Generator().manual_seed(seed)
    cotangents = [torch.randn(x.shape, generator=g, dtype=torch.float64).to(x.dtype) for x in (y, h)]
    loss = (y * cotangents[0]).sum() + (h * cotangents[1]).sum()
    return [y.detach(), h.detach(), *torch.autograd.grad(loss, inputs)]


def assert_same(ours: list[Tensor], theirs: list[Tensor], rtol: float, atol: float) -> None:
    for name, a, b in zip(("y", "h", "du", "ddelta", "dA", "dB", "dC", "dh0"), ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 5),
    seq_len=st.integers(1, 70),
    D=st.integers(1, 9),
    N=st.integers(1, 6),
    rows=st.integers(1, 5),
    steps=st.integers(1, 33),
)
def test_chunked_equals_the_loop(batch: int, seq_len: int, D: int, N: int, rows: int, steps: int) -> None:
    """Whatever the chunk and the group of rows are, divisors of L and B or not."""
    inputs = core_inputs(batch, seq_len, D, N, seed=seq_len)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "chunk_sizes", lambda *_: (min(rows, batch), min(steps, seq_len)))
        ours = outputs_and_gradients(ChunkedScan.apply, inputs)
    assert_same(ours, outputs_and_gradients(scan_reference, inputs), 1e-9, 1e-10)


def assert_near_float64(scan: Scan, inputs: tuple[Tensor, ...], tolerance: float) -> None:
    """Outputs and gradients in float32 against the loop in float64, relative to the largest of each, or to 1."""
    wide = tuple(x.detach().double().requires_grad_() for x in inputs)
    theirs = [x.float() for x in outputs_and_gradients(scan_reference, wide)]
    scales = [x.abs().amax().clamp(min=1) for x in theirs]
    ours = [x / scale for x, scale in zip(outputs_and_gradients(scan, inputs), scales, strict=True)]
    assert_same(ours, [x / scale for x, scale in zip(theirs, scales, strict=True)], 0, tolerance)


@ON_CPU
@pytest.mark.parametrize("shape", [(3, 150, 64, 16), (9, 40, 96, 16), (1, 300, 16, 4)])
def test_in_float32(scan: Scan, shape: tuple[int, int, int, int]) -> None:
    """At sizes with several chunks and groups of rows."""
    rows, steps = chunked.chunk_sizes(*shape)
    assert steps < shape[1] or rows < shape[0]
    assert_near_float64(scan, core_inputs(*shape, dtype=torch.float32), 3e-6)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(0, 5),
    seq_len=st.integers(1, 70),
    D=st.integers(1, 40),
    N=st.integers(1, 6),
    steps=st.integers(1, 33),
    threads=st.integers(1, 3),
)
def test_numba_equals_the_loop(batch: int, seq_len: int, D: int, N: int, steps: int, threads: int) -> None:
    """Whatever the chunk and the number of threads are, and wherever the inputs stand in memory."""
    inputs = [x.detach() for x in core_inputs(batch, seq_len, D, N, seed=seq_len, dtype=torch.float32)]
    inputs[3] = torch.cat([inputs[3], inputs[3]], -1)[..., :N]
    inputs[2] = inputs[2].t().contiguous().t()
    leaves = tuple(x.requires_grad_() for x in inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba, "chunk_sizes", lambda *_: (1, min(steps, seq_len)))
        patch.setattr(numba, "THREAD_ELEMENTS", 1)
        patch.setattr(torch, "get_num_threads", lambda: threads)
        if batch:
            assert_near_float64(NumbaScan.apply, leaves, 1e-5)
        else:
            shapes = [tuple(x.shape) for x in outputs_and_gradients(NumbaScan.apply, leaves)[2:]]
            assert shapes == [tuple(x.shape) for x in leaves]


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = core_inputs(5, 50, 24, 4, dtype=torch.float32)
    one = outputs_and_gradients(NumbaScan.apply, inputs)
    monkeypatch.setattr(numba, "THREAD_ELEMENTS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(torch.equal(a, b) for a, b in zip(outputs_and_gradients(NumbaScan.apply, inputs), one, strict=True))


def decays(exponents: Tensor) -> Tensor:
    """exp, as the numba form computes it: one step of a state 1 without input, delta = 1 and A the exponents."""
    zeros, ones = exponents.new_zeros(1, 1, 1), torch.ones_like(exponents)
    _, h = NumbaScan.apply(
        0 * ones[None, None], ones[None, None], exponents[:, None], zeros, zeros, ones[None, :, None]
    )
    return h.flatten()


def test_the_exponential_of_the_numba_form() -> None:
    """1.2 units in the last place, 0 below 2^-125, and the limits."""
    x = torch.cat([torch.linspace(-86.6, 88.7, 200_001), torch.linspace(-2, 0.1, 100_001), torch.logspace(-30, 0, 99)])
    exact = x.double().exp()
    assert ((decays(x).double() - exact) / exact).abs().max() < 1.2 * 2**-23
    low = torch.linspace(-120, -86.6, 10_001)
    assert (decays(low) - low.exp()).abs().max() < 2**-125
    limits = torch.tensor([0.0, -0.0, -200, -1e30, -math.inf, 89, 1e30, math.inf, math.nan])
    assert torch.equal(decays(limits).nan_to_num(7, posinf=9), torch.tensor([1.0, 1, 0, 0, 0, 9, 9, 9, 7]))


def test_numba_is_traced_and_counted() -> None:
    """As two operators: without values, by torch.compile in one graph, and with the FLOPs of the form in chunks."""
    inputs = core_inputs(2, 40, 8, 4, dtype=torch.float32)
    eager = outputs_and_gradients(NumbaScan.apply, inputs)
    compiled = torch.compile(NumbaScan.apply, fullgraph=True, backend="aot_eager_default_partitioner")
    assert_same(outputs_and_gradients(compiled, inputs), eager, 0, 0)
    flops = []
    for scan in (ChunkedScan.apply, NumbaScan.apply):
        with FlopCounterMode(display=False) as counter:
            outputs_and_gradients(scan, inputs)
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] == 8 * 2 * 40 * 8 * 4
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = outputs_and_gradients(NumbaScan.apply, tuple(mode.from_tensor(x) for x in inputs))
    assert [(x.shape, x.stride()) for x in fake] == [(x.shape, x.stride()) for x in eager]


def test_gradcheck() -> None:
    inputs = core_inputs(2, 7, 3, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "chunk_sizes", lambda *_: (1, 3))
        assert torch.autograd.gradcheck(ChunkedScan.apply, inputs, eps=1e-6, atol=1e-7)


def full_inputs(batch: int, seq_len: int, D: int, N: int, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {
        "u": (batch, seq_len, D),
        "delta": (batch, seq_len, D),
        "A": (D, N),
        "B": (batch, seq_len, N),
        "C": (batch, seq_len, N),
        "D": (D,),
        "z": (batch, seq_len, D),
        "delta_bias": (D,),
        "h0": (batch, D, N),
    }
    made = {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
    made["A"] = -made["A"].exp()
    return {name: x.requires_grad_() for name, x in made.items()}


@pytest.mark.parametrize("form", ["torch", "reference"])
@pytest.mark.parametrize("left_out", [(), ("D",), ("z",), ("delta_bias",), ("h0",), ("D", "z", "delta_bias", "h0")])
@pytest.mark.parametrize("softplus", [True, False])
def test_against_an_independent_loop(form: str, left_out: tuple[str, ...], softplus: bool) -> None:
    """The whole op, written once more from the equations with plain indices."""
    x = {name: None if name in left_out else value for name, value in full_inputs(2, 11, 4, 3).items()}
    delta = x["delta"] if x["delta_bias"] is None else x["delta"] + x["delta_bias"]
    delta = torch.log1p(torch.exp(delta)) if softplus else delta * 0.1
    h = torch.zeros(2, 4, 3, dtype=torch.float64) if x["h0"] is None else x["h0"]
    rows = []
    for t in range(11):
        decay = torch.exp(torch.einsum("bd,dn->bdn", delta[:, t], x["A"]))
        h = decay * h + torch.einsum("bd,bn,bd->bdn", delta[:, t], x["B"][:, t], x["u"][:, t])
        y_t = torch.einsum("bn,bdn->bd", x["C"][:, t], h)
        if x["D"] is not None:
            y_t = y_t + x["D"] * x["u"][:, t]
        rows.append(y_t if x["z"] is None else y_t * x["z"][:, t] * torch.sigmoid(x["z"][:, t]))
    given_delta = x["delta"] if softplus else None
    with use_backend(form):
        if given_delta is None:  # without softplus the step sizes come as they are, and must be positive to be stable
            bias = None if x["delta_bias"] is None else x["delta_bias"] * 0.1
            arguments = x | {"delta": x["delta"] * 0.1, "delta_bias": bias}
        else:
            arguments = x
        y, last = selective_scan(**arguments, delta_softplus=softplus)
    torch.testing.assert_close(y, torch.stack(rows, 1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(last, h, rtol=1e-10, atol=1e-12)
    leaves = [value for value in x.values() if value is not None]
    expected = torch.autograd.grad(torch.stack(rows, 1).square().sum() + h.sum(), leaves)
    actual = torch.autograd.grad(y.square().sum() + last.sum(), leaves)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(seq_len=st.integers(2, 60), cut=st.integers(1, 59), form=st.sampled_from(["torch", "reference"]))
def test_pieces_equal_the_whole(seq_len: int, cut: int, form: str) -> None:
    """Outputs, last state, and gradients through the state between the pieces."""
    cut = min(cut, seq_len - 1)
    x = full_inputs(2, seq_len, 3, 2, seed=cut)
    h0 = x.pop("h0")
    along = ("u", "delta", "B", "C", "z")
    with use_backend(form):
        y, h = selective_scan(**x, delta_softplus=True, h0=h0)
        first, between = selective_scan(
            **{k: v[:, :cut] if k in along else v for k, v in x.items()}, delta_softplus=True, h0=h0
        )
        second, last = selective_scan(
            **{k: v[:, cut:] if k in along else v for k, v in x.items()}, delta_softplus=True, h0=between
        )
    torch.testing.assert_close(torch.cat([first, second], 1), y, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(last, h, rtol=1e-10, atol=1e-12)
    leaves = [*x.values(), h0]
    expected = torch.autograd.grad(y.square().sum() + h.square().sum(), leaves)
    loss = first.square().sum() + second.square().sum() + last.square().sum()
    for a, b in zip(torch.autograd.grad(loss, leaves), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_steps_equal_the_scan() -> None:
    x = full_inputs(3, 9, 4, 5)
    h = x.pop("h0")
    y, last = selective_scan(**x, delta_softplus=True, h0=h)
    for t in range(9):
        at = {name: x[name][:, t] for name in ("u", "delta", "B", "C", "z")}
        y_t, h = selective_scan_step(**at, A=x["A"], h=h, D=x["D"], delta_bias=x["delta_bias"], delta_softplus=True)
        torch.testing.assert_close(y_t, y[:, t], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(h, last, rtol=1e-10, atol=1e-12)


def test_the_state_stands_still_where_the_mask_is_false() -> None:
    x = full_inputs(2, 12, 3, 4)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 5:], mask[1] = False, False
    y, h = selective_scan(**x, delta_softplus=True, mask=mask)
    along = ("u", "delta", "B", "C", "z")
    short = {k: v[:1, :5] if k in along else v[:1] if k == "h0" else v for k, v in x.items()}
    y_short, h_short = selective_scan(**short, delta_softplus=True)
    torch.testing.assert_close(y[:1, :5], y_short, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h[:1], h_short, rtol=1e-12, atol=1e-12)
    assert torch.equal(h[1], x["h0"][1])


@ON_CPU
def test_long_decay_neither_under_nor_overflows(scan: Scan) -> None:
    """delta A L of many hundreds, where forms that divide by products of decays break down."""
    batch, seq_len, D, N = 1, 2000, 2, 4
    u, _, _, B, C, h0 = core_inputs(batch, seq_len, D, N, dtype=torch.float32)
    delta = torch.full((batch, seq_len, D), 5.0, requires_grad=True)
    A = (-torch.arange(1.0, N + 1).repeat(D, 1)).requires_grad_()
    inputs = (u, delta, A, B, C, h0)
    ours = outputs_and_gradients(scan, inputs)
    assert all(x.isfinite().all() for x in ours)
    assert_same(ours, outputs_and_gradients(scan_reference, inputs), 1e-3, 1e-3)


def test_half_precision_is_computed_in_float32() -> None:
    x = {name: value.detach() for name, value in full_inputs(2, 50, 4, 3).items()}
    low = {k: v.bfloat16() if k in ("u", "delta", "B", "C", "z") else v.float() for k, v in x.items()}
    exact, h_exact = selective_scan(**{k: v.float() for k, v in low.items()}, delta_softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, h = selective_scan(**low, delta_softplus=True)
    assert y.dtype is torch.bfloat16
    assert h.dtype is torch.float32
    torch.testing.assert_close(y, exact.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(h, h_exact, rtol=0, atol=0)


@pytest.mark.parametrize(("form", "scan"), [("torch", ChunkedScan.apply), ("numba", NumbaScan.apply)])
def test_backward_under_autocast_stays_in_float32(form: str, scan: Scan) -> None:
    inputs = core_inputs(2, 40, 4, 3, dtype=torch.float32)
    plain = outputs_and_gradients(scan, inputs)
    with use_backend(form), torch.autocast("cpu", dtype=torch.bfloat16):
        y, h = selective_scan(*inputs[:5], h0=inputs[5])
        g = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(x.shape, generator=g, dtype=torch.float64).float() for x in (y, h)]
        actual = torch.autograd.grad((y * cotangents[0]).sum() + (h * cotangents[1]).sum(), inputs)
    assert_same([y.detach(), h.detach(), *actual], plain, 1e-6, 1e-6)


@ON_CPU
def test_only_states_between_chunks_are_kept(scan: Scan) -> None:
    """What autograd holds after forward is the inputs and L/T states, never anything (L, D, N)."""
    batch, seq_len, D, N = 1, 1024, 64, 16
    inputs = core_inputs(batch, seq_len, D, N, dtype=torch.float32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        scan(*inputs)
    assert sum(kept) < sum(x.numel() for x in inputs) + batch * seq_len * D * N / 8


def test_the_form_is_noted_and_never_falls_back() -> None:
    x = full_inputs(1, 3, 2, 2)
    single = {name: value.detach().float() for name, value in x.items()}

    def form_of(inputs: dict[str, Tensor]) -> str:
        forms_that_ran(reset=True)
        selective_scan(**inputs)
        return forms_that_ran(reset=True)["selective_scan"]

    assert (form_of(x), form_of(single)) == ("torch", "numba")
    assert form_of({name: value.to("meta") for name, value in single.items()}) == "torch"
    torch.func.vmap(lambda u: selective_scan(**single | {"u": u})[0])(single["u"][None])
    assert forms_that_ran(reset=True) == {"selective_scan": "reference"}
    with use_backend("reference"):
        assert form_of(single) == "reference"
    with use_backend("numba"), pytest.raises(ConfigError, match="numba"):
        selective_scan(**x)  # in float64
    with pytest.MonkeyPatch.context() as patch, use_backend("triton"):
        patch.delenv("TRITON_INTERPRET", raising=False)
        with pytest.raises(ConfigError, match="triton"):
            selective_scan(**x)


def test_the_survey_knows_the_forms() -> None:
    rows = [row for row in survey() if row["op"] == "selective_scan" and row["device"] == "cpu"]
    assert [row["forms"][:3] for row in rows] == [["numba", "torch", "reference"]]
    assert forms_on("cuda")[0] == ("triton" if find_spec("triton") else "torch")


@pytest.mark.parametrize("name", ["delta", "B", "C", "D", "z", "delta_bias", "h0"])
def test_a_wrong_shape_names_both(name: str) -> None:
    x = full_inputs(2, 5, 3, 4)
    good = tuple(x[name].shape)
    x[name] = torch.zeros(*good[:-1], good[-1] + 1)
    with pytest.raises(ValueError, match=rf"{name} has shape .*{good[-1] + 1}.*expected .*{good[-1]}"):
        selective_scan(**x)


def test_no_tokens_is_an_error() -> None:
    x = {k: v[:, :0] if k in ("u", "delta", "B", "C", "z") else v for k, v in full_inputs(2, 5, 3, 4).items()}
    with pytest.raises(ValueError, match="seq_len >= 1"):
        selective_scan(**x)
