"""`zoo check`: run the conformance checks of architectures and tasks."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def check(
    names: Annotated[list[str] | None, typer.Argument(help="Architectures or tasks.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every architecture and every task.")] = False,
    slow: Annotated[
        bool, typer.Option("--slow", help="Those that take seconds, too: torch.compile and export.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help="This check only; may be repeated.")] = None,
    stop: Annotated[bool, typer.Option("-x", help="End with the first failure.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print a list of JSON objects.")] = False,
) -> None:
    """Run the conformance checks; exit code 1 when one fails.

    "Not declared": the capability is not claimed. "Without data": not run, because data files are missing. Checks that
    fail for one reason stand in one line; what every later check needs ends them.
    """
    from zoo.spec.errors import UnknownName, UserError
    from zoo.spec.registry import registry

    if bool(names) == all_:
        raise UserError("zoo check takes names of architectures or tasks, or --all")
    known = registry()
    registered = [*known.architectures, *known.tasks]
    chosen = list(dict.fromkeys(names or registered))
    for name in chosen:
        if name not in registered:
            raise UnknownName("architecture or task", name, registered)

    from rich.console import Console
    from rich.progress import track

    from zoo.testing import run_checks

    reports = []
    for name in track(chosen, "checking", console=Console(stderr=True), disable=json_, transient=True):
        report = run_checks(name, slow=slow, only=only or (), stop=stop)
        reports.append(report)
        if not json_:
            print(f"{report.name}: {report.to_text()}")
    if json_:
        print(json.dumps([report.to_json() for report in reports], indent=2))
    raise typer.Exit(0 if all(report.ok for report in reports) else 1)
