"""Hyena as a plugin: its equations as sums, two-sided filters, lengths, pads, options, configuration, presets."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import ConfigError, ModelDims, registry
from zoo.nn import parameters_with_options
from zoo.ops.backend import use_backend
from zoo.spec.presets import load_presets
from zoo_hyena.backbone import HyenaBackbone, HyenaFilter, HyenaMixer
from zoo_hyena.config import HyenaConfig
from zoo_hyena.op import decay_rates, features, hyena, long_conv, times, window

PRESETS, REPORTED = load_presets("zoo_hyena")

MODES = ["causal", "bidirectional"]


def build(
    mode: str = "causal", max_len: int = 40, dtype: torch.dtype = torch.float64, scale: float = 15.0, **config: Any
) -> HyenaBackbone:
    """A model of width 6 whose matrices are larger than at the start, so that every term of every sum counts."""
    torch.manual_seed(0)
    dims = ModelDims(d_model=6, n_layers=2, mode=mode, max_len=max_len)
    settings = HyenaConfig(**{"filter_width": 8, "emb_dim": 5, **config})
    settings.check(dims)
    model = HyenaBackbone(settings, dims)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(scale)
    return model.to(dtype)


def sequence(batch: int = 3, seq_len: int = 17, d_model: int = 6) -> Tensor:
    return torch.randn(batch, seq_len, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


# -- the op ------------------------------------------------------------------------------------------------------------


def test_features_are_the_formula() -> None:
    z, M = features(7, 11, 7), 11
    for i in range(7):
        f, w = [1e-4, (1e-4 + 2) / 2, 2.0], 2 * math.pi * i / M
        row = [i / (M - 1), *(math.cos(a * w) for a in f), *(-math.sin(a * w) for a in f)]
        torch.testing.assert_close(z[i], torch.tensor(row, dtype=torch.float64))
    assert features(4, 4, 3).shape == (4, 3)
    assert times(1, 1).tolist() == [0.0]
    assert torch.equal(times(5, 40), times(40, 40)[:5])


def test_windows_fall_to_the_target_where_they_should() -> None:
    rates = decay_rates(5, 0.3, 1.5, 0.01)
    assert float(torch.exp(-rates[0] * 1.5)) == pytest.approx(0.01)
    assert float(torch.exp(-rates[-1] * 0.3)) == pytest.approx(0.01)
    got = window(times(10, 10), rates, 0.05)
    assert torch.equal(got[0], torch.full((5,), 1.05, dtype=torch.float64))
    assert (got[1:] < got[:-1]).all()


@pytest.mark.parametrize("L", [1, 2, 9])
def test_long_conv_is_its_two_sums(L: int) -> None:
    g = torch.Generator().manual_seed(L)
    x = torch.randn(2, 3, L, generator=g, dtype=torch.float64)
    k, back = torch.randn(2, 3, L, generator=g, dtype=torch.float64)
    bias = torch.randn(3, generator=g, dtype=torch.float64)
    past, both = bias[:, None] * x, bias[:, None] * x
    for t in range(L):
        for s in range(L):
            if s <= t:
                past[..., t] += k[:, t - s] * x[..., s]
                both[..., t] += k[:, t - s] * x[..., s]
            if s >= t:
                both[..., t] += back[:, s - t] * x[..., s]
    assert_close([long_conv(x, k, bias), long_conv(x, k, bias, back)], [past, both])


def test_orders_nest() -> None:
    """Order 4 by hand: gates from the last to the first, one convolution after each but the last."""
    g = torch.Generator().manual_seed(0)
    *x, v = torch.randn(5, 2, 3, 8, generator=g, dtype=torch.float64)
    k, bias = (
        torch.randn(3, 3, 8, generator=g, dtype=torch.float64),
        torch.randn(3, 3, generator=g, dtype=torch.float64),
    )
    want = v
    for gate, o in ((x[3], 0), (x[2], 1), (x[1], 2)):
        want = long_conv(gate * want, k[:, o], bias[:, o])
    assert_close([hyena(x, v, k, bias)], [x[0] * want])


# -- the layer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("config", [{}, {"order": 3, "short_taps": 4, "shift": 0.1}, {"normalized": True}], ids=str)
def test_the_layer_is_its_equation(mode: str, config: dict[str, Any]) -> None:
    mixer: HyenaMixer = build(mode, **config).stack.blocks[1].mixer
    x, L, D, n, c = sequence(), 17, 6, mixer.n, mixer.filter.config
    p = F.linear(x, mixer.in_proj.weight, mixer.in_proj.bias)
    taps, s = c.short_taps, torch.zeros_like(p)
    for t in range(L):
        s[:, t] = mixer.short_filter.bias
        for j in range(taps):
            if t - (taps - 1) + j >= 0:
                s[:, t] += mixer.short_filter.weight[:, j] * p[:, t - (taps - 1) + j]

    def filters(mlp: Any) -> Tensor:
        h = features(L, 40, c.emb_dim)
        for linear in list(mlp.layers)[:-1]:
            h = torch.sin(mixer.filter.freq * F.linear(h, linear.weight, linear.bias))
        h = F.linear(h, mlp.layers[-1].weight)
        i = torch.arange(L, dtype=torch.float64)[:, None]
        deltas = torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, D * (n - 1), dtype=torch.float64)
        k = h * (torch.exp(-i / 39 * deltas.abs()) + c.shift)
        return k / k.abs().sum(1, keepdim=True) if c.normalized else k

    k = filters(mixer.filter.forwards)
    back = None if mode == "causal" else filters(mixer.filter.backwards)
    *gates, v = s.split(D, -1)
    for o in range(n - 1):
        u, channel = gates[n - 1 - o] * v, torch.arange(D) * (n - 1) + o
        v = mixer.bias[channel] * u
        for t in range(L):
            v[:, t] += sum(k[t - r, channel] * u[:, r] for r in range(t + 1))
            if back is not None:
                v[:, t] += sum(back[r - t, channel] * u[:, r] for r in range(t, L))
    want = F.linear(v * gates[0], mixer.out_proj.weight, mixer.out_proj.bias)
    assert_close([mixer(x)[0]], [want])


def test_the_reference_form_of_the_convolution_agrees() -> None:
    for mode in MODES:
        model, x = build(mode, order=3), sequence()
        fast = model(x).hidden
        with use_backend("reference"):
            assert_close([model(x).hidden], [fast])


def test_filters_belong_to_the_longest_input() -> None:
    """A shorter call sees the beginning of the same filter; a model made for more has slower windows."""
    filters = build().stack.blocks[0].mixer.filter
    assert_close([filters(9)[0]], [filters(40)[0][:, :9]])
    torch.manual_seed(0)
    settings = HyenaConfig(filter_width=8, emb_dim=5)
    short, long = (HyenaFilter(settings, 6, M, bidirectional=False).double() for M in (40, 80))
    long.load_state_dict(short.state_dict())
    # the first and the last position of both are the same points of time
    assert_close([short(40)[0][:, 0]], [long(80)[0][:, 0]])
    assert (short(40)[0][:, 20] - long(80)[0][:, 20]).abs().max() > 1e-4


# -- lengths, pads, causality ------------------------------------------------------------------------------------------


def test_longer_inputs_are_refused_with_both_numbers() -> None:
    for mode in MODES:
        model = build(mode)
        assert model(sequence(seq_len=40)).hidden.shape == (3, 40, 6)
        with pytest.raises(ValueError, match=r"41 tokens .* at most 40"):
            model(sequence(seq_len=41))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("config", [{}, {"order": 3, "short_taps": 7}], ids=str)
def test_pads_change_nothing(mode: str, config: dict[str, Any]) -> None:
    """Right pads, whatever they hold: also what a float FFT would smear over the whole row."""
    model, x, lengths = build(mode, **config), sequence(4), [17, 9, 1, 0]
    mask = torch.arange(17) < torch.tensor(lengths)[:, None]
    for content in (1e8, float("inf"), float("nan")):
        out = model(x.masked_fill(~mask[..., None], content), mask=mask).hidden
        for b, n in enumerate(lengths[:3]):
            assert_close([out[b : b + 1, :n]], [model(x[b : b + 1, :n]).hidden])
    assert model(x, mask=mask).hidden.isfinite().all()


def test_left_pads_change_nothing() -> None:
    model, x = build("bidirectional", order=3), sequence(2)
    mask = torch.arange(17) >= torch.tensor([0, 5])[:, None]
    out = model(torch.where(mask[..., None], x, 1e3 * x), mask=mask).hidden
    assert_close([out[1:, 5:]], [model(x[1:, 5:]).hidden])


def test_no_leak_from_the_future_and_sight_both_ways() -> None:
    x = sequence(2, 40).requires_grad_()
    (g,) = torch.autograd.grad(build(order=3)(x).hidden[0, 17, 0], x)
    assert g[0, 18:].abs().max() < 1e-12 * g[0, :18].abs().max()
    assert (g[1] == 0).all()
    (g,) = torch.autograd.grad(build("bidirectional")(x).hidden[0, 17, 0], x)
    assert (g[0].abs().amax(-1) > 1e-9).all()


def test_it_has_no_state() -> None:
    model, x = build(), sequence()
    assert model(x).state is None
    assert model.init_state(3, device="cpu", dtype=x.dtype) is None
    assert model.state_size(1000) == 0
    with pytest.raises(ValueError, match="carries none"):
        model(x, state=[x])
    with pytest.raises(TypeError, match="no step form"):
        model.step(x[:, 0], None)


# -- precision, optimiser options, initial values ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_float32_agrees_with_float64(mode: str) -> None:
    double, single = (build(mode, 2048, dtype, scale=1.0) for dtype in (torch.float64, torch.float32))
    x = sequence(2, 2048)
    a, b = single(x.float()).hidden, double(x).hidden
    assert a.dtype == torch.float32
    assert (a - b).abs().max() < 1e-4 * b.abs().max()


def test_filters_ignore_autocast() -> None:
    filters = build("bidirectional", dtype=torch.float32).stack.blocks[0].mixer.filter
    exact = filters(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = filters(40)
    assert all(torch.equal(a, b) for a, b in zip(exact, low, strict=True))


@pytest.mark.parametrize(("filter_lr", "positions_lr"), [(0.002, 1e-5), (None, 0.0)])
def test_optimiser_options(filter_lr: float | None, positions_lr: float) -> None:
    model = build("bidirectional", filter_lr=filter_lr, positions_lr=positions_lr)
    at = "stack.blocks.0.mixer."
    options_of = {
        n.removeprefix(at): (m.lr, m.weight_decay) for n, _, m in parameters_with_options(model) if n.startswith(at)
    }
    of_filters = {name: option for name, option in options_of.items() if name.startswith("filter.")}
    assert ("filter.z" in of_filters) == (positions_lr > 0)
    assert len(of_filters) == 1 + 2 * 7 + (positions_lr > 0)  # freq, two networks of 3 biased layers and a last one
    for name, option in of_filters.items():
        assert option == (positions_lr if name == "filter.z" else filter_lr, 0.0)
    for name in ("in_proj", "out_proj", "short_filter"):
        assert options_of[f"{name}.weight"] == (None, None)
    assert options_of["bias"] == (None, 0.0)


def test_initial_values() -> None:
    torch.manual_seed(0)
    dims = ModelDims(d_model=256, n_layers=8, mode="bidirectional", max_len=1024)
    model = HyenaBackbone(HyenaConfig(), dims)
    block = model.stack.blocks[3]
    mixer, filters = block.mixer, block.mixer.filter
    with torch.no_grad():
        for linear, std in (
            (mixer.in_proj, 0.02),
            (mixer.out_proj, 0.02 / 4),
            (block.mlp.linear1, 0.02),
            (block.mlp.linear2, 0.02 / 4),
            (filters.forwards.layers[1], 0.02),
            (filters.backwards.layers[-1], 0.02),
        ):
            assert float(linear.weight.std()) == pytest.approx(std, rel=0.05)
            assert linear.bias is None or not linear.bias.any()
        assert (filters.freq == 14.0).all()
        assert float(mixer.bias.std()) == pytest.approx(1, rel=0.15)
        assert float(mixer.short_filter.weight.abs().max()) == pytest.approx(3**-0.5, rel=0.01)
        # w and the small weights go together: with w = 1 nothing but the direct term would be alive
        assert 0.005 < float(filters(1024)[0][:, :100].abs().mean()) < 0.2
        filters.freq.fill_(1.0)
        assert float(filters(1024)[0].abs().mean()) < 1e-4


# -- metadata ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("order", {"order": 1}),
        ("emb_dim", {"emb_dim": 4}),
        ("emb_dim", {"emb_dim": 1}),
        ("short_taps", {"short_taps": 0}),
        ("filter_width", {"filter_width": 0}),
        ("filter_layers", {"filter_layers": -1}),
        ("d_ff", {"d_ff": 0}),
        ("fast_decay_pct", {"fast_decay_pct": 2.0}),
        ("decay_target", {"decay_target": 1.0}),
        ("w", {"w": 0.0}),
        ("shift", {"shift": -0.1}),
        ("filter_lr", {"filter_lr": -1.0}),
        ("dropout", {"dropout": 1.0}),
    ],
)
def test_refuses(key: str, config: dict[str, Any]) -> None:
    dims = ModelDims(d_model=8, n_layers=1, mode="causal", max_len=16)
    with pytest.raises(ConfigError) as error:
        registry().architecture("hyena").record.check(HyenaConfig(**config), dims)
    assert error.value.key == f"arch.{key}"


def test_presets_are_ours_and_nothing_is_reported() -> None:
    assert REPORTED == ()
    record = registry().architecture("hyena").record
    for (task, protocol), preset in PRESETS.items():
        assert all(preset.sources[key].startswith("ours") for key in preset.values), (task, protocol)
        own = {k.removeprefix("arch."): v for k, v in preset.values.items() if k.startswith("arch.")}
        record.check(HyenaConfig(**own), ModelDims(d_model=32, n_layers=2, mode="bidirectional", max_len=16384))


def test_metadata_needs_no_torch() -> None:
    use = "[a.load_presets() for a in zoo_hyena.zoo_architectures()]; print('torch' in sys.modules)"
    code = f"import sys, zoo_hyena, zoo_hyena.config; {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
