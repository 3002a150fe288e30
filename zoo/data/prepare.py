"""From a task's record to its data under a protocol, without an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.data.module import LoaderConfig, TaskData
from zoo.data.paths import data_dir
from zoo.spec.errors import ConfigError, UserError, did_you_mean
from zoo.spec.layers import lay_over
from zoo.spec.task import Task


def compose_options(task: Task, protocol: str, overrides: Mapping[str, Any]) -> Any:
    """The task's options: defaults < the protocol's `task.*` keys < overrides ({"task.seq_len": 256}), checked.

    Raises UserError (unknown protocol) or ConfigError (unknown key, wrong type, impossible combination).
    """
    from omegaconf import OmegaConf

    if protocol not in task.protocols:
        raise UserError(f"{task.name} has no protocol {protocol!r}{did_you_mean(protocol, task.protocols)}")
    tree = OmegaConf.create({"task": OmegaConf.structured(task.load_options())})
    named = {key: value for key, value in task.protocols[protocol].items() if key.startswith("task.")}
    for layer, origin in ((named, f"protocol {protocol} of {task.name}"), (overrides, "--set")):
        lay_over(tree, layer, origin)
    options = OmegaConf.to_object(tree.task)
    checker = getattr(options, "check", None)
    if checker is not None:
        try:
            checker()
        except ConfigError as error:
            raise ConfigError(f"task.{error.key.removeprefix('task.')}", error.message) from error
    return options


def open_task(
    task: Task,
    protocol: str,
    overrides: Mapping[str, Any],
    root: Path | None = None,
    loading: LoaderConfig | None = None,
) -> TaskData:
    """The data of a task under a protocol, not yet prepared. `root` is `data_dir()` unless given."""
    options = compose_options(task, protocol, overrides)
    return task.load_data()(options, data_dir() if root is None else root, loading)
