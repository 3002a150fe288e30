"""`zoo cost`: measure speed and memory, apart from training runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.bench import Names, read_request
from zoo.spec.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from zoo.spec.cost import CostRecord
    from zoo.spec.generation import GenerationCost


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
    lengths: Annotated[str, typer.Option(help="At these lengths of the examples, in tokens: how costs grow.")] = "",
    generation: Annotated[str, typer.Option(help="state | latency: what one more token costs, by context.")] = "",
    contexts: Annotated[str, typer.Option(help="Of --generation, in tokens.")] = "64,256,1024,4096,16384",
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Measure what training and inference cost: tokens/s with their spread, and the memory of training.

    A few seconds for each architecture and task, one after the other, each in a process of its own. Leave the machine
    idle meanwhile. The board shows the newest measurement.

    --lengths measures at several lengths, at the width that a model has at its own, and with about as many tokens a
    step: the board draws how time and memory grow, from three lengths on.

    --generation state counts the bytes that are carried from token to token after contexts of growing length, the same
    on every machine; latency also times the next token. Of all that predict the next token.
    """
    from zoo.board.build import refresh
    from zoo.board.costs import cost_line
    from zoo.board.generation import generation_line
    from zoo.run.cost import measure_costs, measure_generation
    from zoo.spec.cost import CostRecord

    what: dict[str, Any] = {
        "arch": arch,
        "task": task,
        "data": data,
        "protocol": protocol,
        "set": set_ or None,
        "config": config,
    }
    request = read_request(names or (), plan, what, {"results": results, "force": force})
    if generation and lengths:
        raise UserError("--generation and --lengths: one of the two")
    known = ("state", "latency")
    if generation and generation not in known:
        raise UserError(f"--generation {generation!r}: unknown{did_you_mean(generation, known)}")
    tokens = _numbers("--contexts", contexts) if generation else _numbers("--lengths", lengths) if lengths else []
    measured: list[dict[str, Any]] = []

    def on_cost(path: Path, cost: CostRecord | GenerationCost) -> None:
        measured.append({**cost.model_dump(mode="json"), "path": str(path)})
        if not json_:
            print(cost_line(cost) if isinstance(cost, CostRecord) else generation_line(cost), flush=True)

    failures: list[str] = []
    try:
        if generation:
            failures = measure_generation(request, on_cost, tokens, latency=generation == "latency")
        else:
            failures = measure_costs(request, on_cost, tokens)
    finally:
        if measured:
            refresh(Path(request.results))
        if json_:
            print(json.dumps(measured, indent=2))
    for failure in failures:
        print(f"zoo: {failure}", file=sys.stderr)
    raise typer.Exit(1 if failures else 0)


def _numbers(option: str, text: str) -> list[int]:
    """Different whole numbers, ascending."""
    numbers = sorted({int(part) for part in text.split(",") if part.strip().isdecimal()})
    if not numbers or numbers[0] < 1 or len(numbers) != len(text.split(",")):
        raise UserError(f"{option} {text!r}: expected different whole numbers from 1, separated by commas")
    return numbers
