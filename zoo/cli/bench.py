"""`zoo bench`: train, evaluate, record, refresh the board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

EXIT = {"ok": 0, "timeout": 0, "interrupted": 130}


def bench(
    arch: Annotated[str, typer.Option(help="Architectures, comma-separated, or all.")],
    task: Annotated[str, typer.Option(help="Tasks or suites, comma-separated, or all.")],
    protocol: Annotated[str, typer.Option(help="smoke | quick | paper.")] = "quick",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, from 0 [1].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="One certain seed instead.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of configuration keys.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where records go [leaderboard/results].")] = None,
    runs: Annotated[Path | None, typer.Option(help="Where checkpoints and logs go [runs].")] = None,
    max_time: Annotated[float | None, typer.Option(min=0, help="Seconds a run may take; resumable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again, from the beginning.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Train, evaluate, record, refresh the leaderboard.

    A run that was killed goes on from its last checkpoint by the same command.
    """
    from zoo.api import bench as run_all
    from zoo.board.rows import flattened
    from zoo.board.tables import run_line
    from zoo.run.sweep import results_dir
    from zoo.spec.errors import UserError
    from zoo.spec.record import Record
    from zoo.spec.store import StoredRecord

    if seed is not None and seeds is not None:
        raise UserError("--seed names one seed and --seeds counts them from 0: one of the two")

    def tell(record: dict[str, Any]) -> None:
        if not json_:
            fields = {key: value for key, value in record.items() if key != "path"}
            print(run_line(flattened(StoredRecord(record["path"], Record.model_validate(fields)))))

    records = run_all(
        arch,
        task,
        protocol=protocol,
        seeds=(seeds or 1) if seed is None else [seed],
        overrides=set_ or [],
        config=config,
        results=results,
        runs=runs,
        max_time=max_time,
        force=force,
        on_record=tell,
    )
    if json_:
        print(json.dumps(records, indent=2))
    else:
        _board(results_dir(results), protocol, {r["task"]["name"] for r in records})
    raise typer.Exit(max((EXIT.get(r["status"], 1) for r in records), default=0))


def _board(results: Path, protocol: str, tasks: set[str]) -> None:
    from zoo.board.build import board_paths
    from zoo.board.rows import flattened
    from zoo.board.terminal import print_board
    from zoo.spec.store import read_all

    if protocol == "smoke":
        print("smoke runs prove that the pieces fit; they are on no board")
        return
    stored, problems = read_all(results)
    records = [flattened(one) for one in stored]
    print_board(records, problems, protocol=protocol, tasks=tasks)
    for path in board_paths(results):
        print(f"board: {path}")
