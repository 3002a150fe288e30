"""`zoo bench`: train, evaluate, record, refresh the board."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.spec.errors import UserError
from zoo.spec.streams import keep_working

if TYPE_CHECKING:
    from zoo.run.request import BenchRequest
    from zoo.spec.record import Record
    from zoo.spec.store import StoredRecord

EXIT_CODES = {"ok": 0, "timeout": 0}


Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ARCH] [TASK]", help="The same as --arch and --task.", show_default=False),
]


def bench(
    names: Names = None,
    arch: Annotated[str | None, typer.Option(help="Architectures, comma-separated, or all.")] = None,
    task: Annotated[str | None, typer.Option(help="Tasks or suites, comma-separated, or all.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Your own data in place of a task: a folder of .jsonl, .csv, .parquet or .txt.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A YAML file that says what to run; skips what has a record.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="smoke | quick | paper [quick].")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, from 0 [1].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="One certain seed instead.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(help="key=value,value,…: the best on validation counts; may be repeated.")
    ] = None,
    sweep_samples: Annotated[int | None, typer.Option(min=1, help="So many trials at random, not all.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of configuration keys.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Begin with the weights of a finished run's folder, or of a checkpoint's.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Where records go [leaderboard/results].")] = None,
    runs: Annotated[Path | None, typer.Option(help="Where checkpoints and logs go [runs].")] = None,
    max_time: Annotated[float | None, typer.Option(min=0, help="Seconds a run may take; resumable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again, from the beginning.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once [cores / train.num_threads].")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say what the runs would take here.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Train, evaluate, record, refresh the leaderboard.

    A run that was killed goes on from its last checkpoint by the same command.
    """
    from zoo.board.tables import run_line
    from zoo.run.request import run

    keep_working("stdout")  # a sweep outlives the terminal that it reports to
    shared: dict[str, Any] = {"results": results, "runs": runs, "max_time": max_time, "force": force, "jobs": jobs}
    if seed is not None and seeds is not None:
        raise UserError("--seed names one seed and --seeds counts them from 0: one of the two")
    what: dict[str, Any] = {"arch": arch, "task": task, "protocol": protocol, "seeds": seeds, "seed": seed}
    what |= {
        "data": data,
        "set": set_ or None,
        "sweep": sweep or None,
        "sweep-samples": sweep_samples,
        "config": config,
        "init": init,
    }
    request = read_request(names or (), plan, what, shared)
    if estimate:
        _print_estimates(request, json_)
        return
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


def read_request(names: Sequence[str], plan: Path | None, what: dict[str, Any], shared: dict[str, Any]) -> BenchRequest:
    """The request of --plan or of the options that say what to run (None: not given), one of the two.

    names   arguments in place of the options arch and task
    shared  the request's other fields
    """
    from zoo.run.request import BenchRequest

    given = {option: value for option, value in what.items() if value is not None}
    if len(names) > 2:
        raise UserError(f"{names[2]}: `zoo bench ARCH TASK` takes two names; several are one: {names[0]},{names[1]}")
    for option, name in zip(("arch", "task"), names, strict=False):
        if option in given:
            raise UserError(f"{name}: --{option} {given[option]} names it already")
        given[option] = name
    if plan is not None:
        if given:
            raise UserError(f"{', '.join(f'--{option}' for option in given)}: --plan says what to run; one of the two")
        return BenchRequest.read_plan(plan, **shared)
    if "arch" not in given or ("task" not in given and "data" not in given):
        shown = "`zoo list` shows what there is; --data in place of TASK takes your own data"
        raise UserError(f"say what to run: zoo bench ARCH TASK, or --plan; {shown}")
    if "task" in given and "data" in given:
        raise UserError("--task and --data: one of the two")
    fields = {"set": "overrides", "sweep-samples": "sweep_samples"}
    given = {fields.get(option, option): value for option, value in given.items()}
    if "seed" in given:
        given["seeds"] = [given.pop("seed")]
    return BenchRequest.parse(**given, **shared)


def _print_estimates(request: BenchRequest, json_: bool) -> None:
    from tabulate import tabulate

    from zoo.board.costs import format_memory
    from zoo.run.estimate import format_hours, total_hours
    from zoo.run.request import estimate
    from zoo.spec.cost import BUSY

    estimates = estimate(request)
    hours, at_least = total_hours(estimates)
    if json_:
        rows = [asdict(each) for each in estimates]
        print(json.dumps({"runs": rows, "hours": hours, "at_least": at_least}, indent=2))
        return
    table = [
        {
            "run": f"{each.architecture} on {each.task} ({each.protocol})",
            "runs": each.runs,
            "steps": f"{each.steps:,}",
            "each": format_hours(each.hours, each.at_least),
            "memory": "?" if each.memory_bytes is None else f"> {format_memory(each.memory_bytes)}",
            "": each.remark,
        }
        for each in estimates
    ]
    print(tabulate(table, headers="keys", tablefmt="plain", disable_numparse=True))
    runs = sum(each.runs for each in estimates)
    print(f"in all {format_hours(hours, at_least)} in {runs} run{'' if runs == 1 else 's'}, one after the other, here")
    if any(each.others > BUSY for each in estimates):
        print("zoo: this machine is not idle: on an idle one they take less", file=sys.stderr)


def _report(stored: list[StoredRecord], request: BenchRequest, json_: bool) -> None:
    from zoo.board.terminal import print_board

    if json_:
        print(json.dumps([{**record.model_dump(mode="json"), "path": path} for path, record in stored], indent=2))
    elif request.protocol == "smoke":
        print("smoke runs prove that the pieces fit; they are on no board")
    else:
        from zoo.board.build import board_paths
        from zoo.spec.cost import CostRecord
        from zoo.spec.store import read_all

        folder = Path(request.results)
        on_disk, problems = read_all(folder)
        costs, _ = CostRecord.read_all(folder)
        tasks = {record.task.name for _, record in stored}
        print_board(on_disk, problems, costs, protocol=request.protocol, tasks=tasks)
        for path in board_paths(folder):
            print(f"board: {path}")


def _exit_code(record: Record) -> int:
    """0 for a run that ended as it should, 1 for others; 128 + the signal for one that was interrupted."""
    if record.status == "interrupted":
        return 143 if record.error.startswith("SIGTERM") else 130
    return EXIT_CODES.get(record.status, 1)
