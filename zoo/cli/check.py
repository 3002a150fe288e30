"""`zoo check`: prove that an architecture or a task keeps the interface's promises."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def check(
    names: Annotated[list[str] | None, typer.Argument(help="Architectures or tasks.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every architecture and every task.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """Run the conformance suite; exit 1 when a check fails."""
    from zoo.spec.errors import UserError, did_you_mean
    from zoo.spec.registry import registry

    if bool(names) == all_:
        raise UserError("zoo check takes names of architectures or tasks, or --all")
    known = registry()
    chosen = list(dict.fromkeys(names or [*known.architectures, *known.tasks]))
    for name in chosen:
        if name not in known.architectures and name not in known.tasks:
            near = did_you_mean(name, [*known.architectures, *known.tasks])
            raise UserError(f"unknown architecture or task {name!r}{near}")

    from rich.console import Console
    from rich.progress import track

    from zoo.testing import run_checks, run_task_checks

    reports = []
    for name in track(chosen, "checking", console=Console(stderr=True), disable=json_, transient=True):
        report = run_checks(name) if name in known.architectures else run_task_checks(name)
        reports.append(report)
        if not json_:
            print(f"{report.name}: {report.to_text()}")
    if json_:
        print(json.dumps([report.to_json() for report in reports], indent=2))
    raise typer.Exit(0 if all(report.ok for report in reports) else 1)
