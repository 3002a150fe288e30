"""The identity of a configuration, and the defaults that it leaves out.

An identity holds the values that differ from their defaults, so a changed default changes the meaning of a hash that
stays the same. `defaults.json` pins the defaults of each version: where a default changes, raise the version of the
architecture or task (or of the protocols, for the frame's settings), then write the file anew:

    python -m tests.spec.test_identity > tests/spec/defaults.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from zoo.run.request import BenchRequest, resolve
from zoo.spec.config import config_hash
from zoo.spec.registry import Entry, registry
from zoo.spec.settings import SECTIONS
from zoo.spec.task import PROTOCOLS

PINNED = Path(__file__).with_name("defaults.json")


def defaults() -> dict[str, dict[str, Any]]:
    """Owner and version -> its defaults, as JSON values."""
    known = registry()
    owned: dict[str, dict[str, Any]] = {}
    for arch in (entry.record for entry in known.architectures.values()):
        owned[f"architecture {arch.name}, version {arch.version}"] = asdict(arch.load_config()())
    for task in (entry.record for entry in known.tasks.values()):
        owned[f"task {task.name}, version {task.version}"] = asdict(task.load_options()())
    frame = {name: asdict(cls()) for name, cls in SECTIONS.items()}
    owned |= {f"protocol {name}, version {version}": frame for name, version in PROTOCOLS.items()}
    return json.loads(json.dumps(owned))


def test_every_default_is_that_of_its_version() -> None:
    pinned, today = json.loads(PINNED.read_text()), defaults()
    for owner, values in today.items():
        assert owner in pinned, f"{owner}: not pinned. {__doc__}"
        changed = {key for key, value in pinned[owner].items() if values.get(key) != value}
        assert not changed, f"{owner}: {', '.join(sorted(changed))} changed. {__doc__}"
        added = values.keys() - pinned[owner].keys()
        assert not added, f"{owner}: pin the default of {', '.join(sorted(added))}. {__doc__}"


def entries() -> tuple[Entry, Entry, dict[str, Any]]:
    (experiment,) = resolve(BenchRequest.parse("transformer", "listops", protocol="smoke"))
    return experiment.arch_entry, experiment.task_entry, dict(experiment.config)


@pytest.mark.parametrize("owner", [0, 1])
def test_a_raised_version_changes_the_hash(owner: int) -> None:
    *names, config = entries()
    before = config_hash(*names, "smoke", config)
    names[owner] = replace(names[owner], record=replace(names[owner].record, version="2x"))
    assert config_hash(*names, "smoke", config) != before
    assert config_hash(*names, "quick", config) != before


def test_settings_of_how_it_is_computed_are_not_part_of_it() -> None:
    arch, task, config = entries()
    before = config_hash(arch, task, "smoke", config)
    for key, value in {"accelerator": "gpu", "op_backend": "reference", "num_workers": 3, "logger": "none"}.items():
        assert config_hash(arch, task, "smoke", {**config, "train": {**config["train"], key: value}}) == before
    batch = {**config, "train": {**config["train"], "micro_batch_size": 1}}
    assert config_hash(arch, task, "smoke", batch) != before


if __name__ == "__main__":
    json.dump(defaults(), sys.stdout, indent=1, sort_keys=True)
    print()
