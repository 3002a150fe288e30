"""`zoo data`: prepare, list, verify, export and look at benchmark data."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from zoo.data.module import TaskData
    from zoo.spec.task import Task

app = typer.Typer(help="Generate or convert benchmark data, verify, list and export them.", no_args_is_help=True)

TaskName = Annotated[str, typer.Argument(help="A task; see zoo list.")]
TaskNames = Annotated[str, typer.Argument(help="Tasks or suites, separated by commas, or all.")]
Protocol = Annotated[str, typer.Option(help="quick, smoke or paper: which sizes and lengths.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="task.KEY=VALUE; may be repeated.")]
ObjectiveName = Annotated[
    str, typer.Option(help="For questions: causal_lm, infilling or seq2seq; by default the task's first.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


@app.command()
def prepare(
    tasks: TaskNames,
    protocol: Protocol = "quick",
    from_: Annotated[
        Path | None, typer.Option("--from", help="Your files: a folder that holds the published layouts of the tasks.")
    ] = None,
    set_: Overrides = None,
    force: Annotated[bool, typer.Option(help="Delete what is prepared and make it anew.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing; so does ZOO_OFFLINE=1.")] = False,
    as_json: Json = False,
) -> None:
    """Generate data, or convert your published files (--from DIR), or download them, into the cache.

    Later commands find the files of --from again. Without it, files that are not on this machine are downloaded where
    they are public. What can be prepared is; for the rest the last lines say which files to bring, and the exit code
    is 2.
    """
    from zoo.data.download import Connections
    from zoo.data.inventory import inventory_row
    from zoo.data.prepare import prepare_task, tasks_reading
    from zoo.spec.errors import MissingFiles
    from zoo.spec.files import user_path

    chosen, overrides, connections = _find_tasks(tasks), _parse(set_), Connections()
    path = user_path(from_) if from_ else None
    readers = tasks_reading(chosen, path) if path else set()
    rows, missing = [], []
    with _messages(as_json):
        for task in chosen:
            own_path = path if task.name in readers else None
            try:
                data = prepare_task(task, protocol, overrides, connections, path=own_path, force=force, offline=offline)
                rows.append(inventory_row(task, protocol, data))
            except MissingFiles as error:
                line = str(error)
                missing.append(line if line.startswith(task.name) else f"{task.name}: {line}")
    if rows:
        _print_rows(rows, as_json, ("task", "protocol", "kind", "counts", "megabytes", "folder"))
    if missing:
        raise MissingFiles("\n".join(missing))


@app.command("list")
def list_(set_: Overrides = None, as_json: Json = False) -> None:
    """List all data sets: whether their files are here, what is prepared, sizes, licenses, sources."""
    from zoo.data.inventory import inventory_row, summary_row
    from zoo.data.prepare import open_task, select_overrides

    tasks = _find_tasks("all")
    with _messages(as_json):
        overrides = select_overrides(tasks, _parse(set_))
        rows = {
            task.name: [inventory_row(task, p, open_task(task, p, overrides[task.name])) for p in task.protocols]
            for task in tasks
        }
    every = [row for of_task in rows.values() for row in of_task]
    if as_json:
        _print_rows(every, as_json)
        return
    _print_rows([summary_row(name, of_task) for name, of_task in rows.items()], as_json)
    for task in tasks:
        if task.needs and all(row["files"] == "missing" for row in rows[task.name]):
            print(f"\n{task.name} needs files: {task.needs}")
    for row in every:
        if row.get("kind") == "damaged":
            print(f"\n{row['task']} ({row['protocol']}) is damaged: {row['problem']}")


@app.command()
def verify(
    tasks: TaskNames = "all", protocol: Protocol = "quick", set_: Overrides = None, as_json: Json = False
) -> None:
    """Compare every prepared file with its sha256 (of generated questions: draw and solve some anew).

    Exit 2 when one is damaged, not prepared, or cannot be for want of the user's files; the last lines say which.
    """
    from zoo.data.inventory import state_of
    from zoo.spec.errors import DataError

    rows: list[dict[str, Any]] = []
    with _messages(as_json):
        for task in _find_tasks(tasks):
            data = _open(task, protocol, set_)
            problems = data.verify()
            row: dict[str, Any] = {"task": task.name, "protocol": protocol, "problems": problems}
            rows.append(row | {"ok": not problems, "state": state_of(data, problems)})
    _print_rows(rows, as_json, ("task", "protocol", "state"))
    wrong = [f"{row['task']}: {row['state']}: {'; '.join(row['problems'])}" for row in rows if not row["ok"]]
    if wrong:
        raise DataError("\n".join(wrong))


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
    """Write data in the published layout, such as DIR/basic_*.tsv, DIR/imgs and DIR/metadata, or DIR/{train,test}/pos;
    generated questions as DIR/SPLIT.jsonl."""
    from zoo.data.export import export as export_data
    from zoo.data.export import with_limit
    from zoo.spec.files import user_path

    with _messages(as_json):
        data = with_limit(_open(_find_task(task), protocol, set_), limit)
        data.prepare()
        counts = export_data(data, to, limit=limit, force=force)
    row = {"task": task, "protocol": protocol, "counts": counts, "folder": str(user_path(to))}
    _print_rows([row], as_json)


@app.command()
def sample(
    task: TaskName,
    split: Annotated[str, typer.Option(help="train, val, test, or length_generalization if it exists.")] = "train",
    index: Annotated[int, typer.Option(help="Which example.")] = 0,
    n: Annotated[int, typer.Option("-n", min=1, help="How many, from there on.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write it there instead: a PNG, or a text file.")] = None,
    protocol: Protocol = "quick",
    objective: ObjectiveName = "",
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show examples as a person reads them: pictures drawn, texts to read; --json has the model's inputs."""
    from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, Split
    from zoo.spec.errors import UserError, did_you_mean

    known: dict[str, Split] = {name: name for name in (*SPLITS, LENGTH_GENERALIZATION)}
    if split not in known:
        raise UserError(f"unknown split {split!r}{did_you_mean(split, known)}")
    if out is not None and n > 1:
        raise UserError(f"--out {out} takes one example, not -n {n}")
    rows = []
    with _messages(as_json):
        spec = _find_task(task)
        kind, data = spec.load_kind(), _open(spec, protocol, set_, objective)
        data.prepare()
        if not data.has(known[split]):
            raise UserError(f"{task} has no split {split}")
        examples = data.dataset(known[split])
        total = len(examples)
        if not 0 <= index < total:
            raise UserError(f"--index {index}: {split} has the examples 0 to {total - 1}")
        for i in range(index, min(index + n, total)):
            summary, inputs = kind.example_to_json(data, known[split], examples[i])
            rows.append({"task": task, "split": split, "index": i, **summary, **inputs})
            if not as_json:
                print(f"{task} {split} {i}: {', '.join(f'{k} {_cell(v)}' for k, v in summary.items())}")
                _print_view(data.view(known[split], i), out)
    if as_json:
        _print_rows(rows, as_json)


def _print_view(view: str | np.ndarray, out: Path | None) -> None:
    """Print or save a text or a picture."""
    import os
    import shutil
    import sys

    from PIL import Image

    from zoo.data import draw
    from zoo.spec.files import user_path

    if out is not None:
        out = user_path(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(view, str):
            out.write_text(view + "\n", encoding="utf-8")
        else:
            Image.fromarray(view).save(out)
        print(out)
    elif isinstance(view, str):
        print(view)
    else:
        columns = shutil.get_terminal_size().columns
        colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(draw.half_blocks(view, columns) if colored else draw.shades(view, max(columns, 256)))


@app.command()
def stats(
    task: TaskName,
    protocol: Protocol = "quick",
    objective: ObjectiveName = "",
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Histograms of lengths and labels, truncated examples, the majority-class score; of questions, their groups."""
    from zoo.data.stats import split_stats

    with _messages(as_json):
        spec = _find_task(task)
        data = _open(spec, protocol, set_, objective)
        data.prepare()
        rows = split_stats(data, spec.load_kind())
    if as_json:
        _print_rows(rows, as_json)
        return
    columns = ("tokens", "distinct") if "answers" in rows[0] else ("labels",)
    table = [row | row.get("answers", {}) for row in rows]
    _print_rows(table, as_json, ("split", "n", *columns, "mean length", "longest", "truncated", "majority"))
    for row in rows:
        edges, counts = row["lengths"]["edges"], row["lengths"]["counts"]
        if len(counts) > 1:
            print(f"\n{row['split']}: lengths")
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
                print(f"{low:>8,} … {high - 1:>8,} {count:>9,} {'█' * round(40 * count / max(counts))}")
        if row.get("groups"):
            print(f"\n{row['split']}: groups of the {row['looked_at']:,} that were looked at")
            _print_rows(row["groups"], as_json)
    if rows[0]["left_out"]:
        print(f"\nleft out: {len(rows[0]['left_out']):,} examples of the files (all are in --json)")
        for line in rows[0]["left_out"][:5]:
            print(f"  {line}")


@app.command("bench")
def bench_(
    tasks: TaskNames,
    arch: Annotated[str, typer.Option(help="The architecture whose training step loading is compared with.")] = (
        "transformer"
    ),
    protocol: Protocol = "quick",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is measured.")] = 3.0,
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Measure how fast examples are loaded, beside one architecture's training step: whether loading is the bottleneck.

    --set takes the keys of a run (task.KEY, model.KEY, train.num_workers …). Data that are not prepared are, before
    anything is measured.
    """
    from zoo.run.request import BenchRequest, resolve
    from zoo.run.throughput import measure

    with _messages(as_json):
        experiments = resolve(BenchRequest.parse(arch, tasks, protocol=protocol, overrides=set_ or ()))
        rows = [measure(experiment, seconds) for experiment in experiments]
    columns = ("task", "arch", "batch", "first batch s", "samples/s", "tokens/s", "step samples/s", "ratio", "grew MB")
    _print_rows(rows, as_json, columns)
    slow = [row["task"] for row in rows if row["ratio"] < 1]
    if not as_json:
        print(f"\nloading is the bottleneck of {', '.join(slow)}" if slow else "\nloading is no bottleneck")


# -- shared ------------------------------------------------------------------------------------------------------------


def _find_task(name: str) -> Task:
    from zoo.spec.registry import registry

    return registry().task(name).record


def _find_tasks(names: str) -> list[Task]:
    from zoo.run.request import split_names, task_names
    from zoo.spec.registry import registry

    return [_find_task(name) for name in task_names(split_names(names), registry())]


def _parse(set_: list[str] | None) -> dict[str, Any]:
    from zoo.spec.written import parse_overrides

    return parse_overrides(set_ or ())


def _open(task: Task, protocol: str, set_: list[str] | None, objective: str = "") -> TaskData:
    from zoo.data.module import LoaderConfig
    from zoo.data.prepare import open_task
    from zoo.spec.errors import UserError, did_you_mean

    kind = task.load_kind()
    objectives = list(dict.fromkeys(kind.objective(mode) for mode in kind.modes))
    offered = [name for name in objectives if name in task.objectives] or objectives
    if objective and objective not in offered:
        raise UserError(f"--objective {objective!r} is none of {task.name}{did_you_mean(objective, offered)}")
    loading = LoaderConfig(kind=kind, objective=objective or offered[0])
    return open_task(task, protocol, _parse(set_), loading=loading)


def _messages(as_json: bool) -> contextlib.AbstractContextManager[None]:
    """Suppress progress bars and notices when JSON is printed."""
    from zoo.data.progress import quiet

    return quiet() if as_json else contextlib.nullcontext()


def _print_rows(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...] = ()) -> None:
    """Print rows as JSON, or some columns of them as a table."""
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
        return " ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value[:60])) + (" …" if len(value) > 60 else "")
    return value
