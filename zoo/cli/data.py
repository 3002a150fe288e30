"""`zoo data`: prepare, list, verify, export and look at benchmark data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from zoo.data.module import TaskData
    from zoo.interface.task import Task

app = typer.Typer(help="Generate or convert benchmark data, verify, list and export them.", no_args_is_help=True)

TaskName = Annotated[str, typer.Argument(help="A task; see zoo list.")]
TaskNames = Annotated[str, typer.Argument(help="Tasks, separated by commas, or all.")]
Protocol = Annotated[str, typer.Option(help="quick, smoke or paper: which sizes and lengths.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="task.KEY=VALUE; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


@app.command()
def prepare(
    tasks: TaskNames,
    protocol: Protocol = "quick",
    set_: Overrides = None,
    force: Annotated[bool, typer.Option(help="Delete what is prepared and make it anew.")] = False,
    as_json: Json = False,
) -> None:
    """Generate data, or convert your published files (--set task.path=DIR), into the cache."""
    from zoo.data.cached import CachedData

    with _speaking(as_json):
        rows = []
        for task in _tasks(tasks):
            data = _open(task, protocol, set_)
            if force and isinstance(data, CachedData):
                data.discard()
            data.prepare()
            rows.append(_row(task, protocol, data))
    _show(rows, as_json, ("task", "protocol", "kind", "counts", "megabytes", "folder"))


@app.command("list")
def list_(set_: Overrides = None, as_json: Json = False) -> None:
    """What is prepared, per task and protocol."""
    with _speaking(as_json):
        rows = [
            _row(task, protocol, _open(task, protocol, set_)) for task in _tasks("all") for protocol in task.protocols
        ]
    _show(rows, as_json, ("task", "protocol", "prepared", "kind", "counts", "megabytes", "folder"))


@app.command()
def verify(
    tasks: TaskNames = "all", protocol: Protocol = "quick", set_: Overrides = None, as_json: Json = False
) -> None:
    """Compare every prepared file with its sha256; exit 2 when one is wrong or the data are not prepared."""
    from zoo.interface.errors import DataError

    with _speaking(as_json):
        rows: list[dict[str, Any]] = [
            {"task": task.name, "protocol": protocol, "problems": _open(task, protocol, set_).verify()}
            for task in _tasks(tasks)
        ]
    for row in rows:
        row["ok"] = not row["problems"]
    _show(rows, as_json, ("task", "protocol", "ok", "problems"))
    problems = [problem for row in rows for problem in row["problems"]]
    if problems:
        raise DataError("; ".join(problems[:5]))


@app.command()
def export(
    task: TaskName,
    to: Annotated[Path, typer.Option(help="The folder that becomes the published one.")],
    limit: Annotated[int | None, typer.Option(help="No more examples than this in all, over the splits.")] = None,
    protocol: Annotated[str, typer.Option(help="paper, quick or smoke: which sizes and lengths.")] = "paper",
    set_: Overrides = None,
    force: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
    as_json: Json = False,
) -> None:
    """Write data in the published layout: DIR/basic_*.tsv, or DIR/imgs and DIR/metadata."""
    from zoo.data.export import export as write
    from zoo.data.export import limited

    with _speaking(as_json):
        data = limited(_open(_task(task), protocol, set_), limit)
        data.prepare()
        counts = write(data, to, limit=limit, force=force)
    _show([{"task": task, "protocol": protocol, "counts": counts, "folder": str(to.expanduser().absolute())}], as_json)


@app.command()
def sample(
    task: TaskName,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    index: Annotated[int, typer.Option(help="Which example.")] = 0,
    protocol: Protocol = "quick",
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Print one example as the model gets it."""
    from zoo.data.module import SPLITS
    from zoo.interface.errors import UserError, did_you_mean

    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}{did_you_mean(split, SPLITS)}")
    with _speaking(as_json):
        data = _open(_task(task), protocol, set_)
        data.prepare()
        n, examples = len(data.labels(split)), data.dataset(split)
        if not 0 <= index < n:
            raise UserError(f"--index {index}: {split} has the examples 0 to {n - 1}")
        inputs, label = examples[index]
    row = {"task": task, "split": split, "index": index, "label": label, "length": inputs.shape[-1]}
    _show([row | {"inputs": inputs.tolist()}], as_json, (*row, "inputs"))


@app.command()
def stats(task: TaskName, protocol: Protocol = "quick", set_: Overrides = None, as_json: Json = False) -> None:
    """Label counts, lengths and the majority-class score."""
    import numpy as np

    from zoo.data.module import SPLITS

    with _speaking(as_json):
        data = _open(_task(task), protocol, set_)
        data.prepare()
        rows: list[dict[str, Any]] = []
        for split in SPLITS:
            examples = data.dataset(split)
            lengths = [examples[i][0].shape[-1] for i in range(min(2_000, len(examples)))]  # type: ignore[arg-type]
            rows.append(
                {
                    "split": split,
                    "n": len(examples),  # type: ignore[arg-type]
                    "labels": np.bincount(data.labels(split)).tolist(),
                    "mean length": round(float(np.mean(lengths)), 1),
                    "longest": max(lengths),
                    "majority": round(data.majority(), 4),
                }
            )
    _show(rows, as_json)


def _task(name: str) -> Task:
    from zoo.interface.registry import registry

    return registry().task(name).record


def _tasks(names: str) -> list[Task]:
    from zoo.interface.errors import UserError
    from zoo.interface.registry import registry

    found = registry()
    wanted = list(found.tasks) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UserError("no task given; `zoo list` shows what there is")
    return [found.task(name).record for name in wanted]


def _open(task: Task, protocol: str, overrides: list[str] | None) -> TaskData:
    from zoo.data.prepare import open_task
    from zoo.experiment.config import parse_overrides

    return open_task(task, protocol, parse_overrides(overrides or ()))


def _speaking(as_json: bool) -> Any:
    import contextlib

    from zoo.data.progress import quiet

    return quiet() if as_json else contextlib.nullcontext()


def _row(task: Task, protocol: str, data: TaskData) -> dict[str, Any]:
    from zoo.data.cached import CachedData
    from zoo.interface.errors import DataError

    row: dict[str, Any] = {"task": task.name, "protocol": protocol, "prepared": True}
    if isinstance(data, CachedData):
        row |= {"folder": str(data.folder), "prepared": data.prepared()}
        if not data.prepared():
            return row
        row["megabytes"] = round(sum(f.stat().st_size for f in data.folder.iterdir()) / 1e6, 1)
    try:
        told = data.provenance()
    except DataError as error:
        return row | {"kind": "damaged", "problem": str(error)}
    return row | {"kind": told["kind"], "counts": told["counts"], "provenance": told}


def _show(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...] = ()) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from tabulate import tabulate

    names = columns or tuple(rows[0])
    print(tabulate([[_cell(row.get(name, "")) for name in names] for row in rows], headers=names, tablefmt="plain"))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{k} {v:,}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value[:60])) + (" …" if len(value) > 60 else "")
    return value
