"""`zoo bench`: train, evaluate, record, refresh the board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.options import path_option
from zoo.spec.errors import UserError
from zoo.spec.streams import keep_working

if TYPE_CHECKING:
    from zoo.run.request import BenchRequest
    from zoo.spec.record import Record
    from zoo.spec.store import StoredRecord

EXIT_CODES = {"ok": 0, "timeout": 0}


def bench(
    arch: Annotated[str | None, typer.Option(help="Architectures, comma-separated, or all.")] = None,
    task: Annotated[str | None, typer.Option(help="Tasks or suites, comma-separated, or all.")] = None,
    plan: Annotated[
        Path | None, path_option(help="A YAML file that says what to run; skips what has a record.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="smoke | quick | paper [quick].")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, from 0 [1].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="One certain seed instead.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(help="key=value,value,…: the best on validation counts; may be repeated.")
    ] = None,
    sweep_samples: Annotated[int | None, typer.Option(min=1, help="So many trials at random, not all.")] = None,
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
    from zoo.run.request import BenchRequest, run

    keep_working("stdout")  # a sweep outlives the terminal that it reports to
    shared: dict[str, Any] = {"results": results, "runs": runs, "max_time": max_time, "force": force, "jobs": jobs}
    what: dict[str, Any] = {"arch": arch, "task": task, "protocol": protocol, "seeds": seeds, "seed": seed}
    what |= {"set": set_ or None, "sweep": sweep or None, "sweep-samples": sweep_samples, "config": config}
    given = [f"--{option}" for option, value in what.items() if value is not None]
    if seed is not None and seeds is not None:
        raise UserError("--seed names one seed and --seeds counts them from 0: one of the two")
    if plan is not None:
        if given:
            raise UserError(f"{', '.join(given)}: --plan says what to run; one of the two")
        request = BenchRequest.read_plan(plan, **shared)
    elif arch is None or task is None:
        raise UserError("say what to run: --arch and --task, or --plan; `zoo list` shows what there is")
    else:
        shared |= {"protocol": protocol or "quick", "overrides": set_ or [], "config": config}
        shared |= {"sweep": sweep or (), "sweep_samples": sweep_samples}
        request = BenchRequest.parse(arch, task, seeds=(seeds or 1) if seed is None else [seed], **shared)
    stored: list[StoredRecord] = []

    def on_record(each: StoredRecord) -> None:
        stored.append(each)
        if not json_:
            print(run_line(each))

    try:
        run(request, on_record=on_record)
    except UserError:
        if stored:  # others have run
            _report(stored, request, json_)
        raise
    _report(stored, request, json_)
    raise typer.Exit(max((_exit_code(record) for _, record in stored), default=0))


def _report(stored: list[StoredRecord], request: BenchRequest, json_: bool) -> None:
    from zoo.board.terminal import print_board

    if json_:
        print(json.dumps([{**record.model_dump(mode="json"), "path": path} for path, record in stored], indent=2))
    elif request.protocol == "smoke":
        print("smoke runs prove that the pieces fit; they are on no board")
    else:
        from zoo.board.build import board_paths
        from zoo.spec.store import read_all

        folder = Path(request.results)
        on_disk, problems = read_all(folder)
        print_board(on_disk, problems, protocol=request.protocol, tasks={record.task.name for _, record in stored})
        for path in board_paths(folder):
            print(f"board: {path}")


def _exit_code(record: Record) -> int:
    """0 for a run that ended as it should, 1 for others; 128 + the signal for one that was interrupted."""
    if record.status == "interrupted":
        return 143 if record.error.startswith("SIGTERM") else 130
    return EXIT_CODES.get(record.status, 1)
