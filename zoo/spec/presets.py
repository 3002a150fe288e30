"""Presets and reported scores of a package, read from its `presets.toml`. No torch here.

A section is a preset, `[TASK.PROTOCOL]`, or a base that others inherit, `[base.NAME]`:

    [text.paper]
    inherits = ["zoo_lra:base.text", "base.common"]  # merged in this order; of this file or another package's
    exclude = ["model.positions"]                    # inherited keys that are dropped
    source = "Author et al. 2021, Table 9"           # of every value below; inherited where it is not given
    model.d_model = 256
    arch.dt_lr = "null"                              # TOML has no null
    optim.lr = { value = 0.05, source = "ours, because ..." }            # a source of its own
    optim.warmup_ratio = { value = 0.2, note = "1000 of 5000 steps" }    # the section's source, and this

`source_prefix` is put before the sources of inherited values. Scores that papers report:

    [[reported]]
    source = "Author et al. 2021"
    table = "Table 1"
    metric = "accuracy"
    scores = { TASK = 0.3637, OTHER_TASK = 0.6427 }
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.spec.errors import NODES, ZooError, did_you_mean

FILE = "presets.toml"
OPTIONS = ("inherits", "exclude", "source", "source_prefix")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Configuration values for one (task, protocol), each with its source.

    `values` maps dotted configuration keys (`model.d_model`, `arch.d_state`, `optim.lr` …) to values, `sources` the
    same keys to where the number is from: a paper's table, `project path@commit`, or `ours, because …`.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """A score that a paper reports. Shown beside measured scores, never averaged with them.

    average  the mean over tasks as the source prints it; None where it prints none
    """

    task: str
    metric: str
    value: float
    source: str
    table: str = ""
    average: float | None = None


class PresetsFile(NamedTuple):
    """Content of one `presets.toml`: presets by (task, protocol), and reported scores."""

    presets: Mapping[tuple[str, str], Preset]
    reported: tuple[Reported, ...]


@functools.cache
def load_presets(package: str) -> PresetsFile:
    """Read a package's presets; there are none where it has no `presets.toml`.

    Raises ZooError, which names file and section, for TOML that cannot be read, a section that does not exist or
    inherits itself, and a value without a source.
    """
    document = _read(package)
    presets = {}
    for task, protocols in document.items():
        if task in ("base", "reported"):
            continue
        for protocol in _table(protocols, f"{package}/{FILE} [{task}]"):
            values = _resolve(package, f"{task}.{protocol}").values
            presets[task, protocol] = Preset(
                values={key: value for key, (value, _) in values.items()},
                sources={key: source for key, (_, source) in values.items()},
            )
    return PresetsFile(presets, tuple(_reported(document.get("reported", []), f"{package}/{FILE} [[reported]]")))


@functools.cache
def _read(package: str) -> Mapping[str, Any]:
    """The parsed file, or {} where a package has none."""
    try:
        return tomllib.loads((importlib.resources.files(package) / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, TypeError):  # Python 3.11 raises TypeError for a module that is no package
        return {}
    except ImportError as error:
        raise ZooError(f"presets of {package}: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ZooError(f"{package}/{FILE}: {error}") from error


class _Section(NamedTuple):
    """Resolved values of a section, as key -> (value, source), and the source of values that give none."""

    values: dict[str, tuple[Any, str]]
    source: str


def _resolve(package: str, name: str, path: tuple[str, ...] = ()) -> _Section:
    """Merge a section with the sections it inherits. `path` holds the sections that inherit this one."""
    where = f"{package}/{FILE} [{name}]"
    if where in path:
        raise ZooError(f"{where}: inherits itself")
    document = _read(package)
    known = {f"{a}.{b}": tables[b] for a, tables in document.items() if isinstance(tables, dict) for b in tables}
    if name not in known:
        raise ZooError(f"{package}/{FILE} has no section [{name}]{did_you_mean(name, known)}")
    table = _table(known[name], where)
    prefix, source = table.get("source_prefix", ""), ""
    values: dict[str, tuple[Any, str]] = {}
    for base in table.get("inherits", []):
        other, _, base_name = base.rpartition(":")
        try:
            inherited = _resolve(other or package, base_name, (*path, where))
        except ZooError as error:
            raise ZooError(f"{where}: inherits [{base}]: {error}") from error
        values |= {key: (value, prefix + origin) for key, (value, origin) in inherited.values.items()}
        source = inherited.source or source
    for key in table.get("exclude", []):
        if key not in values:
            raise ZooError(f"{where}: excludes {key}, which is not inherited{did_you_mean(key, values)}")
        del values[key]
    source = table.get("source", source)
    for node, entries in table.items():
        if node in NODES:
            for key, entry in _table(entries, f"{where}: {node}").items():
                values[f"{node}.{key}"] = _value(entry, source, f"{where}: {node}.{key}")
        elif node not in OPTIONS:
            raise ZooError(f"{where}: unknown key {node!r}{did_you_mean(node, (*OPTIONS, *NODES))}")
    return _Section(values, source)


def _value(entry: Any, source: str, where: str) -> tuple[Any, str]:
    """The value of an entry and its source, which is `source`, that of the section, unless it has its own."""
    if isinstance(entry, dict):
        if entry.keys() not in ({"value", "source"}, {"value", "note"}):
            raise ZooError(f"{where}: expected a value, or {{ value = …, source = … }} (or note = …)")
        source = entry.get("source") or (source and f"{source}: {entry['note']}")
        entry = entry["value"]
    if not source:
        raise ZooError(f"{where} has no source: a paper's table, a repository's file, or 'ours, because …'")
    return None if entry == "null" else entry, source


def _reported(tables: Any, where: str) -> Iterator[Reported]:
    for table in tables:
        try:
            common = {key: table[key] for key in ("metric", "source")}
            for task, value in table["scores"].items():
                further = {key: table[key] for key in ("table", "average") if key in table}
                yield Reported(task=task, value=value, **further, **common)
            if not common["source"]:
                raise ZooError(f"{where}: scores without a source, {table}")
        except (KeyError, TypeError, AttributeError) as error:
            raise ZooError(
                f"{where}: expected metric, source, scores and perhaps table and average, got {table}"
            ) from error


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ZooError(f"{where}: expected a table, got {value!r}")
    return value
