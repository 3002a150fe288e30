"""The two hooks that a plugin may implement."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from zoo.spec.architecture import Architecture
from zoo.spec.task import Task

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_architectures() -> Iterable[Architecture]:  # type: ignore[empty-body]
    """Yield architectures. Must not import torch; backbone and config are named as "package.module:attribute"."""


@hookspec
def zoo_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Yield tasks. Must not import torch or read data."""
