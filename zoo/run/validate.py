"""Validate a configuration before any data are prepared. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.spec.errors import ConfigError, did_you_mean
from zoo.spec.layers import flatten
from zoo.spec.settings import CHOICES, FRACTIONS, NOT_NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from zoo.run.compose import Experiment


def validate(experiment: Experiment) -> None:
    """Validate a configuration before any data are prepared. Raises ConfigError with the origin of the values."""
    try:
        _validate(experiment)
    except ConfigError as error:
        origin = error.origin or _origins_of(error, experiment.origins)
        raise ConfigError(error.key, error.message, origin=origin) from error


def _validate(experiment: Experiment) -> None:
    flat = flatten(experiment.config)
    for key, allowed in CHOICES.items():
        if flat[key] not in allowed:
            raise ConfigError(key, f"{flat[key]!r}{did_you_mean(str(flat[key]), allowed)}")
    for key, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(key, f"expected a finite number, got {value}")
    for key in POSITIVE:
        if flat[key] <= 0:
            raise ConfigError(key, f"expected a positive number, got {flat[key]}")
    for key in NOT_NEGATIVE:
        if flat[key] < 0:
            raise ConfigError(key, f"expected zero or more, got {flat[key]}")
    for key in FRACTIONS:
        if not 0 <= flat[key] <= 1:
            raise ConfigError(key, f"expected a fraction between 0 and 1, got {flat[key]}")
    _check_train(flat)
    arch = experiment.arch_spec
    capable = arch.capabilities
    experiment.kind.check_mode(experiment.task_spec, arch, experiment.mode)
    if flat["model.pool"] == "cls" and experiment.mode == "causal":
        raise ConfigError("model.pool", "cls needs a bidirectional mode: a causal first token sees only itself")
    if flat["model.pool"] == "cls" and capable.segment:
        raise ConfigError("model.pool", f"{arch.name} reads by segments: a cls token would see the first one only")
    if flat["segments.activation_checkpointing"] != "none" and not capable.segment:
        raise ConfigError(
            "segments.activation_checkpointing", f"{arch.name} is not fed by segments; only 'none' applies"
        )
    if flat["segments.tbptt"] and not capable.state_grad:
        raise ConfigError("segments.tbptt", f"no gradient flows through the state of {arch.name}; only 0 applies")
    options = experiment.task_options
    checker = getattr(options, "check", None)
    if checker is not None:
        try:
            checker()
        except ConfigError as error:
            key = error.key if error.key.startswith("task.") else f"task.{error.key}"
            raise ConfigError(key, error.message) from error
    arch.check(experiment.arch_config, experiment.dims)


def _origins_of(error: ConfigError, origins: Mapping[str, str]) -> str | None:
    """Where the key at fault came from, and every other key that its message names and somebody set."""
    words = set(re.findall(r"[a-z_]+", error.message))
    others = [
        f"{key} from {origin}"
        for key, origin in origins.items()
        if key != error.key and key.rpartition(".")[2] in words and origin != "default"
    ]
    return "; ".join(filter(None, [origins.get(error.key), *others])) or None


def _check_train(flat: Mapping[str, Any]) -> None:
    batch, micro = flat["train.batch_size"], flat["train.micro_batch_size"]
    world = flat["train.devices"] * flat["train.num_nodes"]
    if batch % ((micro or 1) * world):
        per = f"{micro} on each of {world} devices" if world > 1 else str(micro)
        raise ConfigError("train.micro_batch_size", f"{per} does not divide train.batch_size {batch}")
    if len(flat["optim.betas"]) != 2 or not all(0 <= b < 1 for b in flat["optim.betas"]):
        raise ConfigError("optim.betas", f"expected two numbers in [0, 1), got {flat['optim.betas']}")
