"""The checks that configurations share: what passes, what is refused and how it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from zoo import (
    ConfigError,
    ModelDims,
    check_batch_norm,
    check_block,
    check_choice,
    check_fraction,
    check_positive,
    check_step_sizes,
    check_widths,
)

SHAPE = ModelDims(d_model=12, n_layers=1, mode="causal", max_len=8)


@dataclass
class Config:
    n_heads: int = 4
    d_qkv: int = 0
    d_ff: int = 0
    activation: str = "gelu"
    norm_eps: float = 1e-5
    dropout: float = 0.0
    norm: str = "layer"
    dt_min: float = 0.1
    dt_max: float = 0.1
    taps: int | None = None


def every_check(config: Config) -> None:
    check_block(config, SHAPE)
    check_step_sizes(config)
    check_batch_norm(config, SHAPE)
    check_positive(config, "taps", optional=True)


@pytest.mark.parametrize(
    "right",
    [
        Config(),
        Config(n_heads=5, d_qkv=10, d_ff=1, activation="silu", dropout=0.999, taps=1),
        Config(norm="rms", dt_min=1e-9),
    ],
)
def test_right_values_pass(right: Config) -> None:
    every_check(right)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_heads", 0, "expected a positive number, got 0"),
        ("n_heads", 5, "5 does not divide d_model 12"),
        ("d_qkv", -1, "expected a positive number, or 0 for the default, got -1"),
        ("d_ff", -3, "expected a positive number, or 0 for the default, got -3"),
        ("activation", "tanh", "'tanh': expected one of gelu, gelu_tanh, relu, silu"),
        ("norm_eps", 0.0, "expected a positive number, got 0.0"),
        ("norm_eps", float("nan"), "expected a positive number, got nan"),
        ("dropout", 1.0, "expected a number in [0, 1), got 1.0"),
        ("dropout", -0.1, "expected a number in [0, 1), got -0.1"),
        ("taps", 0, "expected a positive number or null, got 0"),
        ("dt_min", 0.0, "expected 0 < dt_min <= dt_max, got 0.0 and 0.1"),
        ("dt_min", 0.2, "expected 0 < dt_min <= dt_max, got 0.2 and 0.1"),
        ("norm", "batch", "batch norm averages over time: a causal model would see the future; use layer"),
    ],
)
def test_wrong_values_are_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        every_check(replace(Config(), **{key: value}))
    assert (caught.value.key, caught.value.message) == (key, message)


def test_heads_divide_their_own_width_where_they_have_one() -> None:
    with pytest.raises(ConfigError, match="4 does not divide d_qkv 10"):
        check_block(Config(d_qkv=10), SHAPE)


def test_batch_norm_is_for_both_directions() -> None:
    check_batch_norm(Config(norm="batch"), replace(SHAPE, mode="bidirectional"))


@pytest.mark.parametrize(
    "check",
    [
        lambda config: check_positive(config, "n_heads", "d_ff"),
        lambda config: check_widths(config, "n_heads", "d_ff"),
        lambda config: check_fraction(config, "dropout", "d_ff"),
        lambda config: check_choice(config, "d_ff", ("a", "b")),
    ],
)
def test_every_field_that_is_named_is_looked_at(check: Callable[[Config], None]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(Config(d_ff=-1))
    assert caught.value.key == "d_ff"
