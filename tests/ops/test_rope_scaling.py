"""`scaled_rope` against transformers' own functions of `rope_scaling`, on drawn shapes and settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import ConfigError, RopeScaling
from zoo.ops.positions import Rope, scaled_rope

FEW = settings(max_examples=25, deadline=None)
factors = st.floats(1.0, 32.0)
KINDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "linear": st.fixed_dictionaries({"factor": factors}),
    "dynamic": st.fixed_dictionaries({"factor": factors}),
    "yarn": st.fixed_dictionaries(
        {"factor": factors, "beta_fast": st.floats(8, 64), "beta_slow": st.floats(0.5, 4), "truncate": st.booleans()},
        optional={"attention_factor": st.floats(0.5, 2)},
    )
    | st.fixed_dictionaries({"factor": factors, "mscale": st.floats(0.5, 2), "mscale_all_dim": st.floats(0.5, 2)}),
    "llama3": st.fixed_dictionaries(
        {"factor": factors, "low_freq_factor": st.floats(0.5, 2), "high_freq_factor": st.floats(3, 8)}
    ),
    "longrope": st.fixed_dictionaries({"factor": factors}, optional={"attention_factor": st.floats(0.5, 2)}),
}


def published(kind: str, fields: dict[str, Any], d_head: int, theta: float, trained: int, seq_len: int) -> Any:
    """inv_freq and attention factor as transformers computes them, in float32."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=2 * d_head,
        num_attention_heads=2,
        max_position_embeddings=trained,
        rope_parameters={
            "rope_type": kind,
            "rope_theta": theta,
            "original_max_position_embeddings": trained,
            **fields,
        },
    )
    return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=seq_len)


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(data=st.data())
def test_frequencies_are_those_of_transformers(kind: str, data: st.DataObject) -> None:
    pairs = data.draw(st.integers(2, 32), "pairs")
    theta = data.draw(st.floats(100.0, 1e6), "theta")
    trained = data.draw(st.integers(64, 8192), "trained")
    seq_len = data.draw(st.integers(1, 4 * trained), "seq_len")
    fields = data.draw(KINDS[kind], "fields")
    if kind == "longrope":
        divisors = st.lists(st.floats(1.0, 64.0), min_size=pairs, max_size=pairs)
        fields |= {"short_factor": data.draw(divisors, "short"), "long_factor": data.draw(divisors, "long")}
    expected, factor = published(kind, dict(fields), 2 * pairs, theta, trained, seq_len)
    scaling = RopeScaling(rope_type=kind, original_max_position_embeddings=trained, **fields)
    scaling.check(2 * pairs)
    ours = scaled_rope(2 * pairs, scaling, max_len=trained, seq_len=seq_len, theta=theta)
    torch.testing.assert_close(ours.inv_freq.float(), expected.float(), rtol=2e-5, atol=0)
    assert ours.factor == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_each_row_has_the_frequencies_of_its_own_length(kind: str) -> None:
    factors = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [1.0, 4.0, 8.0, 16.0]} if kind == "longrope" else {}
    scaling = RopeScaling(rope_type=kind, factor=4.0, original_max_position_embeddings=64, **factors)
    lengths = (30, 64, 65, 200)
    together = scaled_rope(8, scaling, max_len=256, seq_len=torch.tensor(lengths)[:, None])
    assert together.inv_freq.shape == (4, 4)
    for row, length in enumerate(lengths):
        alone = scaled_rope(8, scaling, max_len=256, seq_len=length)
        torch.testing.assert_close(together.inv_freq[row], alone.inv_freq.view(-1))


def test_without_a_factor_it_follows_from_the_lengths() -> None:
    def yarn(factor: float | None, max_len: int) -> Rope:
        scaling = RopeScaling(rope_type="yarn", factor=factor, original_max_position_embeddings=128)
        return scaled_rope(16, scaling, max_len=max_len, seq_len=9)

    torch.testing.assert_close(yarn(4.0, 128).inv_freq, yarn(None, 512).inv_freq)
    assert yarn(4.0, 128).factor == yarn(None, 512).factor


@pytest.mark.parametrize(
    ("scaling", "key", "message"),
    [
        (RopeScaling(factor=2.0), "factor", "default has no such field; any type but default"),
        (RopeScaling(rope_type="linear", beta_fast=8.0), "beta_fast", "linear has no such field; yarn has"),
        (RopeScaling(rope_type="yarn", beta_fast=1.0), "beta_fast", "must exceed beta_slow"),
        (RopeScaling(rope_type="yarn", mscale=1.0), "mscale", "go together"),
        (RopeScaling(rope_type="llama3", low_freq_factor=4.0), "high_freq_factor", "must exceed low_freq_factor"),
        (RopeScaling(rope_type="longrope", short_factor=[1.0]), "short_factor", "expected 4 numbers, .* got 1"),
    ],
)
def test_impossible_scalings_name_the_field(scaling: RopeScaling, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        scaling.check(8)
    assert caught.value.key == f"rope_scaling.{key}"
