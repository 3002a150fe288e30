"""The Transformer: its kinds of positions, its errors, and that it takes the fused kernel."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product
from typing import get_args, get_type_hints

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from zoo import ConfigError, RopeScaling, SelfExtend, registry
from zoo.nn.state import return_state
from zoo_transformer.config import TransformerConfig

EVERY_POSITIONS = get_args(get_type_hints(TransformerConfig)["positions"])
POSITIONS = [positions for positions in EVERY_POSITIONS if positions != "none"]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(config: TransformerConfig, *, mode: str = "causal", n_layers: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    record = registry().architecture("transformer").record
    return record.build(config, d_model=16, n_layers=n_layers, mode=mode, max_len=32).double().eval()


@pytest.mark.parametrize(("positions", "mode"), list(product(POSITIONS, ("causal", "bidirectional"))))
def test_order_matters(positions: str, mode: str) -> None:
    """Two tokens exchanged: without positions one layer would leave a third, later one's vector as it was."""
    model, x = build(TransformerConfig(positions=positions), mode=mode, n_layers=1), noise(1, 9, 16)
    swapped = x[:, [0, 5, 2, 3, 4, 1, 6, 7, 8]]
    assert (model(x).hidden[0, 8] - model(swapped).hidden[0, 8]).abs().max() > 1e-6


@pytest.mark.parametrize(("positions", "mode"), list(product(("rope", "alibi"), ("causal", "bidirectional"))))
def test_relative_positions_do_not_see_left_padding(positions: str, mode: str) -> None:
    model, x = build(TransformerConfig(positions=positions, n_heads=2), mode=mode), noise(1, 9, 16)
    padded = torch.cat([noise(1, 6, 16, seed=1), x], dim=1)
    mask = torch.arange(15)[None] >= 6
    torch.testing.assert_close(model(padded, mask=mask).hidden[:, 6:], model(x).hidden, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
def test_only_learned_positions_run_out(positions: str) -> None:
    assert build(TransformerConfig(positions=positions))(noise(1, 40, 16)).hidden.shape == (1, 40, 16)


def test_learned_positions_say_when_they_run_out() -> None:
    with pytest.raises(ValueError, match="40 tokens, but learned positions for 32"):
        build(TransformerConfig(positions="learned"))(noise(1, 40, 16))


@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_without_positions_earlier_tokens_are_a_set(mode: str) -> None:
    model, x = build(TransformerConfig(positions="none"), mode=mode, n_layers=1), noise(1, 9, 16)
    swapped = x[:, [0, 5, 2, 3, 4, 1, 6, 7, 8]]
    torch.testing.assert_close(model(swapped).hidden[0, 8], model(x).hidden[0, 8], rtol=1e-9, atol=1e-11)


SCALINGS = [
    *(RopeScaling(rope_type=kind, factor=4.0) for kind in ("linear", "ntk", "dynamic", "yarn", "llama3")),
    RopeScaling(rope_type="longrope", factor=4.0, short_factor=[1.0, 1.0], long_factor=[1.0, 3.0]),
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling.rope_type)
def test_scaled_rope_reaches_the_scores(scaling: RopeScaling) -> None:
    """Beyond the trained length the outputs are others than rope's, and those of a row do not depend on its batch."""
    scaling = replace(scaling, original_max_position_embeddings=8)
    model, plain = (build(TransformerConfig(rope_scaling=s)) for s in (scaling, RopeScaling()))
    x, mask = noise(2, 20, 16), torch.arange(20) < torch.tensor([20, 7])[:, None]
    hidden = model(x, mask=mask).hidden
    assert (hidden[0] - plain(x).hidden[0]).abs().max() > 1e-6
    torch.testing.assert_close(hidden[1, :7], model(x[1:, :7]).hidden[0], rtol=1e-9, atol=1e-11)


def test_self_extend_is_for_evaluation_beyond_its_window() -> None:
    model = build(TransformerConfig(self_extend=SelfExtend(group_size=2, window=8)))
    plain, x = build(TransformerConfig()), noise(2, 20, 16)
    torch.testing.assert_close(model(x[:, :8]).hidden, plain(x[:, :8]).hidden)
    assert (model(x).hidden[:, :8] - plain(x).hidden[:, :8]).abs().max() < 1e-9
    assert (model(x).hidden[:, 12:] - plain(x).hidden[:, 12:]).abs().max() > 1e-6
    torch.testing.assert_close(model.train()(x).hidden, plain.train()(x).hidden)


@pytest.mark.parametrize("n_kv_heads", [0, 2, 1])
@pytest.mark.parametrize("positions", EVERY_POSITIONS)
def test_the_cache_gives_what_one_call_gives(positions: str, n_kv_heads: int) -> None:
    """A padded batch in pieces, then token by token: positions go on after each row's own tokens."""
    model = build(TransformerConfig(positions=positions, n_kv_heads=n_kv_heads))
    x, lengths = noise(2, 14, 16), torch.tensor([6, 4])
    mask = torch.arange(6) < lengths[:, None]
    first = model(x[:, :6], mask=mask)
    second = model(x[:, 6:11], state=first.state)
    hidden, state = [second.hidden], second.state
    for t in range(11, 14):
        y, state = model.step(x[:, t], state)
        hidden.append(y[:, None])
    whole = model(x, mask=torch.cat([mask, torch.ones(2, 8, dtype=torch.bool)], 1)).hidden
    torch.testing.assert_close(torch.cat(hidden, 1), whole[:, 6:], rtol=1e-9, atol=1e-11)
    assert state[0]["k"].shape == (2, n_kv_heads or 4, 14, 4)
    assert model.state_size(14) == 2 * 2 * 14 * 4 * (n_kv_heads or 4)


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling.rope_type)
def test_a_step_turns_by_the_length_so_far(scaling: RopeScaling) -> None:
    """Angles that depend on the length are those of one call on the text so far; in one layer, all else is equal."""
    scaling = replace(scaling, original_max_position_embeddings=8)
    model, x, state = build(TransformerConfig(rope_scaling=scaling), n_layers=1), noise(2, 14, 16), None
    for t in range(14):
        y, state = model.step(x[:, t], state)
        torch.testing.assert_close(y, model(x[:, : t + 1]).hidden[:, -1], rtol=1e-9, atol=1e-11)


def test_a_step_with_self_extend_is_one_call() -> None:
    model, x, state = build(TransformerConfig(self_extend=SelfExtend(group_size=2, window=4))), noise(2, 14, 16), None
    hidden = model(x[:, :6], mask=torch.arange(6) < torch.tensor([6, 3])[:, None])
    y = model(x[:, 6:], state=hidden.state).hidden
    whole = model(torch.cat([x[1:, :3], x[1:, 6:]], 1)).hidden[0, 3:]
    torch.testing.assert_close(y[1], whole, rtol=1e-9, atol=1e-11)
    for t in range(14):
        y, state = model.step(x[:, t], state)
    torch.testing.assert_close(y, model(x).hidden[:, -1], rtol=1e-9, atol=1e-11)


def test_training_keeps_no_cache() -> None:
    model = build(TransformerConfig())
    with return_state(False):
        assert model(noise(1, 5, 16)).state is None
    assert build(TransformerConfig(), mode="bidirectional")(noise(1, 5, 16)).state is None


def test_learned_positions_run_out_in_generation_too() -> None:
    model = build(TransformerConfig(positions="learned"))
    state = model(noise(1, 32, 16)).state
    with pytest.raises(ValueError, match="33 tokens, but learned positions for 32"):
        model.step(noise(1, 16), state)


@pytest.mark.parametrize(("positions", "mode"), list(product(EVERY_POSITIONS, ("causal", "bidirectional"))))
@pytest.mark.parametrize("masked", [False, True])
def test_every_form_takes_the_fused_kernel(positions: str, mode: str, masked: bool) -> None:
    model, x = build(TransformerConfig(positions=positions), mode=mode), noise(2, 16, 16)
    mask = torch.arange(16) < torch.tensor([16, 9])[:, None] if masked else None
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        model(x, mask=mask)
    names = {event.key for event in seen.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::_scaled_dot_product_attention_math" not in names


def test_dropouts_act_in_training_only() -> None:
    for name in ("dropout", "attn_dropout"):
        model, x = build(TransformerConfig(**{name: 0.5})), noise(2, 16, 16)
        assert torch.equal(model(x).hidden, model(x).hidden)
        model.train()
        assert not torch.equal(model(x).hidden, model(x).hidden), name


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        (TransformerConfig(n_heads=3), "arch.n_heads", "3 does not divide d_model 16"),
        (TransformerConfig(n_heads=3, d_qkv=8), "arch.n_heads", "3 does not divide d_qkv 8"),
        (TransformerConfig(n_kv_heads=3), "arch.n_kv_heads", "3 does not divide n_heads 4"),
        (TransformerConfig(n_heads=0), "arch.n_heads", "integer > 0, got 0"),
        (TransformerConfig(n_heads=16), "arch.n_heads", "even head dimension; 16 / 16 heads = 1"),
        (
            TransformerConfig(positions="rotary"),
            "arch.positions",
            r"rope \| sinusoidal \| learned \| alibi \| none, got 'rotary'",
        ),
        (
            TransformerConfig(positions="learned", rope_scaling=RopeScaling(rope_type="yarn", factor=2.0)),
            "arch.rope_scaling.rope_type",
            "positions is learned; it needs rope",
        ),
        (
            TransformerConfig(positions="alibi", self_extend=SelfExtend(group_size=2)),
            "arch.self_extend.group_size",
            "positions is alibi; it needs rope",
        ),
        (
            TransformerConfig(self_extend=SelfExtend(group_size=3, window=8)),
            "arch.self_extend.window",
            "8 is no multiple of group_size 3",
        ),
        (TransformerConfig(rope_scaling=RopeScaling(rope_type="yarn", factor=0.5)), "arch.rope_scaling.factor", "0.5"),
        (TransformerConfig(rope_theta=0.0), "arch.rope_theta", "> 1, got 0.0"),
        (
            TransformerConfig(activation="swish"),
            "arch.activation",
            r"gelu_tanh \| relu \| silu, got 'swish'",
        ),
        (TransformerConfig(d_ff=-1), "arch.d_ff", "got -1"),
        (TransformerConfig(attn_dropout=1.5), "arch.attn_dropout", r"\[0, 1\), got 1.5"),
    ],
)
def test_impossible_configurations_name_key_and_numbers(config: TransformerConfig, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(config)
    assert caught.value.key == key


@pytest.mark.parametrize("name", ["transformer", "linformer"])
def test_presets_build_and_scores_are_fractions(name: str) -> None:
    record = registry().architecture(name).record
    known = {field.name for field in fields(record.load_config())}
    for (task, _), preset in record.load_presets().items():
        arch = {k.removeprefix("arch."): v for k, v in preset.values.items() if k.startswith("arch.")}
        assert set(arch) <= known
        d_model, n_layers = preset.values.get("model.d_model", 64), preset.values.get("model.n_layers", 2)
        longest = 16384 if task == "pathx" else 4000
        config = record.load_config()(**arch)
        record.build(config, d_model=d_model, n_layers=n_layers, mode="bidirectional", max_len=longest)
    assert all(0 < score.value < 1 and score.source and score.table for score in record.load_reported())
