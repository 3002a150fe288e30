"""S5 as a plugin: its three forms agree, pads, states, initial values, optimiser options, configuration, presets."""

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
from zoo.nn import parameters_with_options
from zoo.ops.backend import forms_that_ran, use_backend
from zoo.spec.presets import load_presets
from zoo.testing import ArchitectureSuite
from zoo_s5.backbone import S5Backbone, S5Mixer
from zoo_s5.config import S5Config
from zoo_s5.ssm import S5SSM, blocks_of_hippo_n

PRESETS, REPORTED = load_presets("zoo_s5")

FORMS = [
    {},
    {"blocks": 1, "gate": "half_glu2", "prenorm": False},
    {"gate": "full_glu", "disc": "bilinear", "clip_eigs": False},
    {"gate": "gelu", "conj_sym": False, "norm": "rms"},
]


def build(mode: str = "causal", d_model: int = 8, dtype: torch.dtype = torch.float64, **config: object) -> S5Backbone:
    torch.manual_seed(0)
    dims = ModelDims(d_model=d_model, n_layers=2, mode=mode, max_len=512)
    return S5Backbone(S5Config(**{"d_state": 8, "blocks": 2, **config}), dims).to(dtype)


def sequence(batch: int = 3, seq_len: int = 13, d_model: int = 8) -> Tensor:
    return torch.randn(batch, seq_len, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


class TestFreeEigenvaluesConformance(ArchitectureSuite):
    """The defaults are among the architectures that the suite runs for; this is without conjugate symmetry."""

    architecture = "s5"
    slow = False  # what traces it is that of the default
    overrides = MappingProxyType({"conj_sym": False, "d_state": 6, "blocks": 3, "gate": "full_glu", "disc": "bilinear"})


# -- three forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", FORMS, ids=str)
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


@pytest.mark.parametrize("config", FORMS, ids=str)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_the_state_space_model_is_its_equation(config: dict[str, object], mode: str) -> None:
    """Token by token in complex numbers, both directions with the current input."""
    ssm: S5SSM = build(mode, **config).stack.blocks[1].mixer.ssm
    u, L = sequence(), 13
    Lambda, Delta = torch.complex(ssm.Lambda_re, ssm.Lambda_im), ssm.log_step.exp()
    B, C = torch.view_as_complex(ssm.B), torch.view_as_complex(ssm.C)
    if ssm.disc == "zoh":
        a = torch.exp(Lambda * Delta)
        b = ((a - 1) / Lambda)[:, None] * B
    else:
        a = (1 + Delta * Lambda / 2) / (1 - Delta * Lambda / 2)
        b = (Delta / (1 - Delta * Lambda / 2))[:, None] * B
    y = ssm.D * u
    for direction in range(len(C)):
        x = torch.zeros(3, len(a), dtype=a.dtype)
        for t in range(L) if direction == 0 else reversed(range(L)):
            x = a * x + u[:, t].to(a.dtype) @ b.T
            y[:, t] += (2 if ssm.conj_sym else 1) * (x @ C[direction].T).real
    assert_close([ssm.discretize(u.dtype).scan(u)[0]], [y])


@pytest.mark.parametrize("gate", ["full_glu", "half_glu1", "half_glu2", "gelu"])
def test_gates(gate: str) -> None:
    mixer: S5Mixer = build(gate=gate).stack.blocks[0].mixer
    y = sequence()
    g = F.gelu(y, approximate="tanh")
    if gate == "gelu":
        expected = g
    else:
        first = {"full_glu": lambda: mixer.out1(g), "half_glu1": lambda: g, "half_glu2": lambda: y}[gate]()
        expected = first * torch.sigmoid(g @ mixer.out2.weight.T + mixer.out2.bias)
    assert_close([mixer.activate(y)], [expected])


def test_gradients_flow_through_the_state() -> None:
    for config in FORMS:
        model, x, weight = build(**config), sequence().requires_grad_(), torch.randn(3, 13, 8, dtype=torch.float64)
        over = [x, *model.parameters()]
        whole = torch.autograd.grad((model(x).hidden * weight).sum(), over)
        assert all(g.abs().max() > 1e-8 for g in whole)
        first = model(x[:, :5])
        second = model(x[:, 5:], state=first.state)
        loss = (torch.cat([first.hidden, second.hidden], 1) * weight).sum()
        assert_close(list(torch.autograd.grad(loss, over)), list(whole))
        state, loss = model.init_state(3, device="cpu", dtype=x.dtype), torch.zeros(())
        for t in range(13):
            y_t, state = model.step(x[:, t], state)
            loss = loss + (y_t * weight[:, t]).sum()
        assert_close(list(torch.autograd.grad(loss, over)), list(whole))


def test_reference_form_agrees() -> None:
    model, x = build("bidirectional"), sequence(seq_len=65)
    fast = model(x).hidden
    forms_that_ran(reset=True)
    with use_backend("reference"):
        assert_close([model(x).hidden], [fast])
    assert forms_that_ran() == {"diagonal_scan": "reference"}


# -- pads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", FORMS, ids=str)
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
    """mask, then step: each row goes on from its own last real token, a row without any from where it was."""
    model, x, more = build(), sequence(), sequence(seq_len=4) + 1
    start = model(sequence(seq_len=6)).state
    mask = torch.arange(13) < torch.tensor([13, 6, 0])[:, None]
    state = model(x, mask=mask, state=start).state
    for t in range(4):
        y_t, state = model.step(more[:, t], state)
    for b, n in enumerate([13, 6, 0]):
        row = torch.cat([x[b : b + 1, :n], more[b : b + 1]], 1)
        assert_close([y_t[b : b + 1]], [model(row, state=[s[b : b + 1] for s in start]).hidden[:, -1]])


def test_batch_norm_ignores_pads_in_training() -> None:
    model = build("bidirectional", norm="batch", bn_momentum=0.9).train()
    x, mask = sequence(), torch.arange(13) < torch.tensor([13, 6, 2])[:, None]
    before = model.stack.blocks[0].norm1.running_mean.clone()
    out = model(x, mask=mask).hidden
    moved = model.stack.blocks[0].norm1.running_mean.clone()
    assert_close([moved], [0.9 * before + 0.1 * x[mask].mean(0)])
    other = model(torch.where(mask[..., None], x, torch.full_like(x, 7.0)), mask=mask).hidden
    assert_close([out[mask]], [other[mask]])


def test_no_leak_from_the_future() -> None:
    for config in FORMS:
        model, x = build(**config), sequence(seq_len=40).requires_grad_()
        (g,) = torch.autograd.grad(model(x).hidden[0, 17, 0], x)
        assert g[0, 18:].abs().max() < 1e-12 * g[0, :18].abs().max()
        assert (g[1:] == 0).all()


# -- initial values, precision, optimiser options --------------------------------------------------------------------


@pytest.mark.parametrize("conj_sym", [True, False])
def test_blocks_diagonalise_hippo_n(conj_sym: bool) -> None:
    Lambda, V = blocks_of_hippo_n(12, 3, conj_sym=conj_sym)
    assert V.shape == (12, 6 if conj_sym else 12)
    A = (V * Lambda) @ V.conj().T  # with conj_sym half of every pair: the other half is its conjugate
    A = 2 * A.real if conj_sym else A.real
    n = torch.arange(4, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    legs = -torch.tril(torch.outer(root, root), -1) - torch.diag(n + 1)
    block = legs + 0.5 * torch.outer(root, root)
    torch.testing.assert_close(A, torch.block_diag(block, block, block), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("c_init", "std"),
    [("trunc_standard_normal", 64**-0.5), ("lecun_normal", (512 * 64) ** -0.5), ("complex_normal", 0.5**0.5)],
)
def test_initial_values(c_init: str, std: float) -> None:
    torch.manual_seed(0)
    config = S5Config(d_state=64, blocks=8, c_init=c_init, dt_min=1e-3, dt_max=1e-1)
    ssm = S5SSM(config, 512, bidirectional=True).requires_grad_(False)
    assert ssm.C.shape == (2, 512, 32, 2)
    assert abs(float(ssm.C.std()) / std - 1) < 0.02
    # V has unit columns: |B~| per state has the deviation of B, over both parts together
    assert abs(float(torch.view_as_complex(ssm.B).abs().square().mean().sqrt()) * 8 - 1) < 0.02
    assert (ssm.Lambda_re == -0.5).all()
    assert (ssm.Lambda_im < 0).all()
    log_step = torch.cat([S5SSM(config, 2, bidirectional=False).log_step for _ in range(20)])
    assert math.log(1e-3) <= float(log_step.min()) < math.log(1.1e-3)
    assert math.log(0.9e-1) < float(log_step.max()) <= math.log(1e-1)
    assert abs(float(log_step.mean()) - math.log(1e-2)) < 0.2


def test_clipped_eigenvalues_do_not_grow() -> None:
    x = sequence(1, 4096)
    for clip, finite in ((True, True), (False, False)):
        model = build(clip_eigs=clip, dt_min=0.1)
        with torch.no_grad():
            model.stack.blocks[0].mixer.ssm.Lambda_re[0] = 5.0
        assert bool(model(x).hidden.isfinite().all()) is finite


def test_step_rescale_is_a_longer_step() -> None:
    twice, model = build(step_rescale=2.0), build()
    with torch.no_grad():
        for block in model.stack.blocks:
            block.mixer.ssm.log_step += math.log(2)
    assert_close([twice(sequence()).hidden], [model(sequence()).hidden])


def test_float32_agrees_with_float64() -> None:
    double, single = build(d_state=64, dt_min=1e-4), build(d_state=64, dt_min=1e-4, dtype=torch.float32)
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
    state = mixer(x.float())[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, low = mixer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(low, state)


@pytest.mark.parametrize(
    ("config", "B", "log_step"),
    [
        ({"groups": "standard"}, (0.002, 0.0), (0.002, 0.0)),
        ({"groups": "BandCdecay"}, (0.002, None), (0.002, 0.0)),
        ({"groups": "BfastandCdecay", "dt_global": True}, (None, None), (None, None)),
    ],
)
def test_optimiser_options(config: dict[str, object], B: object, log_step: object) -> None:
    model = build("bidirectional", norm="batch", ssm_lr=0.002, gate="full_glu", **config)
    options = {name: option for name, _, option in parameters_with_options(model) if name.startswith("stack.blocks.0.")}
    options_of = {name.removeprefix("stack.blocks.0."): (o.lr, o.weight_decay) for name, o in options.items()}
    assert options_of == {
        "mixer.ssm.Lambda_re": (0.002, 0.0),
        "mixer.ssm.Lambda_im": (0.002, 0.0),
        "mixer.ssm.B": B,
        "mixer.ssm.log_step": log_step,
        "mixer.ssm.C": (None, None),
        "mixer.ssm.D": (None, None),
        "mixer.out1.weight": (None, None),
        "mixer.out1.bias": (None, None),
        "mixer.out2.weight": (None, None),
        "mixer.out2.bias": (None, None),
        "norm1.weight": (None, None),
        "norm1.bias": (None, None),
    }


# -- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "config", "dims"),
    [
        ("d_state", {"d_state": 0}, {}),
        ("blocks", {"d_state": 8, "blocks": 3}, {}),
        ("blocks", {"d_state": 6, "blocks": 2}, {}),
        ("disc", {"disc": "euler"}, {}),
        ("c_init", {"c_init": "zeros"}, {}),
        ("gate", {"gate": "glu"}, {}),
        ("groups", {"groups": "all"}, {}),
        ("dt_min", {"dt_min": 0.2}, {}),
        ("step_rescale", {"step_rescale": 0.0}, {}),
        ("bn_momentum", {"bn_momentum": 1.0}, {}),
        ("dropout", {"dropout": 1.0}, {}),
        ("ssm_lr", {"ssm_lr": -1.0}, {}),
        ("norm", {"norm": "batch"}, {"mode": "causal"}),
    ],
)
def test_refuses(key: str, config: dict[str, object], dims: dict[str, object]) -> None:
    given = ModelDims(**{"d_model": 8, "n_layers": 1, "mode": "bidirectional", "max_len": 16, **dims})
    with pytest.raises(ConfigError) as error:
        registry().architecture("s5").record.check(S5Config(**config), given)  # type: ignore[arg-type]
    assert error.value.key == f"arch.{key}"


def test_states_of_others_are_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"2.*3"):
        model(sequence(), state=model(sequence(2)).state)
    with pytest.raises(ValueError, match="carries none in this mode"):
        build("bidirectional")(sequence(), state=model(sequence()).state)
    with pytest.raises(ValueError, match="4"):
        model(sequence(), state=build(d_state=16)(sequence()).state)


def test_metadata_needs_no_torch() -> None:
    use = "[a.load_presets() for a in zoo_s5.zoo_architectures()]; print('torch' in sys.modules)"
    code = f"import sys, zoo_s5, zoo_s5.config; {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_presets_fit_the_configuration() -> None:
    record = registry().architecture("s5").record
    tasks = {"listops", "text", "retrieval", "image", "pathfinder", "pathx"}
    assert {task for task, protocol in PRESETS if protocol == "paper"} == tasks
    for preset in PRESETS.values():
        own = {k.removeprefix("arch."): v for k, v in preset.values.items() if k.startswith("arch.")}
        config = S5Config(**own)
        dims = ModelDims(
            d_model=preset.values.get("model.d_model", 64),
            n_layers=preset.values.get("model.n_layers", 2),
            mode=preset.values.get("model.mode", "bidirectional"),
            max_len=16384,
        )
        record.check(config, dims)
    pathx = PRESETS["pathx", "paper"].values
    assert (pathx["arch.dt_min"], pathx["arch.c_init"], pathx["optim.lr"]) == (1e-4, "complex_normal", 0.0018)
    assert {r.task for r in REPORTED} == tasks
    assert all(0.5 < r.value < 1 and r.metric == "accuracy" for r in REPORTED)
