"""The hooks that a plugin may implement. Two, until a real plugin needs a third."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from zoo.spec.architecture import Architecture
from zoo.spec.task import Task

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_architectures() -> Iterable[Architecture]:  # type: ignore[empty-body]
    """Describe architectures. Must not import torch: name backbone and config as "package.module:attribute"."""


@hookspec
def zoo_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Describe tasks. Must not import torch, nor touch data."""
