"""Which architectures and tasks there are, and which plugins failed and why.

Built-ins are a tuple of module names that take the very path that third-party entry points (group `zoo`) take.
A broken plugin never disturbs the others: it becomes a `PluginStatus` with its cause.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Generic, Literal, TypeVar

import pluggy

from zoo.spec import hookspecs
from zoo.spec.architecture import API, Architecture, Provenance
from zoo.spec.errors import UnknownName, UserError
from zoo.spec.task import Task

GROUP = "zoo"
BUILTINS = (
    "zoo_transformer",
    "zoo_transformer_xl",
    "zoo_compressive",
    "zoo_rmt",
    "zoo_memformer",
    "zoo_longformer",
    "zoo_bigbird",
    "zoo_linformer",
    "zoo_performer",
    "zoo_nystromformer",
    "zoo_perceiver",
    "zoo_s4",
    "zoo_s5",
    "zoo_h3",
    "zoo_hyena",
    "zoo_mamba",
    "zoo_retnet",
    "zoo_mega",
    "zoo_longt5",
    "zoo_lra",
    "zoo_recall",
    "zoo_lambada",
)
HOOKS: dict[str, type] = {"zoo_architectures": Architecture, "zoo_tasks": Task}

T = TypeVar("T", Architecture, Task)


@dataclass(frozen=True)
class PluginStatus:
    """One plugin as `zoo doctor` shows it."""

    name: str
    distribution: str
    version: str
    state: Literal["ok", "error", "disabled", "partial"]
    detail: str = ""
    builtin: bool = False
    provides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered record and where it came from."""

    record: T
    provenance: Provenance


@dataclass
class Candidate:
    """A plugin that may be loaded: a built-in module, an entry point, or a module named in ZOO_PLUGINS."""

    name: str
    distribution: str
    version: str
    entry_point: str
    load: Callable[[], Any]
    builtin: bool = False


class Registry:
    """Everything registered: architectures and tasks by name, and the state of every plugin."""

    def __init__(self) -> None:
        self.architectures: dict[str, Entry[Architecture]] = {}
        self.tasks: dict[str, Entry[Task]] = {}
        self.plugins: list[PluginStatus] = []
        self._failed: dict[str, str] = {}
        self._told: set[str] = set()

    def architecture(self, name: str) -> Entry[Architecture]:
        """The architecture `name` (or `distribution:name`); UnknownName with the nearest valid ones otherwise."""
        return self._find("architecture", self.architectures, name)

    def task(self, name: str) -> Entry[Task]:
        """The task `name` (or `distribution:name`); UnknownName with the nearest valid ones otherwise."""
        return self._find("task", self.tasks, self.resolved(name))

    def resolved(self, name: str) -> str:
        """The task that `name` means where it is another name of one, which stderr is told once; else `name`."""
        if name in self.tasks:
            return name
        meant = [full for full, entry in self.tasks.items() if name in entry.record.aliases]
        if len(meant) != 1:
            return name
        if name not in self._told:
            self._told.add(name)
            print(f"zoo: {name} means {meant[0]}", file=sys.stderr)
        return meant[0]

    def _find(self, kind: str, table: dict[str, Entry[T]], name: str) -> Entry[T]:
        if name in table:
            return table[name]
        clashing = [full for full in table if full.split(":")[-1] == name]
        if clashing:
            raise UserError(f"{kind} {name!r} is claimed by several plugins; say {' or '.join(sorted(clashing))}")
        blame = [why for plugin, why in self._failed.items() if name in plugin or plugin.split(":")[-1] in name]
        raise UnknownName(kind, name, table, detail="; ".join(blame))

    def suite(self, suite: str) -> list[str]:
        """Names of the tasks of one suite, in order of registration."""
        return [name for name, entry in self.tasks.items() if entry.record.suite == suite]

    # -- building ------------------------------------------------------------------------------------------------

    def add(self, manager: pluggy.PluginManager, candidate: Candidate) -> None:
        """Load one plugin, call its hooks, file its records; whatever it does wrong stays its own."""
        disabled = {name for name in os.environ.get("ZOO_DISABLE", "").split(",") if name}
        if candidate.name in disabled or candidate.distribution in disabled:
            self._note(candidate, "disabled", "by ZOO_DISABLE")
            return
        plugin: Any = None
        try:
            with _quiet():
                plugin = candidate.load()
                if isinstance(plugin, type):
                    plugin = plugin()
                manager.register(plugin, name=f"{candidate.distribution}:{candidate.name}")
                manager.check_pending()
        except (Exception, SystemExit) as error:
            if plugin is not None and manager.is_registered(plugin):
                manager.unregister(plugin)
            if os.environ.get("ZOO_STRICT"):
                raise
            self._note(candidate, "error", _cause(error))
            return
        provides: list[str] = []
        faults: list[str] = []
        for hook, expected in HOOKS.items():
            for impl in getattr(manager.hook, hook).get_hookimpls():
                if impl.plugin is not plugin:
                    continue
                try:
                    with _quiet():
                        records = list(impl.function() or ())
                except (Exception, SystemExit) as error:
                    if os.environ.get("ZOO_STRICT"):
                        raise
                    faults.append(f"{hook}: {_cause(error)}")
                    continue
                for record in records:
                    fault = self._file(candidate, record, expected, hook)
                    if fault:
                        faults.append(fault)
                    else:
                        provides.append(record.name)
        if not provides and not faults:
            faults.append("implements none of " + ", ".join(HOOKS))
        state: Any = "ok" if not faults else "partial" if provides else "error"
        self._note(candidate, state, "; ".join(faults), tuple(provides))

    def _file(self, candidate: Candidate, record: Any, expected: type, hook: str) -> str:
        """Put one record under its name. Returns what is wrong with it, or nothing."""
        of_its_kind = isinstance(record, expected)
        if not of_its_kind:
            return f"{hook}: yielded {type(record).__name__}, expected {expected.__name__}"
        if record.api != API:
            newer = "upgrade seqzoo" if record.api > API else f"upgrade {candidate.distribution}"
            return f"{record.name}: written for interface {record.api}, this is {API}; {newer} with pip"
        table: dict[str, Any] = self.architectures if expected is Architecture else self.tasks
        entry = Entry(
            record,
            Provenance(
                distribution=candidate.distribution,
                version=candidate.version,
                entry_point=candidate.entry_point,
                builtin=candidate.builtin,
            ),
        )
        full = f"{candidate.distribution}:{record.name}"
        other = table.get(record.name)
        clashing = [name for name in table if name.split(":")[-1] == record.name]
        if full in table or (other and other.provenance.distribution == candidate.distribution):
            return f"{record.name}: registered twice by {candidate.distribution}"
        if other is None and not clashing:
            table[record.name] = entry
            return ""
        table[full] = entry
        if other is not None and other.provenance.builtin:
            self._clash(candidate, f"{record.name!r} is a built-in name; reachable as {full!r}")
        elif other is not None:
            del table[record.name]
            theirs = f"{other.provenance.distribution}:{record.name}"
            table[theirs] = other
            self._clash(candidate, f"{record.name!r} is claimed twice; reachable as {full!r} and {theirs!r}")
        else:
            others = " and ".join(repr(name) for name in clashing)
            self._clash(candidate, f"{record.name!r} is claimed by others too; reachable as {full!r}, beside {others}")
        return ""

    def _clash(self, candidate: Candidate, why: str) -> None:
        self.plugins.append(
            PluginStatus(candidate.name, candidate.distribution, candidate.version, "partial", f"name clash: {why}")
        )

    def _note(self, candidate: Candidate, state: Any, detail: str = "", provides: tuple[str, ...] = ()) -> None:
        self.plugins.append(
            PluginStatus(
                candidate.name, candidate.distribution, candidate.version, state, detail, candidate.builtin, provides
            )
        )
        if state in ("error", "partial"):
            who = f"{candidate.distribution}:{candidate.name}"
            self._failed[who] = f"plugin {candidate.name} ({candidate.distribution} {candidate.version}): {detail}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A plugin that prints while it loads must not spoil `--json` output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _cause(error: BaseException) -> str:
    """One line: kind of error and its message."""
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r}) while loading"
    where = f" ({error.filename}, line {error.lineno})" if isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"[:400]


def own_version() -> str:
    """Version of the installed seqzoo distribution, or "0+source" when run from a bare checkout."""
    try:
        return metadata.version("seqzoo")
    except metadata.PackageNotFoundError:
        return "0+source"


def candidates() -> Iterator[Candidate]:
    """Built-ins, then entry points by (distribution, name), then modules named in ZOO_PLUGINS."""

    def importer(name: str) -> Callable[[], Any]:
        return lambda: importlib.import_module(name)

    for name in BUILTINS:
        yield Candidate(name, "seqzoo", own_version(), name, importer(name), builtin=True)

    def order(ep: metadata.EntryPoint) -> tuple[str, str]:
        return (ep.dist.name if ep.dist else "", ep.name)

    for ep in sorted(metadata.entry_points(group=GROUP), key=order):
        dist = ep.dist.name if ep.dist else "unknown"
        yield Candidate(ep.name, dist, ep.dist.version if ep.dist else "0", ep.value, ep.load)
    for name in filter(None, os.environ.get("ZOO_PLUGINS", "").split(",")):
        yield Candidate(name, name, "0+path", name, importer(name))


def discover(found: Iterable[Candidate] | None = None) -> Registry:
    """A fresh registry of everything that can be found."""
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(hookspecs)
    registry = Registry()
    for candidate in found if found is not None else candidates():
        registry.add(manager, candidate)
    return registry


@cache
def registry() -> Registry:
    """The registry of this process; broken plugins are told about once, on stderr, in one line each."""
    found = discover()
    for status in found.plugins:
        if status.state in ("error", "partial"):
            print(
                f"zoo: plugin {status.name} ({status.distribution} {status.version}) {status.state}: "
                f"{status.detail} [zoo doctor]",
                file=sys.stderr,
            )
    return found


__all__ = [
    "BUILTINS",
    "GROUP",
    "Candidate",
    "Entry",
    "PluginStatus",
    "Registry",
    "candidates",
    "discover",
    "own_version",
    "registry",
]
