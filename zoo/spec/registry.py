"""The registry of architectures and tasks, the hooks that plugins implement, and the status of every plugin.

Built-ins are modules that are loaded exactly as the entry points (group `zoo`) of other distributions are. A broken
plugin never disturbs the others: its error is kept in its `Plugin`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Generic, Literal, TypeVar

import pluggy

from zoo.spec.architecture import API, Architecture
from zoo.spec.errors import UnknownName, UserError, ZooError
from zoo.spec.task import DataReader, Task

GROUP = "zoo"
BUILTINS = (
    *("zoo_transformer", "zoo_transformer_xl", "zoo_compressive", "zoo_rmt", "zoo_memformer"),
    *("zoo_longformer", "zoo_bigbird", "zoo_linformer", "zoo_performer", "zoo_nystromformer", "zoo_perceiver"),
    *("zoo_s4", "zoo_s5", "zoo_h3", "zoo_hyena", "zoo_mamba", "zoo_retnet", "zoo_mega", "zoo_longt5"),
    *("zoo_lra", "zoo_recall", "zoo_lambada", "zoo_own"),
)

T = TypeVar("T", Architecture, Task, DataReader)
hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_architectures() -> Iterable[Architecture]:  # type: ignore[empty-body]
    """Yield architectures. Must not import torch; backbone and config are named as "package.module:attribute"."""


@hookspec
def zoo_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Yield tasks. Must not import torch or read data."""


@hookspec
def zoo_data_readers() -> Iterable[DataReader]:  # type: ignore[empty-body]
    """Yield what makes tasks of a user's own data (`zoo bench --data`). Must not import torch or read data."""


@dataclass
class Plugin:
    """A built-in module, an entry point, or a module named in ZOO_PLUGINS, and the outcome of loading it.

    entry_point  "package.module" or "package.module:attribute"
    provides     names of the registered architectures and tasks
    """

    name: str
    distribution: str
    version: str
    entry_point: str
    builtin: bool = False
    state: Literal["ok", "error", "disabled", "partial"] = "ok"
    detail: str = ""
    provides: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether something of the plugin could not be registered under its name."""
        return self.state in ("error", "partial")

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.distribution} {self.version}) {self.state}: {self.detail}"


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered architecture, task or reader of data, and the plugin that it comes from."""

    record: T
    plugin: Plugin


class Registry:
    """Architectures and tasks by name, and every plugin."""

    def __init__(self) -> None:
        self.architectures: dict[str, Entry[Architecture]] = {}
        self.tasks: dict[str, Entry[Task]] = {}
        self.readers: dict[str, Entry[DataReader]] = {}
        self.declared: dict[str, Mapping[str, Any]] = {}
        self.plugins: list[Plugin] = []
        self._announced_aliases: set[str] = set()

    def architecture(self, name: str) -> Entry[Architecture]:
        """Look up an architecture by `name` or `distribution:name`. Raises UnknownName with the nearest names."""
        return self._find("architecture", self.architectures, name)

    def task(self, name: str) -> Entry[Task]:
        """Look up a task by name, alias or `distribution:name`. Raises UnknownName with the nearest names."""
        return self._find("task", self.tasks, self.resolve_alias(name))

    @property
    def reader(self) -> Entry[DataReader]:
        """What makes tasks of a user's own data. Raises UserError where no plugin does."""
        for entry in self.readers.values():
            return entry
        raise UserError("no plugin here reads data of your own; zoo doctor shows all plugins")

    def declare(self, fields: Mapping[str, Any]) -> str:
        """Register the task of a user's own data in this process and return its name.

        fields  of the Task, as JSON values: what `DataReader.declare` returned
        """
        name = fields["name"]
        while name in self.tasks and name not in self.declared:
            name += "_data"  # of a folder called as a task is
        self.declared[name] = {**fields, "name": name}
        self.tasks[name] = self.entry_of(self.declared[name])
        return name

    def entry_of(self, fields: Mapping[str, Any]) -> Entry[Task]:
        """The task of a user's own data with these fields, registered or not."""
        return Entry(Task(**{**fields, "metrics": tuple(fields["metrics"])}), self.reader.plugin)

    def suite(self, suite: str) -> list[str]:
        """Names of the tasks of one suite, in order of registration."""
        return [name for name, entry in self.tasks.items() if entry.record.suite == suite]

    def suite_description(self, suite: str) -> str:
        """What the tasks of a suite have in common, as its first task says; empty for an unknown suite."""
        return next(
            (entry.record.suite_description for entry in self.tasks.values() if entry.record.suite == suite), ""
        )

    def resolve_alias(self, name: str) -> str:
        """Resolve an alias to its task's name, with one line on stderr the first time; other names are unchanged."""
        tasks = [full for full, entry in self.tasks.items() if name in entry.record.aliases]
        if name in self.tasks or len(tasks) != 1:
            return name
        if name not in self._announced_aliases:
            self._announced_aliases.add(name)
            print(f"zoo: {name} means {tasks[0]}", file=sys.stderr)
        return tasks[0]

    def registered_as(self, distribution: str, architecture: str) -> str | None:
        """The name by which `architecture` finds that of this distribution; None where it is not installed."""
        for name, entry in self.architectures.items():
            if (entry.plugin.distribution, entry.record.name) == (distribution, architecture):
                return name
        return None

    def _find(self, kind: str, table: dict[str, Entry[T]], name: str) -> Entry[T]:
        if name in table:
            return table[name]
        clashing = sorted(full for full, entry in table.items() if entry.record.name == name)
        if clashing:
            raise UserError(f"{kind} {name!r} is claimed by several plugins; say {' or '.join(clashing)}")
        broken = [p for p in self.plugins if p.broken and (name in f"{p.distribution}:{p.name}" or p.name in name)]
        raise UnknownName(kind, name, table, detail="; ".join(map(str, broken)))

    # -- loading -----------------------------------------------------------------------------------------------------

    def load(self, plugin: Plugin) -> None:
        """Load one plugin and register what its hooks yield. Errors become its detail (with ZOO_STRICT they raise)."""
        self.plugins.append(plugin)
        if {plugin.name, plugin.distribution} & set(os.environ.get("ZOO_DISABLE", "").split(",")):
            plugin.state, plugin.detail = "disabled", "by ZOO_DISABLE"
            return
        faults: list[str] = []
        manager = pluggy.PluginManager("zoo")  # one for each plugin, so that none can affect another
        manager.add_hookspecs(sys.modules[__name__])
        with _errors_as_faults(faults):
            loaded = metadata.EntryPoint(plugin.name, plugin.entry_point, GROUP).load()
            manager.register(loaded() if isinstance(loaded, type) else loaded)
            manager.check_pending()
        hooks: dict[str, tuple[type[Any], dict[str, Entry[Any]]]] = {
            "zoo_architectures": (Architecture, self.architectures),
            "zoo_tasks": (Task, self.tasks),
            "zoo_data_readers": (DataReader, self.readers),
        }
        for hook, (kind, table) in hooks.items():
            records: list[Any] = []
            with _errors_as_faults(faults, f"{hook}: "):
                records = [record for yielded in getattr(manager.hook, hook)() for record in yielded]
            for record in records:
                with _errors_as_faults(faults):
                    if not isinstance(record, kind):
                        raise ZooError(f"{hook}: yielded {type(record).__name__}, expected {kind.__name__}")
                    faults += _enter(table, Entry(record, plugin))
                    plugin.provides += (record.name,)
        if not plugin.provides and not faults:
            faults.append(f"implements none of {', '.join(hooks)}")
        plugin.state = "ok" if not faults else "partial" if plugin.provides else "error"
        plugin.detail = "; ".join(faults)


def _enter(table: dict[str, Entry[T]], entry: Entry[T]) -> list[str]:
    """Enter under the plain name, or in a name clash under `distribution:name`. Returns a description of the clash.

    Raises ZooError for a record of another interface version, and for a second one of the same name and distribution.
    """
    record: Architecture | Task | DataReader = entry.record
    distribution = entry.plugin.distribution
    name, qualified = record.name, f"{distribution}:{record.name}"
    if record.api != API:
        advice = f"upgrade {'seqzoo' if record.api > API else distribution} with pip"
        raise ZooError(f"{name}: written for interface {record.api}, this is {API}; {advice}")
    others = {full: other.plugin for full, other in table.items() if other.record.name == name}
    if distribution in (other.distribution for other in others.values()):
        raise ZooError(f"{name}: registered twice by {distribution}")
    if not others:
        table[name] = entry
        return []
    table[qualified] = entry
    if name in others and others[name].builtin:
        return [f"name clash: {name!r} is a built-in name; reachable as {qualified!r}"]
    if name in others:  # the first claimant loses the plain name too
        table[f"{others[name].distribution}:{name}"] = table.pop(name)
    return [f"name clash: {name!r} is claimed by several plugins; reachable as {qualified!r}"]


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
            kind = "" if isinstance(error, ZooError) else f"{type(error).__name__}: "
            cause = kind + " ".join(str(error).split())
        faults.append(prefix + cause[:400])


@cache
def own_version() -> str:
    """Version of the installed seqzoo distribution, or "0+source" when run from a bare checkout."""
    try:
        return metadata.version("seqzoo")
    except metadata.PackageNotFoundError:
        return "0+source"


def installed_plugins() -> Iterator[Plugin]:
    """Built-ins, then entry points by (distribution, name), then the modules named in ZOO_PLUGINS."""
    for name in BUILTINS:
        yield Plugin(name, "seqzoo", own_version(), name, builtin=True)
    third_parties = (
        Plugin(point.name, point.dist.name, point.dist.version, point.value)
        for point in metadata.entry_points(group=GROUP)
        if point.dist
    )
    yield from sorted(third_parties, key=lambda plugin: (plugin.distribution, plugin.name))
    for name in filter(None, os.environ.get("ZOO_PLUGINS", "").split(",")):
        yield Plugin(name, name, "0+path", name)


def discover(plugins: Iterable[Plugin] | None = None) -> Registry:
    """Load all plugins, or the given ones, into a new registry."""
    known = Registry()
    for plugin in installed_plugins() if plugins is None else plugins:
        known.load(plugin)
    return known


@cache
def registry() -> Registry:
    """The registry of this process. Broken plugins are reported once, one line each on stderr."""
    known = discover()
    for plugin in known.plugins:
        if plugin.broken:
            print(f"zoo: {plugin} [zoo doctor]", file=sys.stderr)
    return known
