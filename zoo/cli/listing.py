"""`zoo list` and `zoo show`: registered architectures and tasks, and the configuration of a run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from zoo.spec.errors import UserError


def list_(
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object with architectures and tasks.")] = False,
) -> None:
    """List the registered architectures and tasks, and the distribution of each."""
    from zoo.spec.registry import registry

    known = registry()
    architectures = [_architecture_row(name, entry) for name, entry in known.architectures.items()]
    tasks = [_task_row(name, entry) for name, entry in known.tasks.items()]
    if json_:
        print(json.dumps({"architectures": architectures, "tasks": tasks}, indent=2))
        return
    from tabulate import tabulate

    columns = ("name", "family", "year", "modes", "state", "time", "memory", "from")
    widths = [None, None, None, None, None, 34, 34, None]
    print(tabulate([[a[c] for c in columns] for a in architectures], headers=columns, maxcolwidths=widths))
    print()
    columns = ("name", "suite", "kind", "length", "classes", "metric", "protocols", "from")
    print(tabulate([[t[c] for c in columns] for t in tasks], headers=columns))


def _architecture_row(name: str, entry: Any) -> dict[str, Any]:
    """The fields of an architecture that `zoo list` shows."""
    record = entry.record
    return {
        "name": name,
        "title": record.title,
        "family": record.family,
        "year": record.paper.year,
        "arxiv": record.paper.arxiv,
        "modes": ", ".join(sorted(record.capabilities.modes)),
        "state": record.capabilities.state,
        "step": record.capabilities.step,
        "length": record.capabilities.length,
        "time": record.cost.time,
        "memory": record.cost.memory,
        "from": _origin(entry),
    }


def _task_row(name: str, entry: Any) -> dict[str, Any]:
    """The fields of a task that `zoo list` shows."""
    record = entry.record
    return {
        "name": name,
        "title": record.title,
        "suite": record.suite,
        "version": record.version,
        "kind": record.kind,
        "length": record.length,
        "classes": record.classes,
        "metric": record.metrics[0],
        "chance": record.chance,
        "protocols": ", ".join(record.protocols),
        "license": record.license,
        "needs": record.needs,
        "from": _origin(entry),
    }


def _origin(entry: Any) -> str:
    return f"{entry.plugin.distribution} {entry.plugin.version}"


def show(
    arch: Annotated[str, typer.Argument(help="Name of an architecture.")],
    task: Annotated[str, typer.Option(help="Show the configuration of a run on this task.")] = "",
    protocol: Annotated[str, typer.Option(help="smoke | quick | paper.")] = "quick",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show an architecture's card and settings; with --task, the complete configuration of a run.

    Each value of a run is shown with its origin.
    """
    from zoo.run.compose import documentation
    from zoo.run.request import BenchRequest, resolve
    from zoo.spec.card import card, facts
    from zoo.spec.constraints import describe_fields
    from zoo.spec.registry import registry

    entry = registry().architecture(arch)
    shown: dict[str, Any] = {**_architecture_row(arch, entry), **facts(entry.record)}
    if not task and set_:
        raise UserError("--set needs --task, because it changes the configuration of a run")
    if task:
        experiment = resolve(BenchRequest.parse(arch, task, protocol=protocol, overrides=set_ or []))[0]
        help_texts = documentation(experiment)
        from zoo.spec.config import flatten

        rows = [
            {"key": key, "value": value, "origin": experiment.origins[key], "help": help_texts.get(key, "")}
            for key, value in flatten(experiment.config).items()
        ]
        shown |= {"task": task, "protocol": protocol, "mode": experiment.mode, "config_hash": experiment.hash}
    else:
        rows = [
            {"key": f"arch.{name}", "value": default, "allowed": allowed, "origin": "default", "help": text}
            for name, allowed, default, text in describe_fields(entry.record.load_config())
        ]
    shown["configuration"] = rows
    if json_:
        print(json.dumps(shown, indent=2))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    text = card(entry.record)
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text)
    from tabulate import tabulate

    if task:
        print(f"\n{arch} on {task}, {shown['mode']}, protocol {protocol}, configuration {shown['config_hash']}\n")
        columns, widths = ["origin"], None
    else:
        print(f"\nSettings of {arch} (--task TASK shows the configuration of a run, with presets and matched width)\n")
        columns, widths = ["allowed", "help"], [None, None, 30, 70]
    cells = [[r["key"], json.dumps(r["value"]), *(r[column] for column in columns)] for r in rows]
    print(tabulate(cells, headers=("key", "value", *columns), disable_numparse=True, maxcolwidths=widths))
