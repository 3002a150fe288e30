"""The identity of an experiment's configuration. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from zoo.spec.architecture import Architecture
from zoo.spec.layers import flatten
from zoo.spec.registry import Entry
from zoo.spec.settings import NOT_IDENTITY, SECTIONS
from zoo.spec.task import PROTOCOLS, Task


def default_tree(architecture: Architecture, task: Task) -> Any:
    """The structured configuration tree (OmegaConf) with every default."""
    sections = SECTIONS | {"arch": architecture.load_config(), "task": task.load_options()}
    return OmegaConf.create({name: OmegaConf.structured(cls) for name, cls in sections.items()})


def config_hash(architecture: Entry[Architecture], task: Entry[Task], protocol: str, config: Mapping[str, Any]) -> str:
    """Hash a resolved configuration (12 hex digits); the seed is apart.

    Covers names and versions of architecture, task and protocol, and the values that differ from their defaults: a
    new setting with a neutral default changes no hash. Whoever changes a default or the meaning of a setting raises
    the version of the architecture, task or protocol that owns it (tests/spec/test_identity.py pins the defaults).
    """
    defaults = flatten(OmegaConf.to_container(default_tree(architecture.record, task.record)))  # type: ignore[arg-type]
    identity = {
        "architecture": [architecture.provenance.distribution, architecture.record.name, architecture.record.version],
        "task": [task.provenance.distribution, task.record.name, task.record.version],
        "protocol": [protocol, PROTOCOLS[protocol]],
        "config": {
            key: value
            for key, value in flatten(config).items()
            if key not in NOT_IDENTITY and (key not in defaults or value != defaults[key])
        },
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
