"""Open and prepare a task's data under a protocol, without an architecture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from zoo.data.cached import CachedData
from zoo.data.module import LoaderConfig, TaskData
from zoo.data.paths import data_dir, save_location
from zoo.data.progress import notice
from zoo.spec.config import validate_layer
from zoo.spec.errors import ConfigError, MissingFiles, UserError, did_you_mean
from zoo.spec.task import Task

if TYPE_CHECKING:
    from zoo.data.download import Connections


def compose_options(task: Task, protocol: str, overrides: Mapping[str, Any]) -> Any:
    """Compose the task's options: defaults < the protocol's `task.*` keys < overrides ({"task.seq_len": 256}), checked.

    Raises UserError (unknown protocol) or ConfigError (unknown key, wrong type, impossible combination).
    """
    if protocol not in task.protocols:
        raise UserError(f"{task.name} has no protocol {protocol!r}{did_you_mean(protocol, task.protocols)}")
    cls = task.load_options()
    values: dict[str, Any] = {}
    of_protocol = {key: value for key, value in task.protocols[protocol].items() if key.startswith("task.")}
    for layer, origin in ((of_protocol, f"protocol {protocol} of {task.name}"), (overrides, "--set")):
        values |= validate_layer(layer, {"task": cls}, origin)
    options = cls(**{key.removeprefix("task."): value for key, value in values.items()})
    task.check(options)
    return options


def open_task(
    task: Task,
    protocol: str,
    overrides: Mapping[str, Any],
    root: Path | None = None,
    loading: LoaderConfig | None = None,
) -> TaskData:
    """Return the data of a task under a protocol, not yet prepared. `root` is `data_dir()` unless given."""
    options = compose_options(task, protocol, overrides)
    return task.load_data()(options, data_dir() if root is None else root, loading)


def option_names(task: Task) -> set[str]:
    """The configuration keys of a task's options, such as "task.seq_len"."""
    return {f"task.{name}" for name in task.load_options().__dataclass_fields__}


def select_overrides(tasks: Iterable[Task], overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each task those overrides that it has an option for. Raises ConfigError for a key of no task."""
    names = {task.name: option_names(task) for task in tasks}
    known = sorted(set().union(*names.values()))
    for key in overrides:
        if key not in known:
            raise ConfigError(key, f"unknown key{did_you_mean(key, known)}", origin="--set")
    return {task: {k: v for k, v in overrides.items() if k in keys} for task, keys in names.items()}


def tasks_reading(tasks: Sequence[Task], path: Path) -> set[str]:
    """Return the names of the tasks that can read files. Raises UserError when `path` does not exist, or none
    can."""
    if not os.path.exists(path):
        raise UserError(f"--from {path}: no such file or folder")
    readers = {task.name for task in tasks if "task.path" in option_names(task)}
    if not readers:
        raise UserError(f"--from {path}: {', '.join(t.name for t in tasks)}: always generated; no files are read")
    return readers


def prepare_task(
    task: Task,
    protocol: str,
    overrides: Mapping[str, Any],
    connections: Connections,
    *,
    path: Path | None = None,
    force: bool = False,
    offline: bool = False,
) -> TaskData:
    """Prepare a task's data and return them.

    path     the user's files (--from), whose location is saved; with settings that read no files a notice says so.
             Without them and without task.path, missing files are downloaded where they are public
    force    delete what was prepared before
    offline  download nothing
    Raises MissingFiles, or DataError that names the file.
    """
    from zoo.data.download import download_missing

    try:
        data = open_task(task, protocol, {**overrides, **({"task.path": str(path)} if path else {})})
    except ConfigError as error:
        if path is None:
            raise
        path, data = None, open_task(task, protocol, overrides)  # raises it again where the path is not the reason
        notice(f"{task.name}: under {protocol} no files are read: {error}")
    if force and isinstance(data, CachedData):
        data.discard()
    try:
        data.prepare()
    except MissingFiles as error:
        if getattr(data.options, "path", ""):
            raise
        download_missing(task, data_dir(), error, connections, offline=offline)
        data = open_task(task, protocol, overrides)
        data.prepare()
    if path is not None:
        save_location(data_dir(), task.name, path)
        if not _finds_again(data, task, protocol, overrides):
            notice(
                f"{task.name}: with these settings a run reads these files only with --set {quote(f'task.path={path}')}"
            )
    return data


def _finds_again(data: TaskData, task: Task, protocol: str, overrides: Mapping[str, Any]) -> bool:
    """Return whether later commands find the files without `--from`."""
    if not isinstance(data, CachedData):
        return True
    try:
        default = open_task(task, protocol, overrides)
        return isinstance(default, CachedData) and default.folder == data.folder
    except UserError:
        return False
