"""The registry of architectures and tasks, and the status of every plugin.

Built-ins are modules that are loaded exactly as the entry points (group `zoo`) of other distributions are. A broken
plugin never disturbs the others: its error becomes its `PluginStatus`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from typing import Any, Generic, Literal, TypeVar

import pluggy

from zoo.spec import hookspecs
from zoo.spec.architecture import API, Architecture, Provenance
from zoo.spec.errors import UnknownName, UserError
from zoo.spec.task import Task

GROUP = "zoo"
BUILTINS = (
    *("zoo_transformer", "zoo_transformer_xl", "zoo_compressive", "zoo_rmt", "zoo_memformer"),
    *("zoo_longformer", "zoo_bigbird", "zoo_linformer", "zoo_performer", "zoo_nystromformer", "zoo_perceiver"),
    *("zoo_s4", "zoo_s5", "zoo_h3", "zoo_hyena", "zoo_mamba", "zoo_retnet", "zoo_mega", "zoo_longt5"),
    *("zoo_lra", "zoo_recall", "zoo_lambada"),
)

T = TypeVar("T", Architecture, Task)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered architecture or task, and the distribution that it comes from."""

    record: T
    provenance: Provenance


@dataclass(frozen=True)
class Candidate:
    """A plugin that may be loaded: a built-in module, an entry point, or a module named in ZOO_PLUGINS."""

    name: str
    provenance: Provenance
    load: Callable[[], Any]


@dataclass(frozen=True)
class PluginStatus:
    """The outcome of loading one plugin, as `zoo doctor` shows it."""

    name: str
    distribution: str
    version: str
    state: Literal["ok", "error", "disabled", "partial"]
    detail: str = ""
    builtin: bool = False
    provides: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether something of the plugin could not be registered under its name."""
        return self.state in ("error", "partial")

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.distribution} {self.version}) {self.state}: {self.detail}"


class Registry:
    """Architectures and tasks by name, and the status of every plugin."""

    def __init__(self) -> None:
        self.architectures: dict[str, Entry[Architecture]] = {}
        self.tasks: dict[str, Entry[Task]] = {}
        self.plugins: list[PluginStatus] = []
        self._announced_aliases: set[str] = set()

    def architecture(self, name: str) -> Entry[Architecture]:
        """Look up an architecture by `name` or `distribution:name`. Raises UnknownName with the nearest names."""
        return self._find("architecture", self.architectures, name)

    def task(self, name: str) -> Entry[Task]:
        """Look up a task by name, alias or `distribution:name`. Raises UnknownName with the nearest names."""
        return self._find("task", self.tasks, self.resolve_alias(name))

    def suite(self, suite: str) -> list[str]:
        """Names of the tasks of one suite, in order of registration."""
        return [name for name, entry in self.tasks.items() if entry.record.suite == suite]

    def resolve_alias(self, name: str) -> str:
        """Resolve an alias to its task's name, with one line on stderr the first time; other names are unchanged."""
        tasks = [full for full, entry in self.tasks.items() if name in entry.record.aliases]
        if name in self.tasks or len(tasks) != 1:
            return name
        if name not in self._announced_aliases:
            self._announced_aliases.add(name)
            print(f"zoo: {name} means {tasks[0]}", file=sys.stderr)
        return tasks[0]

    def _find(self, kind: str, table: dict[str, Entry[T]], name: str) -> Entry[T]:
        if name in table:
            return table[name]
        clashing = sorted(full for full, entry in table.items() if entry.record.name == name)
        if clashing:
            raise UserError(f"{kind} {name!r} is claimed by several plugins; say {' or '.join(clashing)}")
        broken = [p for p in self.plugins if p.broken and (name in f"{p.distribution}:{p.name}" or p.name in name)]
        raise UnknownName(kind, name, table, detail="; ".join(map(str, broken)))

    # -- loading -----------------------------------------------------------------------------------------------------

    def load(self, candidate: Candidate) -> None:
        """Load one plugin and register what its hooks yield. Errors become its status (with ZOO_STRICT they raise)."""
        source = candidate.provenance
        state: Literal["ok", "error", "disabled", "partial"] = "disabled"
        provides: list[str] = []
        faults = ["by ZOO_DISABLE"]
        if not {candidate.name, source.distribution} & set(os.environ.get("ZOO_DISABLE", "").split(",")):
            provides, faults = self._register(candidate)
            state = "ok" if not faults else "partial" if provides else "error"
        origin = (candidate.name, source.distribution, source.version)
        self.plugins.append(PluginStatus(*origin, state, "; ".join(faults), source.builtin, tuple(provides)))

    def _register(self, candidate: Candidate) -> tuple[list[str], list[str]]:
        """Import a plugin, call its hooks and enter what they yield: registered names, and faults."""
        provides: list[str] = []
        faults: list[str] = []
        manager = pluggy.PluginManager("zoo")  # one for each plugin, so that none can affect another
        manager.add_hookspecs(hookspecs)
        with _errors_as_faults(faults):
            plugin = candidate.load()
            manager.register(plugin() if isinstance(plugin, type) else plugin)
            manager.check_pending()
        if faults:
            return provides, faults
        tables: dict[str, tuple[type[Any], dict[str, Entry[Any]]]] = {
            "zoo_architectures": (Architecture, self.architectures),
            "zoo_tasks": (Task, self.tasks),
        }
        for hook, (kind, table) in tables.items():
            records: list[Any] = []
            with _errors_as_faults(faults, f"{hook}: "):
                records = [record for yielded in getattr(manager.hook, hook)() for record in yielded]
            for record in records:
                if not isinstance(record, kind):
                    faults.append(f"{hook}: yielded {type(record).__name__}, expected {kind.__name__}")
                    continue
                try:
                    faults += _enter(table, Entry(record, candidate.provenance))
                    provides.append(record.name)
                except ValueError as error:
                    faults.append(str(error))
        return provides, faults if provides or faults else [f"implements none of {', '.join(tables)}"]


def _enter(table: dict[str, Entry[T]], entry: Entry[T]) -> list[str]:
    """Enter under the plain name, or in a name clash under `distribution:name`. Returns a description of the clash.

    Raises ValueError for a record of another interface version, and for a second one of the same name and distribution.
    """
    record: Architecture | Task = entry.record
    distribution = entry.provenance.distribution
    name, qualified = record.name, f"{distribution}:{record.name}"
    if record.api != API:
        advice = f"upgrade {'seqzoo' if record.api > API else distribution} with pip"
        raise ValueError(f"{name}: written for interface {record.api}, this is {API}; {advice}")
    others = {full: other.provenance for full, other in table.items() if other.record.name == name}
    if distribution in (other.distribution for other in others.values()):
        raise ValueError(f"{name}: registered twice by {distribution}")
    if not others:
        table[name] = entry
        return []
    table[qualified] = entry
    if name in others and others[name].builtin:
        return [f"name clash: {name!r} is a built-in name; reachable as {qualified!r}"]
    if name in others:  # the first claimant loses the plain name too
        table[f"{others[name].distribution}:{name}"] = table.pop(name)
    claimants = " and ".join(repr(f"{other.distribution}:{name}") for other in others.values())
    return [f"name clash: {name!r} is claimed by several plugins; reachable as {qualified!r}, beside {claimants}"]


@contextlib.contextmanager
def _errors_as_faults(faults: list[str], prefix: str = "") -> Iterator[None]:
    """Append an exception or sys.exit to `faults` as one line, unless ZOO_STRICT is set; discard what is printed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (Exception, SystemExit) as error:
        if os.environ.get("ZOO_STRICT"):
            raise
        if isinstance(error, SystemExit):
            cause = f"called sys.exit({error.code!r}) while loading"
        else:
            where = f" ({error.filename}, line {error.lineno})" if isinstance(error, SyntaxError) else ""
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
        faults.append(prefix + cause[:400])


def own_version() -> str:
    """Version of the installed seqzoo distribution, or "0+source" when run from a bare checkout."""
    try:
        return metadata.version("seqzoo")
    except metadata.PackageNotFoundError:
        return "0+source"


def candidates() -> Iterator[Candidate]:
    """Built-ins, then entry points by (distribution, name), then the modules named in ZOO_PLUGINS."""
    for name in BUILTINS:
        source = Provenance(distribution="seqzoo", version=own_version(), entry_point=name, builtin=True)
        yield Candidate(name, source, partial(importlib.import_module, name))
    points = [(point.dist.name if point.dist else "unknown", point) for point in metadata.entry_points(group=GROUP)]
    for dist, point in sorted(points, key=lambda pair: (pair[0], pair[1].name)):
        version = point.dist.version if point.dist else "0"
        yield Candidate(point.name, Provenance(distribution=dist, version=version, entry_point=point.value), point.load)
    for name in filter(None, os.environ.get("ZOO_PLUGINS", "").split(",")):
        source = Provenance(distribution=name, version="0+path", entry_point=name)
        yield Candidate(name, source, partial(importlib.import_module, name))


def discover(plugins: Iterable[Candidate] | None = None) -> Registry:
    """Load all plugins, or the given ones, into a new registry."""
    known = Registry()
    for candidate in candidates() if plugins is None else plugins:
        known.load(candidate)
    return known


@cache
def registry() -> Registry:
    """The registry of this process. Broken plugins are reported once, one line each on stderr."""
    known = discover()
    for status in known.plugins:
        if status.broken:
            print(f"zoo: {status} [zoo doctor]", file=sys.stderr)
    return known
