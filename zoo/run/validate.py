"""Validation of an experiment's configuration before any data are prepared. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.run.settings import SECTIONS
from zoo.spec.constraints import validate_fields
from zoo.spec.errors import ConfigError
from zoo.spec.layers import flatten

if TYPE_CHECKING:
    from zoo.run.compose import Experiment


def check(experiment: Experiment) -> None:
    """Validate the types of all fields, then the relations between them. Raises ConfigError for the first mistake."""
    values = experiment.values
    for section, cls in SECTIONS.items():
        try:
            validate_fields(cls(**values[section]))
        except ConfigError as error:
            raise ConfigError(f"{section}.{error.key}", error.message) from error
    flat = flatten(values)
    _check_train(flat)
    _check_model(experiment, flat)
    experiment.task.record.check(experiment.task_options)
    experiment.architecture.record.check(experiment.arch_config, experiment.dims)


def _check_model(experiment: Experiment, flat: Mapping[str, Any]) -> None:
    """Check the mode and the settings that need a capability of the architecture."""
    arch, task = experiment.architecture.record, experiment.task.record
    capable = arch.capabilities
    if experiment.classifies and experiment.mode == "seq2seq":
        raise ConfigError("model.mode", f"{arch.name} has no causal or bidirectional form for a classification task")
    if not experiment.classifies and experiment.objective not in task.objectives:
        form = "no causal form" if "causal" not in capable.modes else "one with model.mode=causal"
        known = " or ".join(task.objectives)
        raise ConfigError(
            "model.mode", f"{task.name} is evaluated as {known}, which needs a causal form; {arch.name} has {form}"
        )
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


def _check_train(flat: Mapping[str, Any]) -> None:
    """Check that the micro batch divides the batch, and that there are two betas."""
    batch, micro = flat["train.batch_size"], flat["train.micro_batch_size"]
    world = flat["train.devices"] * flat["train.num_nodes"]
    if batch % ((micro or 1) * world):
        per = f"{micro} on each of {world} devices" if world > 1 else str(micro)
        raise ConfigError("train.micro_batch_size", f"{per} does not divide train.batch_size {batch}")
    if len(flat["optim.betas"]) != 2:
        raise ConfigError("optim.betas", f"expected two numbers, got {flat['optim.betas']}")
