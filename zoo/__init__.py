"""zoo: compare long-context sequence architectures under one interface and one protocol.

Public names are handed out lazily, so that `import zoo` imports neither torch nor lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Architecture": "zoo.spec.architecture",
    "Backbone": "zoo.nn.backbone",
    "Capabilities": "zoo.spec.architecture",
    "ConfigError": "zoo.spec.errors",
    "Cost": "zoo.spec.architecture",
    "DataError": "zoo.spec.errors",
    "MissingFiles": "zoo.spec.errors",
    "Output": "zoo.nn.backbone",
    "Paper": "zoo.spec.architecture",
    "Preset": "zoo.spec.architecture",
    "Reference": "zoo.spec.architecture",
    "Reported": "zoo.spec.architecture",
    "ModelDims": "zoo.spec.architecture",
    "Source": "zoo.spec.task",
    "SourceFile": "zoo.spec.task",
    "State": "zoo.nn.backbone",
    "Task": "zoo.spec.task",
    "UserError": "zoo.spec.errors",
    "ZooError": "zoo.spec.errors",
    "bench": "zoo.api",
    "check_batch_norm": "zoo.spec.constraints",
    "check_block": "zoo.spec.constraints",
    "check_choice": "zoo.spec.constraints",
    "check_fraction": "zoo.spec.constraints",
    "check_positive": "zoo.spec.constraints",
    "check_state": "zoo.nn.state",
    "check_step_sizes": "zoo.spec.constraints",
    "check_widths": "zoo.spec.constraints",
    "hookimpl": "zoo.spec.hookspecs",
    "registry": "zoo.spec.registry",
}

if TYPE_CHECKING:
    from zoo.api import bench as bench
    from zoo.nn.backbone import Backbone as Backbone
    from zoo.nn.backbone import Output as Output
    from zoo.nn.backbone import State as State
    from zoo.nn.state import check_state as check_state
    from zoo.spec.architecture import Architecture as Architecture
    from zoo.spec.architecture import Capabilities as Capabilities
    from zoo.spec.architecture import Cost as Cost
    from zoo.spec.architecture import ModelDims as ModelDims
    from zoo.spec.architecture import Paper as Paper
    from zoo.spec.architecture import Preset as Preset
    from zoo.spec.architecture import Reference as Reference
    from zoo.spec.architecture import Reported as Reported
    from zoo.spec.constraints import check_batch_norm as check_batch_norm
    from zoo.spec.constraints import check_block as check_block
    from zoo.spec.constraints import check_choice as check_choice
    from zoo.spec.constraints import check_fraction as check_fraction
    from zoo.spec.constraints import check_positive as check_positive
    from zoo.spec.constraints import check_step_sizes as check_step_sizes
    from zoo.spec.constraints import check_widths as check_widths
    from zoo.spec.errors import ConfigError as ConfigError
    from zoo.spec.errors import DataError as DataError
    from zoo.spec.errors import MissingFiles as MissingFiles
    from zoo.spec.errors import UserError as UserError
    from zoo.spec.errors import ZooError as ZooError
    from zoo.spec.hookspecs import hookimpl as hookimpl
    from zoo.spec.registry import registry as registry
    from zoo.spec.task import Source as Source
    from zoo.spec.task import SourceFile as SourceFile
    from zoo.spec.task import Task as Task

__all__ = sorted(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from zoo.spec.registry import own_version

        return own_version()
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
