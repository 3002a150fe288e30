"""Validate a configuration before any data are prepared. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.spec.config import flatten
from zoo.spec.errors import ConfigError

if TYPE_CHECKING:
    from zoo.run.compose import Experiment


def validate(experiment: Experiment) -> None:
    """Validate the relations between settings, and between them and what architecture and task are defined for.

    `compose` has validated each setting alone. Raises ConfigError for the first mistake, with the origin of the values.
    """
    try:
        _validate(experiment)
    except ConfigError as error:
        origin = error.origin or _origins_of(error, experiment.origins)
        raise ConfigError(error.key, error.message, origin=origin) from error


def _validate(experiment: Experiment) -> None:
    flat = flatten(experiment.config)
    _check_train(flat)
    _check_model(experiment, flat)
    experiment.task_spec.check(experiment.task_options)
    experiment.arch_spec.check(experiment.arch_config, experiment.dims)


def _check_model(experiment: Experiment, flat: Mapping[str, Any]) -> None:
    """Check the mode and the settings that need a capability of the architecture."""
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
    """Check that the micro batch divides the batch, and that there are two betas."""
    batch, micro = flat["train.batch_size"], flat["train.micro_batch_size"]
    world = flat["train.devices"] * flat["train.num_nodes"]
    if batch % ((micro or 1) * world):
        per = f"{micro} on each of {world} devices" if world > 1 else str(micro)
        raise ConfigError("train.micro_batch_size", f"{per} does not divide train.batch_size {batch}")
    if len(flat["optim.betas"]) != 2:
        raise ConfigError("optim.betas", f"expected two numbers, got {flat['optim.betas']}")
