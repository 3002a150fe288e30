"""What the `check` of many configurations asks of a field, in one wording. No torch here.

Each function takes the configuration and names of its fields, and raises ConfigError for the first that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from zoo.spec.architecture import ModelDims
from zoo.spec.errors import ConfigError

BLOCK_ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
"""What the channel MLP of a `BlockConfig` may have between its matrices."""


class BlockConfig(Protocol):
    """The fields that configurations of a Transformer's block share: `check_block` and `zoo.nn.transformer_block`.

    d_qkv, d_ff   widths of all heads together and of the channel MLP; 0 = d_model and 4 * d_model
    """

    n_heads: int
    d_qkv: int
    d_ff: int
    activation: str
    norm_eps: float
    dropout: float


class StepSizes(Protocol):
    """The range that step sizes of a state space model start in."""

    dt_min: float
    dt_max: float


class Normed(Protocol):
    """The name of a norm: layer, rms, batch …"""

    norm: str


def check_block(config: BlockConfig, dims: ModelDims) -> None:
    """The fields of BlockConfig: heads that divide d_qkv (or d_model), widths, activation, norm_eps, dropout."""
    check_positive(config, "n_heads", "norm_eps")
    check_widths(config, "d_qkv", "d_ff")
    d_qkv = config.d_qkv or dims.d_model
    if d_qkv % config.n_heads:
        width = f"d_qkv {d_qkv}" if config.d_qkv else f"d_model {d_qkv}"
        raise ConfigError("n_heads", f"{config.n_heads} does not divide {width}")
    check_choice(config, "activation", BLOCK_ACTIVATIONS)
    check_fraction(config, "dropout")


def check_positive(config: object, *names: str, optional: bool = False) -> None:
    """Numbers above 0; optional: or None."""
    for name in names:
        value = getattr(config, name)
        if not (value is None and optional) and not value > 0:
            raise ConfigError(name, f"expected a positive number{' or null' if optional else ''}, got {value}")


def check_widths(config: object, *names: str) -> None:
    """Numbers above 0, or 0 for a default."""
    for name in names:
        if getattr(config, name) < 0:
            raise ConfigError(name, f"expected a positive number, or 0 for the default, got {getattr(config, name)}")


def check_choice(config: object, name: str, allowed: Sequence[str]) -> None:
    """One of `allowed`."""
    value = getattr(config, name)
    if value not in allowed:
        raise ConfigError(name, f"{value!r}: expected one of {', '.join(allowed)}")


def check_fraction(config: object, *names: str) -> None:
    """Numbers in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(name, f"expected a number in [0, 1), got {getattr(config, name)}")


def check_step_sizes(config: StepSizes) -> None:
    """0 < dt_min <= dt_max."""
    if not 0 < config.dt_min <= config.dt_max:
        raise ConfigError("dt_min", f"expected 0 < dt_min <= dt_max, got {config.dt_min} and {config.dt_max}")


def check_batch_norm(config: Normed, dims: ModelDims) -> None:
    """norm=batch is for modes without causality."""
    if config.norm == "batch" and dims.mode == "causal":
        raise ConfigError("norm", "batch norm averages over time: a causal model would see the future; use layer")
