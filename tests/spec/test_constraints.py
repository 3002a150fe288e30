"""Types of configuration fields: what passes, what is refused and with which message, how it is documented."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Interval, MultipleOf

from zoo import (
    BlockConfig,
    ConfigError,
    Fraction,
    ModelDims,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from zoo.spec.config import validate_layer
from zoo.spec.constraints import describe_fields, validate_fields

DIMS = ModelDims(d_model=12, n_layers=1, mode="causal", max_len=8)


@dataclass
class Config(BlockConfig):
    """A configuration with every kind of field."""

    norm: Literal["layer", "batch"] = "layer"
    """Which norm."""
    taps: PositiveInt | None = None
    """Taps of a
    convolution."""
    form: Literal["a", "b"] | None = None
    size: Literal[0, 32] = 0
    d_state: Annotated[int, Ge(2), MultipleOf(2)] = 2
    share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    scale: float = 1.0
    rate: NonNegativeFloat | None = 0.1
    windows: list[PositiveInt] = field(default_factory=lambda: [1])
    name: str = ""


@pytest.mark.parametrize(
    "right",
    [
        Config(),
        Config(n_heads=5, d_qkv=10, d_ff=1, activation="silu", dropout=0.999, taps=1),
        Config(norm="batch", form="b", size=32, d_state=4, share=1, scale=-1, rate=None, windows=[]),
    ],
)
def test_right_values_pass(right: Config) -> None:
    validate_fields(right)
    right.check(replace(DIMS, d_model=20) if not right.d_qkv else DIMS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_heads", 0, "expected integer > 0, got 0"),
        ("n_heads", 2.5, "expected integer > 0, got 2.5"),
        ("d_qkv", -1, "expected integer >= 0, got -1"),
        ("d_ff", -3, "expected integer >= 0, got -3"),
        ("activation", "rely", "expected gelu | gelu_tanh | relu | silu, got 'rely'; did you mean 'relu'?"),
        ("activation", "xyz", "expected gelu | gelu_tanh | relu | silu, got 'xyz'"),
        ("norm_eps", 0.0, "expected number > 0, got 0.0"),
        ("norm_eps", float("nan"), "expected a finite number, got nan"),
        ("scale", float("-inf"), "expected a finite number, got -inf"),
        ("dropout", 1.0, "expected number in [0, 1), got 1.0"),
        ("dropout", -0.1, "expected number in [0, 1), got -0.1"),
        ("bias", "no", "expected true | false, got 'no'"),
        ("taps", 0, "expected integer > 0 or null, got 0"),
        ("form", "c", "expected a | b or null, got 'c'"),
        ("size", 64, "expected 0 | 32, got 64"),
        ("d_state", 3, "expected even integer >= 2, got 3"),
        ("share", 0.0, "expected number in (0, 1], got 0.0"),
        ("rate", -1.0, "expected number >= 0 or null, got -1.0"),
        ("windows", [1, 0], "expected [integer > 0, …], got [1, 0]"),
        ("name", 3, "expected text, got 3"),
    ],
)
def test_wrong_values_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_fields(replace(Config(), **{key: value}))
    assert (caught.value.key, caught.value.message) == (key, message)


@pytest.mark.parametrize("name", ["n_heads", "norm_eps", "windows"])
def test_layers_are_refused_with_the_same_message(name: str) -> None:
    with pytest.raises(ConfigError, match=f"arch.{name}: expected .* got 'wide' .from a test"):
        validate_layer({f"arch.{name}": "wide"}, {"arch": Config}, "a test")
    with pytest.raises(ConfigError, match=r"arch.norm: .*got 'bach'; did you mean 'batch'\? \(from a test"):
        validate_layer({"arch": {"norm": "bach"}}, {"arch": Config}, "a test")


def test_integers_become_the_numbers_that_their_fields_are() -> None:
    (scale,) = validate_layer({"arch.scale": 2}, {"arch": Config}, "a test").values()
    assert (scale, type(scale)) == (2.0, float)


def test_heads_divide_the_width_of_the_attention() -> None:
    with pytest.raises(ConfigError, match="n_heads: 5 does not divide d_model 12"):
        Config(n_heads=5).check(DIMS)
    with pytest.raises(ConfigError, match="n_heads: 4 does not divide d_qkv 10"):
        Config(d_qkv=10).check(DIMS)


def test_fields_are_documented_by_their_types_and_docstrings() -> None:
    docs = {entry.name: entry for entry in describe_fields(Config)}
    assert list(docs)[:2] == ["n_heads", "d_qkv"]
    assert docs["n_heads"][1:] == ("integer > 0", 4, "Attention heads; must divide d_qkv.")
    assert docs["norm"][1:] == ("layer | batch", "layer", "Which norm.")
    assert docs["taps"][1:] == ("integer > 0 or null", None, "Taps of a convolution.")
    assert docs["windows"].default == [1]


def test_types_are_those_that_zoo_exports() -> None:
    for hint, right, wrong in (
        (PositiveInt, 1, 0),
        (NonNegativeInt, 0, -1),
        (PositiveFloat, 0.1, 0.0),
        (NonNegativeFloat, 0.0, -0.1),
        (Fraction, 0.0, 1.0),
    ):

        @dataclass
        class One:
            value: hint = right

        One.__annotations__ = {"value": hint}
        validate_fields(One())
        with pytest.raises(ConfigError):
            validate_fields(One(value=wrong))


def test_pydantic_is_imported_only_when_a_configuration_is_validated() -> None:
    code = (
        "import sys; import zoo.spec.constraints, zoo.spec.config, zoo.spec.settings;"
        "assert not {'torch', 'pydantic', 'omegaconf'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
