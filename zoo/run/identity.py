"""What makes two experiments the same: a hash of the configuration that outlives new settings. No torch here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from zoo.run.settings import NOT_IDENTITY
from zoo.spec.architecture import Architecture
from zoo.spec.layers import flatten
from zoo.spec.task import Task


def later_keys(architecture: Architecture | None, task: Task | None) -> dict[str, Any]:
    """Dotted keys of settings that came after records were published, with the value that changes nothing.

    Such a field is declared `field(default=…, metadata={"later": True})`; while it has that default an experiment is
    what it was before the field existed, and so is its hash.
    """
    nodes: list[tuple[str, type]] = []
    if architecture is not None:
        nodes.append(("arch", architecture.load_config()))
    if task is not None:
        nodes.append(("task", task.load_options()))
    return {
        f"{node}.{field.name}": field.default
        for node, cls in nodes
        for field in dataclasses.fields(cls)
        if field.metadata.get("later")
    }


def config_hash(
    *,
    architecture: str,
    task: str,
    task_version: str,
    protocol: str,
    values: Mapping[str, Any],
    later: Mapping[str, Any],
) -> str:
    """Identity of a configuration (12 hex digits). `architecture` and `task` are "distribution:name"; `values` is
    the resolved tree; `later` from `later_keys`."""
    config = {
        key: value
        for key, value in flatten(values).items()
        if key not in NOT_IDENTITY and not (key in later and value == later[key])
    }
    what = {
        "architecture": architecture,
        "task": task,
        "task_version": task_version,
        "protocol": protocol,
        "config": config,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
