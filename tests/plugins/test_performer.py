"""Performer: forms that agree, what the future and pads must not do, and features that follow (seed, step)."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo import ConfigError, bench, registry
from zoo.ops.attention import attention
from zoo.ops.random_features import draw_features
from zoo.spec.record import Record
from zoo_performer.config import PerformerConfig
from zoo_performer.op import FeatureMap, causal_linear_attention, linear_attention

FEW = settings(max_examples=25, deadline=None)
KERNELS = ("softmax", "hyperbolic", "relu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def qkv(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    return noise(*shape, seed=1), noise(*shape, seed=2), noise(*shape, seed=3)


def feature_map(kernel: str, d: int, m: int = 11, **options: Any) -> FeatureMap:
    eps = options.pop("eps", {"softmax": 1e-6, "hyperbolic": 0.0, "relu": 1e-3}[kernel])
    return FeatureMap(kernel, draw_features(m, d, seed=0), eps, **options)


def build(config: PerformerConfig, *, mode: str = "causal", n_layers: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    record = registry().architecture("performer").record
    return record.build(config, d_model=16, n_layers=n_layers, mode=mode, max_len=64).double().eval()


def quadratic(phi: FeatureMap, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The causal definition, row by row, with every key in the unit of the last row's maximum."""
    rows = []
    for i in range(q.shape[-2]):
        seen = None if mask is None else mask[:, : i + 1]
        phi_k, running = phi.causal_keys(k[..., : i + 1, :], seen)
        if running is not None:
            phi_k = phi_k * (running - running[..., -1:]).exp()[..., None]
        rows.append(linear_attention(phi.queries(q[..., i : i + 1, :]), phi_k, v[..., : i + 1, :], mask=seen))
    return torch.cat(rows, dim=-2)


@FEW
@given(
    kernel=st.sampled_from(KERNELS),
    length=st.integers(1, 23),
    chunk=st.integers(1, 24),
    real=st.lists(st.integers(0, 23), min_size=2, max_size=2),
)
def test_chunks_equal_the_quadratic_form(kernel: str, length: int, chunk: int, real: list[int]) -> None:
    phi, (q, k, v) = feature_map(kernel, 4), qkv(2, 3, length, 4)
    mask = torch.arange(length) < torch.tensor(real)[:, None]
    phi_k, running = phi.causal_keys(k, mask)
    y, _ = causal_linear_attention(phi.queries(q), phi_k, v, mask=mask, running=running, chunk=chunk)
    torch.testing.assert_close(y, quadratic(phi, q, k, v, mask), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("denominator_eps", [0.0, 1e-2])
def test_tokens_equal_the_whole(kernel: str, denominator_eps: float) -> None:
    phi, (q, k, v) = feature_map(kernel, 4), qkv(2, 3, 9, 4)
    phi_k, running = phi.causal_keys(k)
    whole, after = causal_linear_attention(
        phi.queries(q), phi_k, v, running=running, denominator_eps=denominator_eps, chunk=4
    )
    state = {
        name: torch.zeros_like(leaf) if name != "r" else torch.full_like(leaf, -1e30) for name, leaf in after.items()
    }
    for t, (q_t, k_t, v_t) in enumerate(zip(*(x.split(1, dim=2) for x in (q, k, v)), strict=True)):
        phi_k, running = phi.causal_keys(k_t, r=state.get("r"))
        y, state = causal_linear_attention(
            phi.queries(q_t), phi_k, v_t, running=running, state=state, denominator_eps=denominator_eps
        )
        torch.testing.assert_close(y[:, :, 0], whole[:, :, t], rtol=1e-9, atol=1e-12)
    for name, leaf in after.items():
        torch.testing.assert_close(state[name], leaf, rtol=1e-9, atol=1e-12)


def test_many_features_approach_softmax_attention() -> None:
    q, k, v = (0.4 * t for t in qkv(2, 2, 20, 8))
    exact = attention(q, k, v)
    errors = []
    for m in (16, 4096):
        phi = feature_map("softmax", 8, m, eps=0.0)
        errors.append(float((linear_attention(phi.queries(q), phi.keys(k), v) - exact).norm() / exact.norm()))
    assert errors[1] < 0.05 < errors[0], errors


@pytest.mark.parametrize("kernel", ["softmax", "hyperbolic"])
def test_the_guard_changes_nothing_but_the_range(kernel: str) -> None:
    q, k, v = qkv(2, 2, 12, 4)
    guarded, bare = (feature_map(kernel, 4, eps=0.0, shifted=shifted) for shifted in (True, False))
    both = [linear_attention(phi.queries(q), phi.keys(k), v) for phi in (guarded, bare)]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-12)
    causal = []
    for phi in (guarded, bare):
        phi_k, running = phi.causal_keys(k)
        causal.append(causal_linear_attention(phi.queries(q), phi_k, v, running=running, chunk=5)[0])
    torch.testing.assert_close(*causal, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", ["softmax", "hyperbolic"])
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_large_inputs_stay_finite_in_float32(kernel: str, mode: str) -> None:
    phi = FeatureMap(kernel, draw_features(64, 16, seed=0).float(), 1e-6)
    q, k, v = ((scale * t).float().requires_grad_() for scale, t in zip((12, 12, 1), qkv(1, 2, 300, 16), strict=True))
    if mode == "causal":
        phi_k, running = phi.causal_keys(k)
        y, state = causal_linear_attention(phi.queries(q), phi_k, v, running=running)
        assert all(leaf.isfinite().all() for leaf in state.values())
    else:
        y = linear_attention(phi.queries(q), phi.keys(k), v)
    assert y.isfinite().all()
    assert y.abs().max() <= v.abs().max() * 1.001  # positive weights that sum to one
    for gradient in torch.autograd.grad(y.sum(), (q, k, v)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("factor", [8, 30])
@pytest.mark.parametrize("sharp", ["q", "k", "qk"])
@pytest.mark.parametrize("kernel", ["softmax", "hyperbolic"])
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_sharp_queries_and_keys_in_float32_give_the_float64_value(
    kernel: str, mode: str, sharp: str, factor: int
) -> None:
    """With |q| about 46, exp(a - |q|²/2√d - max a) is 0 in float32 for every feature: the shift must be the maximum of
    the whole exponent. With sharper queries and keys, the features that a query reads are 0 in every key, unless each
    feature has a unit of its own."""
    config = PerformerConfig(kernel=kernel, n_heads=2, eps=0.0)
    torch.manual_seed(0)
    record = registry().architecture("performer").record
    model = record.build(config, d_model=64, n_layers=1, mode=mode, max_len=64).eval()
    with torch.no_grad():
        for name in sharp:
            getattr(model.stack.blocks[0].mixer, name).weight.mul_(factor)
    x = noise(2, 20, 64).float()
    other = x.clone()
    other[:, 0] = noise(2, 64, seed=5).float()
    hidden = model(x).hidden
    exact, moved = (copy.deepcopy(model).double()(t.double()).hidden for t in (x, other))
    assert (hidden - exact).norm() < 3e-5 * (exact - x).norm()
    change, expected = (model(other).hidden - hidden)[:, 1:].norm(), (moved - exact)[:, 1:].norm()
    torch.testing.assert_close(change.double(), expected, rtol=1e-3, atol=1e-4)
    if sharp == "q":
        assert change > 0.1, "token 0 changes no other token"


@pytest.mark.parametrize("eps", [1e-4, 1e-6])
def test_a_large_future_key_does_not_move_the_past(eps: float) -> None:
    """The fault of the published causal form: its maximum is over all keys, and eps is added after it."""
    phi, (q, k, v) = feature_map("softmax", 8, 32, eps=eps), qkv(1, 2, 40, 8)
    louder = k.clone()
    louder[:, :, -1] *= 6
    rows = []
    for keys in (k, louder):
        phi_k, running = phi.causal_keys(keys)
        ours = causal_linear_attention(phi.queries(q), phi_k, v, running=running)[0]
        published = causal_linear_attention(phi.queries(q), phi.keys(keys), v)[0]
        rows.append((ours[:, :, :-1], published[:, :, :-1]))
    assert torch.equal(rows[0][0], rows[1][0])
    assert (rows[0][1] - rows[1][1]).abs().max() > 1e-6


@FEW
@given(kernel=st.sampled_from(KERNELS), causal=st.booleans(), real=st.integers(0, 12), pad=st.integers(1, 9))
def test_pads_are_as_if_they_were_not_there(kernel: str, causal: bool, real: int, pad: int) -> None:
    config = PerformerConfig(kernel=kernel, eps=1e-3)
    model = build(config, mode="causal" if causal else "bidirectional")
    x = noise(1, real + pad, 16)
    x[:, real:] *= 30
    mask = (torch.arange(real + pad) < real)[None]
    padded = model(x, mask=mask)
    assert padded.hidden.isfinite().all()
    if real:
        short = model(x[:, :real])
        torch.testing.assert_close(padded.hidden[:, :real], short.hidden, rtol=1e-9, atol=1e-11)
        if causal:
            torch.testing.assert_close(padded.state, short.state, rtol=1e-9, atol=1e-11)


def test_gradients_pass_the_finite_difference_check() -> None:
    phi, (q, k, v) = feature_map("softmax", 3, 5, eps=1e-2), qkv(1, 1, 6, 3)

    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        phi_k, running = phi.causal_keys(k)
        return causal_linear_attention(phi.queries(q), phi_k, v, running=running, chunk=4)[0]

    leaves = [t.requires_grad_() for t in (q, k, v)]
    assert torch.autograd.gradcheck(causal, leaves)
    assert torch.autograd.gradcheck(lambda q, k, v: linear_attention(phi.queries(q), phi.keys(k), v), leaves)


# -- redraw --------------------------------------------------------------------------------------------------------


def features(model: torch.nn.Module) -> list[Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if name.endswith("W")]


def test_features_follow_seed_layer_and_step() -> None:
    model = build(PerformerConfig(redraw_every=10))
    first = features(model)
    assert not torch.isclose(first[0], first[1]).any(), "two layers share their features"
    twin = copy.deepcopy(model)
    for step in range(10):
        model.on_step(step)
        assert all(map(torch.equal, features(model), first)), f"redrawn at step {step}"
    model.on_step(10)
    second = features(model)
    assert not torch.isclose(second[0], first[0]).any()
    model.on_step(10)  # a second micro-batch of the same step
    assert all(map(torch.equal, features(model), second))
    # a resumed model that never saw step 0 draws the same, and so does one restored from a checkpoint
    twin.load_state_dict(model.state_dict())
    for resumed in (model, twin):
        resumed.on_step(20)
    assert all(map(torch.equal, features(model), features(twin)))
    assert not torch.isclose(features(model)[0], second[0]).any()


def test_features_of_another_seed_differ_and_redraw_can_be_off() -> None:
    model = build(PerformerConfig(redraw_every=0))
    before = features(model)
    model.on_step(1000)
    assert all(map(torch.equal, features(model), before))
    torch.manual_seed(1)
    other = (
        registry()
        .architecture("performer")
        .record.build(PerformerConfig(), d_model=16, n_layers=2, mode="causal", max_len=64)
    )
    assert not torch.isclose(features(other)[0].double(), before[0]).any()


def test_forward_draws_nothing() -> None:
    model = build(PerformerConfig(redraw_every=1)).train()
    before, random = features(model), torch.random.get_rng_state()
    model(noise(2, 9, 16))
    assert all(map(torch.equal, features(model), before))
    assert torch.equal(random, torch.random.get_rng_state())


def test_a_resumed_run_is_the_unbroken_one(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are drawn anew within a validation interval, and a run is cut between two draws."""
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data"))

    def run(where: str, redraw_every: int = 3, **options: Any) -> Record:
        folders = {"results": tmp_path / where / "results", "runs": tmp_path / where / "runs"}
        overrides = {"arch.redraw_every": redraw_every, "arch.n_features": 8}
        return bench("performer", "listops", protocol="smoke", overrides=overrides, **folders, **options)[0].record

    whole = run("whole")
    assert run("cut", max_time=0.0).status == "timeout"
    resumed = run("cut")
    assert (resumed.metrics, resumed.samples) == (whole.metrics, whole.samples)
    other = run("frozen", redraw_every=0)
    assert [p.loss for p in other.history] != [p.loss for p in whole.history], "no features were drawn in training"


# -- configuration and state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        (PerformerConfig(n_heads=3), "arch.n_heads", "3 does not divide d_model 16"),
        (PerformerConfig(n_heads=3, d_qkv=8), "arch.n_heads", "3 does not divide d_qkv 8"),
        (PerformerConfig(kernel="cosine"), "arch.kernel", r"expected softmax \| hyperbolic \| relu, got 'cosine'"),
        (PerformerConfig(project=False), "arch.project", "only kernel=relu"),
        (PerformerConfig(kernel="relu", project=False, n_features=4), "arch.n_features", "4, but with project=false"),
        (PerformerConfig(row_norms="unit"), "arch.row_norms", r"expected gaussian \| sqrt_d, got 'unit'"),
        (PerformerConfig(redraw_every=-1), "arch.redraw_every", "integer >= 0, got -1"),
        (PerformerConfig(eps=-0.1), "arch.eps", ">= 0 or null, got -0.1"),
        (PerformerConfig(dropout=1.0), "arch.dropout", r"\[0, 1\), got 1.0"),
    ],
)
def test_impossible_configurations_name_key_and_numbers(config: PerformerConfig, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(config)
    assert caught.value.key == key


def test_number_of_features_by_default() -> None:
    assert PerformerConfig().features(64) == int(64 * math.log(64))
    assert PerformerConfig().features(1) == 1
    assert PerformerConfig(n_features=256).features(64) == 256


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_state_of_another_kernel_or_architecture_is_refused(kernel: str) -> None:
    model = build(PerformerConfig(kernel=kernel))
    own = model(noise(2, 5, 16)).state
    with pytest.raises(ValueError, match="a state of another architecture or configuration"):
        model(noise(2, 5, 16), state=[{"conv": torch.zeros(2, 16, 4)}] * 2)
    for other in KERNELS:
        if other != kernel:
            with pytest.raises(ValueError, match="a state of another architecture or configuration"):
                build(PerformerConfig(kernel=other))(noise(2, 5, 16), state=own)
