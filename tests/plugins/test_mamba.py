"""Mamba as a plugin: padding, state, steps, causality, initialisation, configuration, presets."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import ConfigError, ModelDims, registry
from zoo.nn import parameters_with_options
from zoo.ops.backend import use_backend
from zoo.spec.constraints import field_types, validate_value
from zoo.spec.presets import load_presets
from zoo_mamba.backbone import MambaBackbone
from zoo_mamba.config import MambaConfig

PRESETS, REPORTED = load_presets("zoo_mamba")


def build(n_layers: int = 2, d_model: int = 8, dtype: torch.dtype = torch.float64, **config: object) -> MambaBackbone:
    torch.manual_seed(0)
    dims = ModelDims(d_model=d_model, n_layers=n_layers, mode="causal", max_len=64)
    return MambaBackbone(MambaConfig(**{"d_state": 4, **config}), dims).to(dtype)


def sequence(batch: int = 3, seq_len: int = 13, d_model: int = 8) -> Tensor:
    return torch.randn(batch, seq_len, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def leaves(state: list[dict[str, Tensor]]) -> list[Tensor]:
    return [layer[name] for layer in state for name in ("conv", "ssm")]


def rows(state: list[dict[str, Tensor]], row: int) -> list[Tensor]:
    return [leaf[row : row + 1] for leaf in leaves(state)]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


VARIANTS = [{}, {"norm": "layer"}, {"bias": True}, {"conv_bias": False}, {"d_conv": 1}, {"expand": 1, "dt_rank": 3}]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_steps_and_pieces_equal_the_whole(config: dict[str, object]) -> None:
    model, x = build(**config), sequence()
    with torch.no_grad():
        whole = model(x)
        state, ys = model.init_state(3, device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, state = model.step(x_t, state)
            ys.append(y_t)
        assert_close([torch.stack(ys, 1), *leaves(state)], [whole.hidden, *leaves(whole.state)])
        state, ys = None, []
        for piece in x.split([1, 2, 7, 3], 1):  # shorter and longer than the convolution
            hidden, state, _ = model(piece, state=state)
            ys.append(hidden)
        assert_close([torch.cat(ys, 1), *leaves(state)], [whole.hidden, *leaves(whole.state)])


def test_gradients_flow_through_the_state() -> None:
    model, x = build(), sequence().requires_grad_()
    parameters = list(model.parameters())
    whole = torch.autograd.grad(model(x).hidden.square().sum(), [x, *parameters])
    first = model(x[:, :5])
    second = model(x[:, 5:], state=first.state)
    pieces = torch.autograd.grad(first.hidden.square().sum() + second.hidden.square().sum(), [x, *parameters])
    assert_close(list(pieces), list(whole))
    through = torch.autograd.grad(model(x[:, 5:], state=model(x[:, :5]).state).hidden.sum(), x)[0]
    assert through[:, :5].abs().sum() > 0


@pytest.mark.parametrize("form", ["torch", "reference"])
def test_no_leak_from_the_future(form: str) -> None:
    model, x = build(), sequence().requires_grad_()
    with use_backend(form):
        hidden = model(x).hidden
    for t in (0, 5, 11):
        gradient = torch.autograd.grad(hidden[:, t].square().sum(), x, retain_graph=True)[0]
        assert gradient[:, t + 1 :].abs().max() <= 1e-12 * gradient.abs().max()


PATTERNS = {
    "right": [1] * 6 + [0] * 7,
    "left": [0] * 7 + [1] * 6,
    "both": [0] * 2 + [1] * 8 + [0] * 3,
    "between": [1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1],
    "one": [0] * 5 + [1] + [0] * 7,
    "none": [0] * 13,
}


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_pads_are_not_there(carried: bool, norm: str) -> None:
    """Each row's outputs and state are those of the row without its pads, wherever they stand."""
    model = build(norm=norm)
    mask = torch.tensor(list(PATTERNS.values()), dtype=torch.bool)
    x = sequence(len(PATTERNS))
    with torch.no_grad():
        state = model(sequence(len(PATTERNS), 6)).state if carried else None
        out = model(x, mask=mask, state=state)
        assert out.hidden.isfinite().all()
        fresh = model.init_state(len(PATTERNS), device="cpu", dtype=x.dtype)
        before = state if carried else fresh
        for row, real in enumerate(mask):
            own = [{k: v[row : row + 1] for k, v in layer.items()} for layer in before]
            if not real.any():
                assert_close(rows(out.state, row), leaves(own))
                continue
            alone = model(x[row : row + 1, real], state=own)
            assert_close([out.hidden[row : row + 1, real], *rows(out.state, row)], [alone.hidden, *leaves(alone.state)])
        spoilt = x.masked_fill(~mask.unsqueeze(-1), math.inf)
        again = model(spoilt, mask=mask, state=state)
        assert torch.equal(again.hidden[mask], out.hidden[mask])
        assert all(torch.equal(a, b) for a, b in zip(leaves(again.state), leaves(out.state), strict=True))


def test_pads_get_no_gradient_and_give_none() -> None:
    model, x = build(), sequence().requires_grad_()
    mask = torch.ones(3, 13, dtype=torch.bool)
    mask[0, 6:], mask[1, :4], mask[2] = False, False, False
    hidden = model(x, mask=mask).hidden
    gradient = torch.autograd.grad(hidden[mask].square().sum(), [x, *model.parameters()])
    assert all(g.isfinite().all() for g in gradient)
    assert gradient[0][~mask].abs().max() == 0


@pytest.mark.parametrize("seq_len", [1, 2, 3, 4, 5, 33])
def test_short_and_odd_lengths(seq_len: int) -> None:
    model, x = build(), sequence(seq_len=33)
    torch.testing.assert_close(model(x[:, :seq_len]).hidden, model(x).hidden[:, :seq_len], rtol=1e-9, atol=1e-11)


def test_no_sequence_is_an_error() -> None:
    with pytest.raises(ValueError, match="seq_len"):
        build()(sequence(seq_len=0))


def test_every_parameter_gets_a_gradient() -> None:
    model = build(bias=True)
    model(sequence()).hidden.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_autocast_keeps_the_recurrence_in_float32() -> None:
    model, x = build(dtype=torch.float32), sequence().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    assert out.hidden.isfinite().all()
    assert all(layer["ssm"].dtype is torch.float32 for layer in out.state)
    torch.testing.assert_close(out.hidden.float(), model(x).hidden, rtol=0.1, atol=0.1)


def test_state_size_counts_the_state() -> None:
    model = build(n_layers=3)
    state = model.init_state(2, device="cpu", dtype=torch.float32)
    assert model.state_size(1) == model.state_size(4096) == sum(leaf[0].numel() for leaf in leaves(state))


# -- initialisation ----------------------------------------------------------------------------------------------------


def test_initialisation() -> None:
    d_model, n_layers = 64, 4
    model = build(n_layers=n_layers, d_model=d_model, dtype=torch.float32, d_state=16, bias=True)
    steps = []
    for block in model.stack.blocks:
        mixer = block.mixer
        assert mixer.dt_rank == 4
        torch.testing.assert_close(-mixer.A_log.exp(), -torch.arange(1.0, 17).repeat(128, 1))
        assert torch.equal(mixer.D, torch.ones(128))
        steps.append(F.softplus(mixer.dt_proj.bias.detach()))
        assert mixer.in_proj.bias.abs().max() == mixer.out_proj.bias.abs().max() == 0
        assert 0.9 * 4**-0.5 < mixer.dt_proj.weight.abs().max() <= 4**-0.5
        bound = 128**-0.5 / math.sqrt(n_layers)  # kaiming_uniform(a = sqrt 5) over the root of the depth
        assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound
        assert 0.95 * 0.5 < mixer.conv.weight.abs().max() <= 0.5
    log_dt = torch.cat(steps).log()
    assert math.log(0.001) - 1e-3 < log_dt.min() < math.log(0.0012)
    assert math.log(0.085) < log_dt.max() < math.log(0.1) + 1e-3
    assert abs(log_dt.mean() - math.log(0.01)) < 0.25


def test_constant_dt_weights_and_the_floor() -> None:
    mixer = build(dt_init="constant", dt_scale=0.5, dt_rank=4, dt_min=1e-6, dt_max=1e-5).stack.blocks[0].mixer
    assert torch.equal(mixer.dt_proj.weight, torch.full_like(mixer.dt_proj.weight, 0.25))
    dt = F.softplus(mixer.dt_proj.bias)
    torch.testing.assert_close(dt, torch.full_like(dt, 1e-4), rtol=1e-2, atol=0)


def test_a_and_d_carry_no_weight_decay() -> None:
    decay = {name: option.weight_decay for name, _, option in parameters_with_options(build(n_layers=1))}
    assert {name.split(".")[-1] for name, wd in decay.items() if wd is None} == {"weight"}
    assert decay["stack.blocks.0.mixer.A_log"] == decay["stack.blocks.0.mixer.D"] == 0.0
    assert decay["stack.blocks.0.mixer.dt_proj.bias"] == 0.0


# -- the plugin --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("d_state", 0, "integer > 0, got 0"),
        ("d_conv", 0, "integer > 0, got 0"),
        ("dt_rank", 17, "d_inner = expand \\* d_model = 16, got 17"),
        ("dt_min", 0.2, "at most dt_max 0.1, got 0.2"),
        ("norm", "batch", r"expected rms \| layer, got 'batch'"),
        ("dt_init", "zero", r"expected random \| constant, got 'zero'"),
        ("dropout", 1.0, "got 1.0"),
    ],
)
def test_impossible_configurations_are_named(key: str, value: object, message: str) -> None:
    record = registry().architecture("mamba").record
    with pytest.raises(ConfigError, match=message) as caught:
        record.build(MambaConfig(**{key: value}), d_model=8, n_layers=1, mode="causal", max_len=8)
    assert caught.value.key == f"arch.{key}"


def test_there_is_no_bidirectional_form() -> None:
    with pytest.raises(ConfigError, match="bidirectional"):
        registry().architecture("mamba").record.build(d_model=8, n_layers=1, mode="bidirectional", max_len=8)


def test_presets_fit_the_configuration() -> None:
    for (task, protocol), preset in PRESETS.items():
        assert protocol in ("paper", "quick"), task
        for key, value in preset.values.items():
            assert preset.sources[key].startswith("ours, because"), (task, key)
            if key.startswith("arch."):
                validate_value(key, value, field_types(MambaConfig)[key.removeprefix("arch.")])
    assert REPORTED == ()


def test_describing_it_imports_no_torch() -> None:
    code = "import sys, zoo_mamba, zoo_mamba.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
