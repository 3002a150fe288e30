"""`zoo list` and `zoo show`: registered architectures and tasks, and the configuration of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.spec.architecture import Architecture
from zoo.spec.errors import UserError
from zoo.spec.registry import Entry, registry


def list_(
    wide: Annotated[bool, typer.Option("--wide", help="All columns, however wide.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object with architectures and tasks.")] = False,
) -> None:
    """List the registered architectures and tasks; --wide adds costs, protocols and distributions."""
    known = registry()
    if json_:
        architectures = [_declaration(*item) for item in known.architectures.items()]
        _print_json({"architectures": architectures, "tasks": [_declaration(*item) for item in known.tasks.items()]})
        return
    from tabulate import tabulate

    rows: list[dict[str, Any]] = []
    for name, entry in known.architectures.items():
        arch, modes = entry.record, ", ".join(sorted(entry.record.capabilities.modes))
        row = {"name": name, "family": arch.family, "year": arch.paper.year, "modes": modes}
        rows.append(row | {"state": arch.capabilities.state})
        if wide:
            rows[-1] |= {"time": arch.cost.time, "memory": arch.cost.memory, "from": _origin(entry)}
    print(tabulate(rows, headers="keys"), end="\n\n")
    rows = []
    for name, task_entry in known.tasks.items():
        task = task_entry.record
        row = {"name": name, "suite": task.suite, "kind": task.kind, "length": task.length, "metric": task.metrics[0]}
        rows.append(row)
        if wide:
            classes, protocols = task.classes or "", ", ".join(task.protocols)
            rows[-1] |= {"classes": classes, "protocols": protocols, "from": _origin(task_entry)}
    print(tabulate(rows, headers="keys"))
    if not wide:
        print("\nzoo list --wide: costs, protocols, distributions; zoo show NAME: a card")


def _declaration(name: str, entry: Entry[Any]) -> dict[str, Any]:
    """All fields of an architecture or a task, the name under which it is registered, and its distribution."""
    return {**asdict(entry.record), "name": name, "from": _origin(entry)}


def _origin(entry: Entry[Any]) -> str:
    return f"{entry.plugin.distribution} {entry.plugin.version}"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=sorted))  # an architecture's modes are a set


def show(
    arch: Annotated[str, typer.Argument(help="Name of an architecture.")],
    task: Annotated[str | None, typer.Option(help="Show the configuration of a run on this task.")] = None,
    data: Annotated[Path | None, typer.Option(help="The same on your own data.")] = None,
    protocol: Annotated[str | None, typer.Option(help="smoke | quick | paper [quick].")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show an architecture's card and settings; with --task or --data, the complete configuration of a run.

    Each value of a run is shown with its origin.
    """
    from zoo.run.compose import documentation
    from zoo.run.request import BenchRequest, resolve
    from zoo.spec.config import flatten
    from zoo.spec.constraints import describe_fields

    entry = registry().architecture(arch)
    for option, given in (("--set", set_), ("--protocol", protocol)):
        if task is None and data is None and given:
            raise UserError(f"{option} needs --task, because it changes the configuration of a run")
    if task is not None or data is not None:
        protocol = protocol or "quick"
        request = BenchRequest.parse(arch, task or (), data=data or "", protocol=protocol, overrides=set_ or [])
        experiment = resolve(request)[0]
        task = experiment.task
        help_texts = documentation(experiment)
        rows = [
            {"key": key, "value": value, "origin": experiment.origins[key], "help": help_texts.get(key, "")}
            for key, value in flatten(experiment.config).items()
        ]
        run = {"task": task, "protocol": protocol, "mode": experiment.mode, "config_hash": experiment.hash}
        title = f"{arch} on {task}, {experiment.mode}, protocol {protocol}, configuration {experiment.hash}"
        columns, widths = ["key", "value", "origin"], None
    else:
        rows = [
            {"key": f"arch.{name}", "value": default, "allowed": allowed, "origin": "default", "help": text}
            for name, allowed, default, text in describe_fields(entry.record.load_config())
        ]
        run = {}
        title = f"Settings of {arch} (--task TASK shows the configuration of a run, with presets and matched width)"
        columns, widths = ["key", "value", "allowed", "help"], [None, None, 30, 70]
    if json_:
        reported = [asdict(score) for score in entry.record.load_reported()]
        presets = [
            {"task": task, "protocol": protocol, **asdict(preset)}
            for (task, protocol), preset in entry.record.load_presets().items()
        ]
        shown = _declaration(arch, entry) | {"reported": reported, "presets": presets}
        _print_json({**shown, **run, "configuration": rows})
        return
    from rich.console import Console
    from rich.markdown import Markdown
    from tabulate import tabulate

    console = Console()
    text = _card(entry.record)
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text)
    cells = [[json.dumps(row[column]) if column == "value" else row[column] for column in columns] for row in rows]
    print(f"\n{title}\n")
    print(tabulate(cells, headers=columns, disable_numparse=True, maxcolwidths=widths))


def _card(architecture: Architecture) -> str:
    """Markdown of the plugin's README, if it has one, with the reported scores appended."""
    text = architecture.load_card() or f"# {architecture.title}\n\nThis plugin has no card."
    scores = architecture.load_reported()
    rows = "\n".join(f"| {s.task} | {s.metric} | {s.value:.4f} | {s.source} {s.table} |" for s in scores)
    table = f"| task | metric | value | source |\n|---|---|---|---|\n{rows}"
    return f"{text}\n\n## Reported scores\n\n{table if rows else 'None published on the tasks of this zoo.'}\n"
