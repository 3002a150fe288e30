"""Mega as a plugin: the layer is its equations, its forms agree, chunks, states, limits, initial values, presets."""

from __future__ import annotations

import subprocess
import sys
from types import MappingProxyType

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import zoo_mega.op
from tests.plugins.mega_by_hand import backbone_by_hand
from zoo import ConfigError, ModelDims, registry
from zoo.nn import parameters_with_options
from zoo.spec.presets import load_presets
from zoo.testing import ARCHITECTURE_CHECKS, ArchitectureSuite
from zoo_mega.backbone import MegaBackbone, MovingAverage
from zoo_mega.config import MegaConfig
from zoo_mega.op import attention_weights, relative_bias, single_head_attention

PRESETS, REPORTED = load_presets("zoo_mega")

VARIANTS = [
    {},
    {"chunk_size": -1},
    {"chunk_size": 5, "attention": "laplace"},
    {"chunk_size": 5, "attention": "relu2", "bias": "rotary", "norm": "scale", "prenorm": False},
    {"chunk_size": -1, "attention": "laplace", "bias": "rotary", "norm": "rms"},
    {"chunk_size": 1},
]


def build(mode: str = "causal", *, max_len: int = 64, **config: object) -> MegaBackbone:
    """Float64, with noise on every parameter."""
    torch.manual_seed(0)
    dims = ModelDims(d_model=6, n_layers=2, mode=mode, max_len=max_len)
    chosen = MegaConfig(**{"d_ema": 3, **config})  # type: ignore[arg-type]
    chosen.check(dims)
    model = MegaBackbone(chosen, dims).double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model.eval()


def sequence(batch: int = 3, seq_len: int = 13, seed: int = 1) -> Tensor:
    return torch.randn(batch, seq_len, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ragged(seq_len: int, *lengths: int) -> Tensor:
    return torch.arange(seq_len) < torch.tensor(lengths)[:, None]


def numbers(state: list[dict[str, Tensor]]) -> list[Tensor]:
    return [leaf for layer in state for leaf in layer.values()]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


class TestFullLaplaceRotaryConformance(ArchitectureSuite):
    """The suite runs for the defaults; this is attention over everything, whose state grows."""

    architecture = "mega"
    overrides = MappingProxyType({"chunk_size": -1, "attention": "laplace", "bias": "rotary", "prenorm": False})
    # the cost that is declared is the default's: without chunks attention is quadratic
    checks = tuple(check for check in ARCHITECTURE_CHECKS if not check.name.endswith("grows_as_declared"))


class TestSmallChunksConformance(ArchitectureSuite):
    """Chunks that lengths cross, end in and stay below."""

    architecture = "mega"
    slow = False  # what traces it is that of the default
    overrides = MappingProxyType({"chunk_size": 8, "norm": "scale"})


# -- the equations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_the_backbone_is_its_equations(mode: str, config: dict[str, object]) -> None:
    model, x, mask = build(mode, **config), sequence(), ragged(13, 13, 11, 4)
    expected = backbone_by_hand(model, x, mask)
    assert_close([model(x, mask=mask).hidden[mask]], [expected[mask]])


def test_truncated_average_has_so_many_taps() -> None:
    model, x = build("bidirectional", truncation=4), sequence()
    ema = model.stack.blocks[0].mixer.ema
    K = ema.kernel(13, torch.float64)
    assert K.shape == (2, 6, 4)
    x = x.requires_grad_()
    y, _ = ema(x)
    (gradient,) = torch.autograd.grad(y[0, 6].sum(), x)
    reached = gradient[0].abs().amax(-1) > 1e-12
    assert reached.nonzero().flatten().tolist() == list(range(3, 10))


# -- three forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_steps_and_pieces_equal_the_whole(config: dict[str, object]) -> None:
    model, x = build(**config), sequence(seq_len=37)
    with torch.no_grad():
        whole = model(x)
        state, ys = model.init_state(3, device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, state = model.step(x_t, state)
            ys.append(y_t)
        assert_close([torch.stack(ys, 1), *numbers(state)], [whole.hidden, *numbers(whole.state)])
        state, ys = None, []
        for piece in x.split([1, 3, 5, 10, 17, 1], 1):
            hidden, state, _ = model(piece, state=state)
            ys.append(hidden)
        assert_close([torch.cat(ys, 1), *numbers(state)], [whole.hidden, *numbers(whole.state)])


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_rows_go_on_from_where_each_stopped(config: dict[str, object]) -> None:
    """After a padded call every row continues at its own place in its own chunk, by pieces and by steps."""
    model, first, second = build(**config), sequence(seq_len=12), sequence(seq_len=9, seed=2)
    lengths = (12, 7, 0)
    with torch.no_grad():
        state = model(first, mask=ragged(12, *lengths)).state
        hidden = model(second, state=state).hidden
        stepped = []
        for x_t in second.unbind(1):
            y_t, state = model.step(x_t, state)
            stepped.append(y_t)
        for row, n in enumerate(lengths):
            alone = model(torch.cat([first[row, :n], second[row]])[None]).hidden[0, n:]
            assert_close([hidden[row], torch.stack(stepped, 1)[row]], [alone, alone])


def test_chunk_as_long_as_the_sequence_is_no_chunk() -> None:
    chunked = build("bidirectional", chunk_size=13)
    whole = build("bidirectional", chunk_size=-1, max_positions=13, max_len=13)
    whole.load_state_dict(chunked.state_dict())
    assert_close([chunked(sequence()).hidden], [whole(sequence()).hidden])


def test_chunks_meet_in_the_average_only() -> None:
    """A token of the first chunk reaches the second chunk, and does not once the average is cut off."""
    model, x = build("bidirectional", chunk_size=4), sequence(batch=1, seq_len=8).requires_grad_()
    layer = model.stack.blocks[0].mixer

    def reach() -> float:
        y, _ = layer(x)
        (gradient,) = torch.autograd.grad(y[0, 7].sum(), x)
        return float(gradient[0, 0].abs().max())

    assert reach() > 1e-6
    with torch.no_grad():
        layer.ema.eta.zero_()
    assert reach() == 0


def test_slices_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond MAX_SCORES queries are taken in slices and recomputed: outputs and gradients are the same."""
    for config in VARIANTS:
        model, x, mask = build(**config), sequence(), ragged(13, 13, 11, 4)
        results = []
        for limit in (1 << 24, 20):
            monkeypatch.setattr(zoo_mega.op, "MAX_SCORES", limit)
            leaf = x.clone().requires_grad_()
            first = model(leaf[:, :6])
            hidden = model(leaf[:, 6:], mask=mask[:, 6:], state=first.state).hidden
            loss = (first.hidden.sum() + hidden.square().sum()) / 10
            results.append([hidden, *torch.autograd.grad(loss, [leaf, *model.parameters()])])
        assert_close(*results)
        with torch.no_grad():
            assert_close([model(x[:, 6:], state=model(x[:, :6]).state).hidden], [model(x).hidden[:, 6:]])


def test_recomputed_slices_use_the_given_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """functional_call swaps parameters back before backward; what is computed again there must not notice."""
    model, x = build("bidirectional", chunk_size=-1), sequence()
    given = {k: (v.detach() * 1.5).requires_grad_() for k, v in model.named_parameters()}
    results = []
    for limit in (1 << 24, 20):
        monkeypatch.setattr(zoo_mega.op, "MAX_SCORES", limit)
        hidden = functional_call(model, given, (x,)).hidden
        results.append(list(torch.autograd.grad(hidden.square().sum(), list(given.values()))))
    assert_close(*results)


# -- pads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["softmax", "laplace", "relu2"])
@pytest.mark.parametrize("causal", [True, False])
def test_queries_that_see_nothing_are_finite(kind: str, causal: bool) -> None:
    """Pads in front as well: no row is empty for the softmax, and nothing real changes."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    w = torch.randn(11, dtype=torch.float64)
    real = torch.tensor([[False, False, True, True, False, True], [False] * 6])
    o = single_head_attention(q, k, v, (w,), torch.arange(6), real, kind=kind, causal=causal)
    gradients = torch.autograd.grad(o.sum(), (q, k, v))
    assert all(torch.isfinite(t).all() for t in (o, *gradients))
    weights = attention_weights(q, k, (w,), torch.arange(6), real, kind=kind, causal=causal)
    assert not weights[0, real[0]][:, ~real[0]].any()


def test_rotary_bias_depends_on_the_lag_only() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 8, dtype=torch.float64)
    bias = relative_bias((a, b), torch.arange(9), 9)
    assert_close([bias[1:, 1:]], [bias[:-1, :-1]])
    rows = relative_bias((a, b), torch.tensor([[3, 8], [0, 1]]), 9)
    assert_close([rows], [torch.stack([bias[[3, 8]], bias[[0, 1]]])])


def test_sixteen_bit_calls_keep_wide_scores() -> None:
    """Under bfloat16 autocast the average, the scores' function and the norms stay in float32."""
    model = build("bidirectional", attention="laplace").float()
    x = sequence().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x).hidden
    assert torch.isfinite(half).all()
    assert (half.float() - model(x).hidden).abs().max() < 0.3
    q = torch.randn(1, 5, 4, dtype=torch.bfloat16)
    weights = attention_weights(q, q, (torch.randn(9),), torch.arange(5), None, kind="softmax", causal=True)
    assert weights.dtype == torch.float32


# -- limits and mistakes -----------------------------------------------------------------------------------------------


def test_more_positions_than_the_bias_has_name_both_numbers() -> None:
    model = build(chunk_size=-1, max_len=8)
    with pytest.raises(ValueError, match=r"9 positions.*has 8"):
        model(sequence(seq_len=9))
    state = model(sequence(seq_len=5)).state
    with pytest.raises(ValueError, match=r"10 positions.*has 8"):
        model(sequence(seq_len=5), state=state)
    roomy = build(chunk_size=-1, max_len=8, max_positions=16)
    roomy(sequence(seq_len=5), state=roomy(sequence(seq_len=8)).state)
    build(chunk_size=-1, max_len=8, bias="rotary")(sequence(seq_len=40))
    build(chunk_size=4, max_len=8)(sequence(seq_len=40))


def test_state_of_another_chunk_size_is_refused() -> None:
    state = build(chunk_size=5)(sequence()).state
    with pytest.raises(ValueError, match="another architecture or configuration"):
        build(chunk_size=6)(sequence(), state=state)


def test_truncated_and_bidirectional_averages_take_no_state() -> None:
    for options in ({"bidirectional": True}, {"bidirectional": False, "truncation": 3}):
        ema = MovingAverage(6, 2, **options).double()  # type: ignore[arg-type]
        y, state = ema(sequence())
        assert state is None
        assert y.shape == (3, 13, 6)
        with pytest.raises(ValueError, match="carries no state"):
            ema(sequence(), state=torch.zeros(3, 6, 2))
    with pytest.raises(TypeError, match="no step form"):
        build("bidirectional").stack.blocks[0].mixer.step(sequence()[:, 0], None)


@pytest.mark.parametrize(
    ("config", "mode", "key", "words"),
    [
        ({"attention": "gelu"}, "causal", "attention", "softmax | laplace | relu2"),
        ({"bias": "alibi"}, "causal", "bias", "simple | rotary"),
        ({"norm": "layernorm"}, "causal", "norm", "layer | rms | scale | batch"),
        ({"norm": "batch"}, "causal", "norm", "future"),
        ({"truncation": 7}, "causal", "truncation", "7 taps"),
        ({"truncation": 0}, "bidirectional", "truncation", "got 0"),
        ({"d_ema": 0}, "causal", "d_ema", "got 0"),
        ({"d_attn": -1}, "causal", "d_attn", "got -1"),
        ({"d_attn": 7, "bias": "rotary"}, "causal", "d_attn", "got 7"),
        ({"chunk_size": 0}, "causal", "chunk_size", "got 0"),
        ({"chunk_size": -1, "max_positions": 9}, "causal", "max_positions", "9 positions for calls of 64"),
        ({"dropout": 1.0}, "causal", "dropout", "1.0"),
    ],
)
def test_mistakes_are_named(config: dict[str, object], mode: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        registry().architecture("mega").record.check(
            MegaConfig(**config),
            ModelDims(d_model=6, n_layers=1, mode=mode, max_len=64),
        )
    assert error.value.key == f"arch.{key}"
    assert words in str(error.value)


# -- initial values, marks, presets ------------------------------------------------------------------------------------


def test_initial_values_are_the_published_ones() -> None:
    torch.manual_seed(0)
    dims = ModelDims(d_model=128, n_layers=1, mode="bidirectional", max_len=512)
    layer = MegaBackbone(MegaConfig(chunk_size=-1), dims).stack.blocks[0].mixer
    assert (layer.z, layer.E, layer.bias[0].shape) == (64, 256, (1023,))
    deviations = {"alpha": 0.2, "delta": 0.2, "eta": 1.0, "omega": 1.0}
    for name, deviation in deviations.items():
        assert getattr(layer.ema, name).std().item() == pytest.approx(deviation, rel=0.15)
    signs = torch.tensor([1.0, -1.0]).repeat(8)
    assert (layer.ema.beta - signs).std().item() == pytest.approx(0.02, rel=0.1)
    for weight in (layer.W.weight, layer.W_v.weight, layer.U_h.weight, layer.bias[0], layer.kappa):
        assert weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not layer.W.bias.any()
    assert not layer.mu.any()


def test_weights_of_one_dimension_decay_and_biases_do_not() -> None:
    layer = build().stack.blocks[0].mixer
    decays = {name for name, _, mark in parameters_with_options(layer) if mark.weight_decay is None}
    assert {"ema.omega", "bias.0", "kappa", "ema.alpha", "W.weight"} <= decays
    assert not {"W.bias", "W_v.bias", "U_h.bias"} & decays


def test_dropout_drops_in_training_only() -> None:
    model = build(dropout=0.5)
    x = sequence()
    torch.testing.assert_close(model(x).hidden, model(x).hidden)
    model.train()
    assert not torch.equal(model(x).hidden, model(x).hidden)


def test_presets_are_configurations_and_sourced() -> None:
    tasks = {"listops", "text", "retrieval", "image", "pathfinder", "pathx"}
    assert {task for task, protocol in PRESETS if protocol == "paper"} == tasks
    assert {r.task: r.value for r in REPORTED}["pathx"] == 0.9798
    assert {r.task for r in REPORTED} == tasks
    for preset in PRESETS.values():
        own = {k.removeprefix("arch."): v for k, v in preset.values.items() if k.startswith("arch.")}
        config = MegaConfig(**own)
        width = preset.values.get("model.d_model", 64)
        dims = ModelDims(d_model=width, n_layers=1, mode="bidirectional", max_len=4000)
        registry().architecture("mega").record.check(config, dims)
    assert PRESETS["text", "paper"].values["train.max_samples"] == 25_000 * 50
    assert "10,000 of 25,000" in PRESETS["text", "paper"].sources["optim.warmup_ratio"]


def test_paper_models_have_the_reference_s_size() -> None:
    """Parameters of the published encoders, in millions: ListOps 0.59, Text 0.92, Image 2.78, Path-X 0.37."""
    sizes = {"listops": (2002, 0.59), "text": (4002, 0.92), "image": (1024, 2.78), "pathx": (16384, 0.37)}
    for task, (positions, millions) in sizes.items():
        values = PRESETS[task, "paper"].values
        own = {k.removeprefix("arch."): v for k, v in values.items() if k.startswith("arch.")}
        dims = ModelDims(
            d_model=values["model.d_model"], n_layers=values["model.n_layers"], mode="bidirectional", max_len=positions
        )
        model = registry().architecture("mega").record.build(MegaConfig(**own), dims)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.012), task


def test_listing_imports_no_torch() -> None:
    code = "import sys, zoo_mega, zoo_mega.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
