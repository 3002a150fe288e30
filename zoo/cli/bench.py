"""`zoo bench`: train, evaluate, record, refresh the board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.options import path_option
from zoo.spec.errors import UserError
from zoo.spec.streams import keep_working

if TYPE_CHECKING:
    from zoo.spec.record import Record
    from zoo.spec.store import StoredRecord

EXIT_CODES = {"ok": 0, "timeout": 0}


def bench(
    arch: Annotated[str, typer.Option(help="Architectures, comma-separated, or all.")],
    task: Annotated[str, typer.Option(help="Tasks or suites, comma-separated, or all.")],
    protocol: Annotated[str, typer.Option(help="smoke | quick | paper.")] = "quick",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, from 0 [1].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="One certain seed instead.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    config: Annotated[Path | None, path_option(help="A YAML file of configuration keys.")] = None,
    results: Annotated[Path | None, path_option(help="Where records go [leaderboard/results].")] = None,
    runs: Annotated[Path | None, path_option(help="Where checkpoints and logs go [runs].")] = None,
    max_time: Annotated[float | None, typer.Option(min=0, help="Seconds a run may take; resumable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again, from the beginning.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once [cores / train.num_threads].")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Train, evaluate, record, refresh the leaderboard.

    A run that was killed goes on from its last checkpoint by the same command.
    """
    from zoo.board.tables import run_line
    from zoo.run.request import bench as run_bench

    keep_working("stdout")  # a sweep outlives the terminal that it reports to
    if seed is not None and seeds is not None:
        raise UserError("--seed names one seed and --seeds counts them from 0: one of the two")

    stored: list[StoredRecord] = []

    def on_record(each: StoredRecord) -> None:
        stored.append(each)
        if not json_:
            print(run_line(each))

    try:
        run_bench(
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
            jobs=jobs,
            on_record=on_record,
        )
    finally:  # also where some of the runs turned out to be impossible
        if stored:
            _report(stored, protocol, results, json_)
    raise typer.Exit(max((_exit_code(record) for _, record in stored), default=0))


def _report(stored: list[StoredRecord], protocol: str, results: Path | None, json_: bool) -> None:
    from zoo.board.terminal import print_board

    if json_:
        print(json.dumps([{**record.model_dump(mode="json"), "path": path} for path, record in stored], indent=2))
    elif protocol == "smoke":
        print("smoke runs prove that the pieces fit; they are on no board")
    else:
        from zoo.board.build import board_paths
        from zoo.spec.files import default_results_dir
        from zoo.spec.store import read_all

        folder = results or default_results_dir()
        on_disk, problems = read_all(folder)
        print_board(on_disk, problems, protocol=protocol, tasks={record.task.name for _, record in stored})
        for path in board_paths(folder):
            print(f"board: {path}")


def _exit_code(record: Record) -> int:
    """0 for a run that ended as it should, 1 for others; 128 + the signal for one that was interrupted."""
    if record.status == "interrupted":
        return 143 if record.error.startswith("SIGTERM") else 130
    return EXIT_CODES.get(record.status, 1)
