"""`zoo cost`: measure speed and memory, apart from training runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.bench import Names, read_request

if TYPE_CHECKING:
    from zoo.spec.cost import CostRecord


def cost(
    names: Names = None,
    arch: Annotated[str | None, typer.Option(help="Architectures, comma-separated, or all.")] = None,
    task: Annotated[str | None, typer.Option(help="Tasks or suites, comma-separated, or all.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your own data in place of a task.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan of zoo bench instead.")] = None,
    protocol: Annotated[str | None, typer.Option(help="smoke | quick | paper [quick].")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of configuration keys.")] = None,
    results: Annotated[Path | None, typer.Option(help="Beside which records [leaderboard/results].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again what has been measured here.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Measure what training and inference cost: tokens/s with their spread, and the memory of training.

    A few seconds for each architecture and task, one after the other, each in a process of its own. Leave the machine
    idle meanwhile. The board shows the newest measurement.
    """
    from zoo.board.build import refresh
    from zoo.board.costs import cost_line
    from zoo.run.cost import measure_costs

    what: dict[str, Any] = {
        "arch": arch,
        "task": task,
        "data": data,
        "protocol": protocol,
        "set": set_ or None,
        "config": config,
    }
    request = read_request(names or (), plan, what, {"results": results, "force": force})
    measured: list[dict[str, Any]] = []

    def on_cost(path: Path, cost: CostRecord) -> None:
        measured.append({**cost.model_dump(mode="json"), "path": str(path)})
        if not json_:
            print(cost_line(cost), flush=True)

    failures: list[str] = []
    try:
        _, failures = measure_costs(request, on_cost)
    finally:
        if measured:
            refresh(Path(request.results))
        if json_:
            print(json.dumps(measured, indent=2))
    for failure in failures:
        print(f"zoo: {failure}", file=sys.stderr)
    raise typer.Exit(1 if failures else 0)
