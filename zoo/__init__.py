"""zoo: compare long-context sequence architectures under one interface and one protocol.

Public names are handed out lazily, so that `import zoo` imports neither torch nor lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Activation": "zoo.spec.constraints",
    "Architecture": "zoo.spec.architecture",
    "Backbone": "zoo.nn.backbone",
    "BlockConfig": "zoo.spec.constraints",
    "Capabilities": "zoo.spec.architecture",
    "ConfigError": "zoo.spec.errors",
    "Conversion": "zoo.convert.conversion",
    "Embedding": "zoo.convert.conversion",
    "Head": "zoo.convert.conversion",
    "HeadLayer": "zoo.convert.conversion",
    "HeadModule": "zoo.convert.conversion",
    "Outside": "zoo.convert.conversion",
    "model_class": "zoo.convert.conversion",
    "Cost": "zoo.spec.architecture",
    "DataError": "zoo.spec.errors",
    "Fraction": "zoo.spec.constraints",
    "MissingFiles": "zoo.spec.errors",
    "NonNegativeFloat": "zoo.spec.constraints",
    "NonNegativeInt": "zoo.spec.constraints",
    "Output": "zoo.nn.backbone",
    "Paper": "zoo.spec.architecture",
    "PositiveFloat": "zoo.spec.constraints",
    "PositiveInt": "zoo.spec.constraints",
    "Preset": "zoo.spec.presets",
    "Reading": "zoo.convert.conversion",
    "Reference": "zoo.spec.architecture",
    "Reported": "zoo.spec.presets",
    "ModelDims": "zoo.spec.architecture",
    "Source": "zoo.spec.task",
    "SourceFile": "zoo.spec.task",
    "State": "zoo.nn.backbone",
    "Task": "zoo.spec.task",
    "UserError": "zoo.spec.errors",
    "Weight": "zoo.convert.conversion",
    "ZooError": "zoo.spec.errors",
    "bench": "zoo.api",
    "bert_activation": "zoo.convert.bert_layers",
    "bert_arch": "zoo.convert.bert_layers",
    "bert_check": "zoo.convert.bert_layers",
    "bert_keys": "zoo.convert.bert_layers",
    "bert_layer": "zoo.convert.bert_layers",
    "bert_outside": "zoo.convert.bert",
    "bert_shape": "zoo.convert.bert_layers",
    "check_state": "zoo.nn.state",
    "hookimpl": "zoo.spec.hookspecs",
    "registry": "zoo.spec.registry",
}

if TYPE_CHECKING:
    from zoo.api import bench as bench
    from zoo.convert.bert import bert_outside as bert_outside
    from zoo.convert.bert_layers import bert_activation as bert_activation
    from zoo.convert.bert_layers import bert_arch as bert_arch
    from zoo.convert.bert_layers import bert_check as bert_check
    from zoo.convert.bert_layers import bert_keys as bert_keys
    from zoo.convert.bert_layers import bert_layer as bert_layer
    from zoo.convert.bert_layers import bert_shape as bert_shape
    from zoo.convert.conversion import Conversion as Conversion
    from zoo.convert.conversion import Embedding as Embedding
    from zoo.convert.conversion import Head as Head
    from zoo.convert.conversion import HeadLayer as HeadLayer
    from zoo.convert.conversion import HeadModule as HeadModule
    from zoo.convert.conversion import Outside as Outside
    from zoo.convert.conversion import Reading as Reading
    from zoo.convert.conversion import Weight as Weight
    from zoo.convert.conversion import model_class as model_class
    from zoo.nn.backbone import Backbone as Backbone
    from zoo.nn.backbone import Output as Output
    from zoo.nn.backbone import State as State
    from zoo.nn.state import check_state as check_state
    from zoo.spec.architecture import Architecture as Architecture
    from zoo.spec.architecture import Capabilities as Capabilities
    from zoo.spec.architecture import Cost as Cost
    from zoo.spec.architecture import ModelDims as ModelDims
    from zoo.spec.architecture import Paper as Paper
    from zoo.spec.architecture import Reference as Reference
    from zoo.spec.constraints import Activation as Activation
    from zoo.spec.constraints import BlockConfig as BlockConfig
    from zoo.spec.constraints import Fraction as Fraction
    from zoo.spec.constraints import NonNegativeFloat as NonNegativeFloat
    from zoo.spec.constraints import NonNegativeInt as NonNegativeInt
    from zoo.spec.constraints import PositiveFloat as PositiveFloat
    from zoo.spec.constraints import PositiveInt as PositiveInt
    from zoo.spec.errors import ConfigError as ConfigError
    from zoo.spec.errors import DataError as DataError
    from zoo.spec.errors import MissingFiles as MissingFiles
    from zoo.spec.errors import UserError as UserError
    from zoo.spec.errors import ZooError as ZooError
    from zoo.spec.hookspecs import hookimpl as hookimpl
    from zoo.spec.presets import Preset as Preset
    from zoo.spec.presets import Reported as Reported
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
