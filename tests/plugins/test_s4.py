"""S4 as a plugin: its three forms agree, pads, states, initial values, optimiser options, configuration, presets."""

from __future__ import annotations

import math
import subprocess
import sys
from types import MappingProxyType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import ConfigError, ModelDims, registry
from zoo.nn import TiedDropout, parameters_with_options
from zoo.ops.backend import forms_that_ran, use_backend
from zoo.spec.presets import load_presets
from zoo.testing import ArchitectureSuite
from zoo_s4.backbone import S4Backbone, S4Mixer
from zoo_s4.config import S4Config

PRESETS, REPORTED = load_presets("zoo_s4")

KERNELS = [
    {},
    {"n_ssm": 4},
    {"n_ssm": None, "prenorm": False},
    {"kernel": "diag"},
    {"kernel": "diag", "init": "lin", "disc": "bilinear"},
    {"kernel": "diag", "init": "inv", "n_ssm": None},
]


def build(mode: str = "causal", d_model: int = 8, dtype: torch.dtype = torch.float64, **config: object) -> S4Backbone:
    torch.manual_seed(0)
    dims = ModelDims(d_model=d_model, n_layers=2, mode=mode, max_len=512)
    return S4Backbone(S4Config(**{"d_state": 8, **config}), dims).to(dtype)


def sequence(batch: int = 3, seq_len: int = 13, d_model: int = 8) -> Tensor:
    return torch.randn(batch, seq_len, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


class TestDiagonalConformance(ArchitectureSuite):
    """The defaults (dplr) are among the architectures that the suite runs for; this is its other kernel."""

    architecture = "s4"
    slow = False  # what traces its backbone is that of the default, and what traces its kernel that of H3
    overrides = MappingProxyType({"kernel": "diag", "init": "lin", "d_state": 8, "n_ssm": None})


# -- three forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", KERNELS, ids=str)
def test_steps_and_pieces_equal_the_whole(config: dict[str, object]) -> None:
    model, x = build(**config), sequence(seq_len=301)
    with torch.no_grad():
        whole = model(x)
        state, ys = model.init_state(3, device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, state = model.step(x_t, state)
            ys.append(y_t)
        assert_close([torch.stack(ys, 1), *state], [whole.hidden, *whole.state])
        state, ys = None, []
        for piece in x.split([1, 2, 290, 7, 1], 1):
            hidden, state, _ = model(piece, state=state)
            ys.append(hidden)
        assert_close([torch.cat(ys, 1), *state], [whole.hidden, *whole.state])


@pytest.mark.parametrize("config", KERNELS, ids=str)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_the_mixer_is_its_equation(config: dict[str, object], mode: str) -> None:
    """GLU(W GELU(K * x + D x)) with the convolution as two sums, the second from the next token on."""
    mixer: S4Mixer = build(mode, **config).stack.blocks[1].mixer
    x, L = sequence(), 13
    K = mixer.kernel.discretize().kernel(L, x.dtype)
    u = torch.zeros_like(x)
    for t in range(L):
        u[:, t] = mixer.D * x[:, t]
        for s in range(L):
            if s <= t:
                u[:, t] += K[0, :, t - s] * x[:, s]
            elif mode == "bidirectional":
                u[:, t] += K[1, :, s - t - 1] * x[:, s]
    a, b = (F.gelu(u) @ mixer.output_linear.weight.T + mixer.output_linear.bias).chunk(2, -1)
    assert_close([mixer(x)[0]], [a * torch.sigmoid(b)])


def test_gradients_flow_through_the_state() -> None:
    for config in ({}, {"kernel": "diag"}):
        model, x, weight = build(**config), sequence().requires_grad_(), torch.randn(3, 13, 8, dtype=torch.float64)
        over = [x, *model.parameters()]
        whole = torch.autograd.grad((model(x).hidden * weight).sum(), over)
        assert all(g.abs().max() > 1e-6 for g in whole)
        first = model(x[:, :5])
        second = model(x[:, 5:], state=first.state)
        loss = (torch.cat([first.hidden, second.hidden], 1) * weight).sum()
        assert_close(list(torch.autograd.grad(loss, over)), list(whole))
        state, loss = model.init_state(3, device="cpu", dtype=x.dtype), torch.zeros(())
        for t in range(13):
            y_t, state = model.step(x[:, t], state)
            loss = loss + (y_t * weight[:, t]).sum()
        assert_close(list(torch.autograd.grad(loss, over)), list(whole))


def test_reference_forms_agree() -> None:
    for config in ({}, {"kernel": "diag"}):
        model, x = build("bidirectional", **config), sequence(seq_len=65)
        fast = model(x).hidden
        forms_that_ran(reset=True)
        with use_backend("reference"):
            assert_close([model(x).hidden], [fast])
        assert set(forms_that_ran().values()) == {"reference"}


# -- pads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*KERNELS, {"norm": "rms"}], ids=str)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_right_pads_change_nothing(config: dict[str, object], mode: str) -> None:
    model, x = build(mode, **config), sequence(seq_len=150)
    lengths = [150, 133, 1]
    mask = torch.arange(150) < torch.tensor(lengths)[:, None]
    noise = 100 * torch.randn_like(x)
    out = model(torch.where(mask[..., None], x, noise), mask=mask)
    start = model(sequence(seq_len=4)).state if mode == "causal" else None
    carried = model(torch.where(mask[..., None], x, noise), mask=mask, state=start)
    for b, n in enumerate(lengths):
        alone = model(x[b : b + 1, :n])
        assert_close([out.hidden[b : b + 1, :n]], [alone.hidden])
        if mode == "causal":
            assert_close([s[b : b + 1] for s in out.state], list(alone.state))
            after = model(x[b : b + 1, :n], state=[s[b : b + 1] for s in start])
            assert_close([s[b : b + 1] for s in carried.state], list(after.state))
            assert_close([carried.hidden[b : b + 1, :n]], [after.hidden])


def test_a_padded_state_continues_by_steps() -> None:
    """mask, then step: each row goes on from its own last real token."""
    model, x, more = build(), sequence(), sequence(seq_len=4) + 1
    mask = torch.arange(13) < torch.tensor([13, 6, 0])[:, None]
    state = model(x, mask=mask).state
    for t in range(4):
        y_t, state = model.step(more[:, t], state)
    for b, n in enumerate([13, 6, 0]):
        row = model(torch.cat([x[b : b + 1, :n], more[b : b + 1]], 1))
        assert_close([y_t[b : b + 1]], [row.hidden[:, -1]])


def test_batch_norm_ignores_pads_in_training() -> None:
    model = build("bidirectional", norm="batch").train()
    x, mask = sequence(), torch.arange(13) < torch.tensor([13, 6, 2])[:, None]
    out = model(x, mask=mask).hidden
    other = model(torch.where(mask[..., None], x, torch.full_like(x, 7.0)), mask=mask).hidden
    assert_close([out[mask]], [other[mask]])


def test_no_leak_from_the_future() -> None:
    for config in ({}, {"kernel": "diag"}):
        model, x = build(**config), sequence(seq_len=40).requires_grad_()
        # not a plain sum: that of a layer norm's outputs is constant
        (g,) = torch.autograd.grad(model(x).hidden[0, 17, 0], x)
        assert g[0, 18:].abs().max() < 1e-12 * g[0, :18].abs().max()
        assert (g[1:] == 0).all()


# -- initial values, precision, optimiser options --------------------------------------------------------------------


def test_initial_values() -> None:
    torch.manual_seed(0)
    kernel = S4Mixer(S4Config(d_state=64, dt_min=1e-3, dt_max=1e-1), 512, bidirectional=True).kernel
    dt = F.softplus(kernel.inv_dt)
    assert 1e-3 * 0.999 <= float(dt.min()) < 1.1e-3
    assert 0.9e-1 < float(dt.max()) <= 1e-1 * 1.001
    assert abs(float(dt.log().mean()) - math.log(1e-2)) < 0.2  # log-uniform
    assert abs(float(kernel.C.var()) - 0.5) < 0.01
    assert float(kernel.B[..., 1].abs().max()) == 2.0
    torch.testing.assert_close(torch.exp(kernel.A_real), torch.full_like(kernel.A_real, 0.5))
    assert (kernel.A_imag > 0).all()


def test_copies_are_shared_round_robin() -> None:
    """Channel h uses copy h mod S: with equal dt and C, channels 0 and 4 of 8 have one kernel, 0 and 1 do not."""
    kernel = build(n_ssm=4).stack.blocks[0].mixer.kernel
    with torch.no_grad():
        kernel.A_imag.mul_(torch.arange(1, 5, dtype=torch.float64)[:, None])
        kernel.C.copy_(kernel.C[:, :1].expand_as(kernel.C))
        kernel.inv_dt.fill_(-3.0)
    K = kernel.discretize().kernel(32, torch.float64)[0]
    assert_close([K[:4]], [K[4:]])
    assert (K[0] - K[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kernel", ["dplr", "diag"])
def test_float32_agrees_with_float64(kernel: str) -> None:
    double = build(kernel=kernel, d_state=64, dt_min=1e-4)
    single = build(kernel=kernel, d_state=64, dt_min=1e-4, dtype=torch.float32)
    x = sequence(2, 4096)
    a, b = single(x.float()), double(x)
    assert a.hidden.dtype == torch.float32
    assert a.state[0].dtype == torch.complex64
    assert b.state[0].dtype == torch.complex128
    assert (a.hidden - b.hidden).abs().max() < 1e-5 * b.hidden.abs().max()
    for s, t in zip(a.state, b.state, strict=True):
        assert (s - t).abs().max() < 1e-4 * t.abs().max()


def test_autocast_stays_out_of_the_recurrence() -> None:
    mixer = build(dtype=torch.float32).stack.blocks[0].mixer
    x = sequence().bfloat16()
    exact, state = mixer.convolve(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, low = mixer.convolve(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, exact.bfloat16())
    torch.testing.assert_close(low, state)


def test_optimiser_options() -> None:
    model = build("bidirectional", ssm_lr=0.002, dt_lr=0.003, c_lr=0.004)
    options = {
        name: option for name, _, option in parameters_with_options(model) if name.startswith("stack.blocks.0.mixer.")
    }
    options_of = {name.removeprefix("stack.blocks.0.mixer."): (o.lr, o.weight_decay) for name, o in options.items()}
    assert options_of == {
        "kernel.A_real": (0.002, 0.0),
        "kernel.A_imag": (0.002, 0.0),
        "kernel.B": (0.002, 0.0),
        "kernel.P": (0.002, 0.0),
        "kernel.inv_dt": (0.003, 0.0),
        "kernel.C": (0.004, None),
        "D": (None, None),
        "output_linear.weight": (None, None),
        "output_linear.bias": (None, 0.0),
    }


def test_tied_dropout_drops_channels_of_sequences() -> None:
    torch.manual_seed(0)
    out = TiedDropout(0.5).train()(torch.ones(4, 9, 32))
    assert (out == out[:, :1]).all()
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert not (out[0] == out[1]).all()
    assert TiedDropout(0.5).train()(torch.ones(4, 32)).shape == (4, 32)
    model, x = build(dropout=0.5, tie_dropout=True), sequence()
    assert (model.train()(x).hidden != model(x).hidden).any()
    assert_close([model.eval()(x).hidden], [build()(x).hidden])


# -- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "config", "dims"),
    [
        ("d_state", {"d_state": 7}, {}),
        ("n_ssm", {"n_ssm": 3}, {}),
        ("kernel", {"kernel": "nplr"}, {}),
        ("init", {"init": "lin"}, {}),
        ("init", {"kernel": "diag", "init": "fout"}, {}),
        ("disc", {"disc": "zoh"}, {}),
        ("dt_min", {"dt_min": 0.2}, {}),
        ("dropout", {"dropout": 1.0}, {}),
        ("ssm_lr", {"ssm_lr": -1.0}, {}),
        ("norm", {"norm": "batch"}, {"mode": "causal"}),
        ("norm", {"norm": "group"}, {}),
    ],
)
def test_refuses(key: str, config: dict[str, object], dims: dict[str, object]) -> None:
    given = ModelDims(**{"d_model": 8, "n_layers": 1, "mode": "bidirectional", "max_len": 16, **dims})
    with pytest.raises(ConfigError) as error:
        registry().architecture("s4").record.check(S4Config(**config), given)  # type: ignore[arg-type]
    assert error.value.key == f"arch.{key}"


def test_a_state_of_another_batch_and_a_bidirectional_state_are_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match="batch size 2 given with an input of batch size 3"):
        model(sequence(), state=model(sequence(2)).state)
    with pytest.raises(ValueError, match="carries none in this mode"):
        build("bidirectional")(sequence(), state=model(sequence()).state)


def test_metadata_needs_no_torch() -> None:
    use = "[a.load_presets() for a in zoo_s4.zoo_architectures()]; print('torch' in sys.modules)"
    code = f"import sys, zoo_s4, zoo_s4.config; {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_presets_fit_the_configuration() -> None:
    record = registry().architecture("s4").record
    for (task, protocol), preset in PRESETS.items():
        own = {k.removeprefix("arch."): v for k, v in preset.values.items() if k.startswith("arch.")}
        config = S4Config(**own)
        dims = ModelDims(
            d_model=preset.values.get("model.d_model", 64),
            n_layers=preset.values.get("model.n_layers", 2),
            mode=preset.values.get("model.mode", "bidirectional"),
            max_len=16384,
        )
        record.check(config, dims)
        language = {"wikitext", "lambada_openai", "lambada_standard"} if protocol == "quick" else set()
        assert task in {"listops", "text", "retrieval", "image", "pathfinder", "pathx"} | language
    pathx = PRESETS["pathx", "paper"].values
    assert pathx["arch.dt_min"] == 1e-4
    assert pathx["arch.n_ssm"] is None
    assert {r.task for r in REPORTED} == {"listops", "text", "retrieval", "image", "pathfinder", "pathx"}
    assert all(0.5 < r.value < 1 and r.metric == "accuracy" and "Megalodon" in r.source for r in REPORTED)
