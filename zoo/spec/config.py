"""The configuration of an experiment: its sections, layers of dotted keys over the defaults, its identity. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zoo.spec.architecture import Architecture
from zoo.spec.constraints import field_types, validate_value
from zoo.spec.errors import ConfigError, did_you_mean
from zoo.spec.settings import NO_COST, NOT_IDENTITY, SECTIONS
from zoo.spec.task import PROTOCOLS, Task

if TYPE_CHECKING:
    from zoo.spec.registry import Entry


def sections(architecture: Architecture, task: Task) -> dict[str, type]:
    """The dataclass of each top-level node: the frame's settings, `arch` and `task`."""
    return SECTIONS | {"arch": architecture.load_config(), "task": task.load_options()}


def defaults(dataclasses: Mapping[str, type]) -> dict[str, Any]:
    """Every default of these sections, by dotted key."""
    return flatten({node: asdict(cls()) for node, cls in dataclasses.items()})


def preset_values(architecture: Architecture, task: Task, protocol: str) -> dict[str, Any]:
    """What a run has by dotted key where the user changes nothing and no width is solved for: defaults, the task's
    settings for the protocol, the architecture's preset."""
    preset = architecture.load_presets().get((task.name, protocol))
    values = defaults(sections(architecture, task)) | flatten(task.protocols[protocol])
    return values | dict(preset.values if preset else {})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> {dotted key: value}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe_values(tree: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The values of these dotted keys: "optim.lr=0.01, model.n_layers=4"."""
    values = flatten(tree)
    return ", ".join(f"{key}={values[key]}" for key in keys)


def nest(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"node.key": value} -> {"node": {"key": value}}, to any depth."""
    tree: dict[str, dict[str, Any]] = {}
    for full, value in flat.items():
        *nodes, key = full.split(".")
        at: dict[str, Any] = tree
        for node in nodes:
            at = at.setdefault(node, {})
        at[key] = value
    return tree


def validate_layer(layer: Mapping[str, Any], dataclasses: Mapping[str, type], origin: str) -> dict[str, Any]:
    """Return the values of a layer, nested or dotted, by dotted key and as the types of their fields.

    origin  where the layer comes from, for error messages
    Raises ConfigError for a key that no section has, and for a value that its field may not have.
    """
    hints = {f"{node}.{name}": hint for node, cls in dataclasses.items() for name, hint in field_types(cls).items()}
    values = flatten(layer)
    for key, value in values.items():
        inner = [hint for hint in hints if hint.startswith(f"{key}.")]
        if inner:
            raise ConfigError(key, f"has fields of its own: {', '.join(inner)}", origin=origin)
        if key not in hints:
            raise ConfigError(key, f"unknown key{did_you_mean(key, hints)}", origin=origin)
        values[key] = validate_value(key, value, hints[key], origin=origin)
    return values


def config_hash(
    architecture: Entry[Architecture],
    task: Entry[Task],
    protocol: str,
    config: Mapping[str, Any],
    sweep: Mapping[str, Any] | None = None,
    weights: str = "",
) -> str:
    """Hash a resolved configuration (12 hex digits), and the sweep that it is a trial of; the seed is apart.

    weights  sha256 of those that the run begins with; "" = it begins anew

    Covers names and versions of architecture, task and protocol, and the values that differ from their defaults: a
    new setting with a neutral default changes no hash. Whoever changes a default or the meaning of a setting raises
    the version of the architecture, task or protocol that owns it (tests/spec/test_identity.py pins the defaults).
    """
    default = defaults(sections(architecture.record, task.record))
    identity: dict[str, Any] = {
        "architecture": [architecture.plugin.distribution, architecture.record.name, architecture.record.version],
        "task": [task.plugin.distribution, task.record.name, task.record.version],
        "protocol": [protocol, PROTOCOLS[protocol]],
        "config": {
            key: value
            for key, value in flatten(config).items()
            if key not in NOT_IDENTITY and (key not in default or value != default[key])
        },
    }
    if sweep is not None:
        identity["sweep"] = sweep
    if weights:
        identity["init"] = weights
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def shape_hash(
    architecture: tuple[str, str, str], task: tuple[str, str], protocol: str, config: Mapping[str, Any]
) -> str:
    """Hash what decides the cost of an example (12 hex digits): code and shapes, not rates or budgets.

    architecture  distribution, name and version
    task          name and version
    """
    text = json.dumps([*architecture, *task, protocol, cost_settings(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cost_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by dotted key, that decide what an example costs: shapes, not rates or budgets."""
    return {key: value for key, value in flatten(config).items() if key not in NO_COST and not key.startswith("optim.")}


def same_cost(settings: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether nothing that two configurations of one version both hold differs, each as `cost_settings`.

    What only one of them holds is a setting that the other is older than: its default changes nothing (`config_hash`).
    """
    return all(others.get(key, value) == value for key, value in settings.items())
