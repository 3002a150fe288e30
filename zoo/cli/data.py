"""`zoo data`: prepare, list, verify, export and look at benchmark data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from zoo.data.module import TaskData
    from zoo.spec.task import Task

app = typer.Typer(help="Generate or convert benchmark data, verify, list and export them.", no_args_is_help=True)

TaskName = Annotated[str, typer.Argument(help="A task; see zoo list.")]
TaskNames = Annotated[str, typer.Argument(help="Tasks or suites, separated by commas, or all.")]
Protocol = Annotated[str, typer.Option(help="quick, smoke or paper: which sizes and lengths.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="task.KEY=VALUE; may be repeated.")]
ObjectiveName = Annotated[
    str, typer.Option(help="Of questions: causal_lm, infilling or seq2seq, how they are put; default the task's first.")
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

    Where --from found a task's files is remembered, so that later commands find them. Without it, files that are not
    on this machine are downloaded where they are public. What can be prepared is; for the rest the last lines say
    which files to bring, and the exit code is 2.
    """
    from zoo.data.cached import CachedData
    from zoo.data.download import Network, bring
    from zoo.data.inventory import row_of
    from zoo.data.paths import data_dir, remember
    from zoo.spec.errors import MissingFiles

    missing: list[str] = []
    network, chosen = Network(), _tasks(tasks)
    readers = _readers(chosen, from_)
    with _speaking(as_json):
        rows = []
        for task in chosen:
            place = from_ if task.name in readers else None
            data = _open(task, protocol, _with_path(set_, place))
            try:
                if force and isinstance(data, CachedData):
                    data.discard()
                try:
                    data.prepare()
                except MissingFiles as error:
                    if place is not None or bool(getattr(data.options, "path", "")):
                        raise
                    bring(task, data_dir(), error, network, offline=offline)
                    data = _open(task, protocol, set_)
                    data.prepare()
            except MissingFiles as error:
                line = str(error)
                missing.append(line if line.startswith(task.name) else f"{task.name}: {line}")
                continue
            if place is not None:
                remember(data_dir(), task.name, place.expanduser())
                data = _open(task, protocol, _with_path(set_, place))
                _warn_of_another_law(task, protocol, data, _open(task, protocol, set_), place)
            rows.append(row_of(task, protocol, data))
    if rows:
        _show(rows, as_json, ("task", "protocol", "kind", "counts", "megabytes", "folder"))
    if missing:
        raise MissingFiles("\n".join(missing))


def _readers(tasks: list[Task], path: Path | None) -> set[str]:
    """The tasks that can read files. Raises UserError where --from names none, or nobody reads it."""
    from zoo.spec.errors import UserError

    readers = {task.name for task in tasks if "path" in getattr(task.load_options(), "__dataclass_fields__", {})}
    if path is not None and not path.expanduser().exists():
        raise UserError(f"--from {path}: no such file or folder")
    if path is not None and not readers:
        raise UserError(f"--from {path}: {', '.join(t.name for t in tasks)}: always generated; no files are read")
    return readers


def _with_path(set_: list[str] | None, path: Path | None) -> list[str]:
    return [*(set_ or ()), *([] if path is None else [f"task.path={path.expanduser().absolute()}"])]


def _warn_of_another_law(task: Task, protocol: str, told: TaskData, plain: TaskData, place: Path) -> None:
    """Say so where a later command under this protocol generates its data, whatever was prepared from files."""
    from zoo.data.cached import CachedData
    from zoo.data.progress import notice

    if isinstance(told, CachedData) and isinstance(plain, CachedData) and plain.generated and not told.generated:
        notice(
            f"{task.name}: under {protocol} other examples than the published are asked for; a run reads these files"
            f" with --set task.path={place.expanduser().absolute()}"
        )


@app.command("list")
def list_(set_: Overrides = None, as_json: Json = False) -> None:
    """What there is: whether its files are here, what is prepared of it, how large, its license, where it is from."""
    from zoo.data.inventory import row_of, summary_of

    every = _tasks("all")
    with _speaking(as_json):
        wanted = _known_to_some(every, set_)
        rows = [
            row_of(task, protocol, _open(task, protocol, wanted[task.name]))
            for task in every
            for protocol in task.protocols
        ]
    if as_json:
        _show(rows, as_json)
        return
    tasks = {task.name: [row for row in rows if row["task"] == task.name] for task in every}
    _show([summary_of(name, of_task) for name, of_task in tasks.items()], as_json)
    for task in every:
        if task.needs and all(row["files"] == "missing" for row in tasks[task.name]):
            print(f"\n{task.name} needs files: {task.needs}")
    for row in rows:
        if row.get("kind") == "damaged":
            print(f"\n{row['task']} ({row['protocol']}) is damaged: {row['problem']}")


def _known_to_some(tasks: list[Task], set_: list[str] | None) -> dict[str, list[str]]:
    """--set per task: what it knows of it. Raises ConfigError for a key that no task knows."""
    from zoo.run.compose import parse_overrides
    from zoo.spec.errors import ConfigError, did_you_mean

    keys = {t.name: {f"task.{name}" for name in t.load_options().__dataclass_fields__} for t in tasks}
    for key in parse_overrides(set_ or ()):
        if not any(key in known for known in keys.values()):
            raise ConfigError(
                key, f"unknown key{did_you_mean(key, sorted(set().union(*keys.values())))}", origin="--set"
            )
    return {name: [one for one in set_ or () if one.partition("=")[0].strip() in known] for name, known in keys.items()}


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
    with _speaking(as_json):
        for task in _tasks(tasks):
            data = _open(task, protocol, set_)
            problems = data.verify()
            row: dict[str, Any] = {"task": task.name, "protocol": protocol, "problems": problems}
            rows.append(row | {"ok": not problems, "state": state_of(data, problems)})
    _show(rows, as_json, ("task", "protocol", "state"))
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
    split: Annotated[str, typer.Option(help="train, val, test, or where there is one beyond.")] = "train",
    index: Annotated[int, typer.Option(help="Which example.")] = 0,
    n: Annotated[int, typer.Option("-n", min=1, help="How many, from there on.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write it there instead: a PNG, or a text file.")] = None,
    protocol: Protocol = "quick",
    objective: ObjectiveName = "",
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show examples so that a person sees the task: pictures drawn, texts to read; --json has what the model gets."""
    from zoo.data.inventory import told
    from zoo.data.module import LENGTH_GENERALIZATION, SPLITS
    from zoo.spec.errors import UserError, did_you_mean

    if split not in (*SPLITS, LENGTH_GENERALIZATION):
        raise UserError(f"unknown split {split!r}{did_you_mean(split, (*SPLITS, LENGTH_GENERALIZATION))}")
    if out is not None and n > 1:
        raise UserError(f"--out {out} takes one example, not -n {n}")
    rows = []
    with _speaking(as_json):
        data = _open(_task(task), protocol, set_, objective)
        data.prepare()
        if not data.has(split):
            raise UserError(f"{task} has no split {split}")
        examples = data.dataset(split)
        total = len(examples)  # type: ignore[arg-type]
        if not 0 <= index < total:
            raise UserError(f"--index {index}: {split} has the examples 0 to {total - 1}")
        for i in range(index, min(index + n, total)):
            said, given = told(data, split, examples[i])
            rows.append({"task": task, "split": split, "index": i, **said, **(given if as_json else {})})
            if not as_json:
                print(f"{task} {split} {i}: {', '.join(f'{k} {_cell(v)}' for k, v in said.items())}")
                _draw(data, split, i, out)
    if as_json:
        _show(rows, as_json)


def _draw(data: TaskData, split: Any, i: int, out: Path | None) -> None:
    import shutil
    import sys

    from zoo.data import draw

    seen = data.view(split, i)
    if out is not None:
        out = out.expanduser()
        if isinstance(seen, str):
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(seen + "\n", encoding="utf-8")
        else:
            draw.save(seen, out)
        print(out)
    elif isinstance(seen, str):
        print(seen)
    else:
        columns = shutil.get_terminal_size().columns
        print(draw.half_blocks(seen, columns) if sys.stdout.isatty() else draw.shades(seen, max(columns, 256)))


@app.command()
def stats(
    task: TaskName,
    protocol: Protocol = "quick",
    objective: ObjectiveName = "",
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Histograms of lengths and labels, how many examples lose their end, the majority-class score; of questions, what
    they are told apart by."""
    from zoo.data.stats import split_stats

    with _speaking(as_json):
        data = _open(_task(task), protocol, set_, objective)
        data.prepare()
        rows = split_stats(data)
    if as_json:
        _show(rows, as_json)
        return
    asks = "answers" in rows[0]
    for row in rows:
        row |= row.get("answers", {})
    what = ("asked", "distinct") if asks else ("labels",)
    _show(rows, as_json, ("split", "n", *what, "mean length", "longest", "truncated", "majority"))
    for row in rows:
        if len(row["lengths"]["counts"]) > 1:
            print(f"\n{row['split']}: lengths")
            _bars(row["lengths"]["edges"], row["lengths"]["counts"])
        if row.get("groups"):
            print(f"\n{row['split']}: groups of the {row['looked_at']:,} that were looked at")
            _show(row["groups"], as_json)
    if rows[0]["left_out"]:
        print(f"\nleft out: {len(rows[0]['left_out']):,} examples of the files (all are in --json)")
        for line in rows[0]["left_out"][:5]:
            print(f"  {line}")


def _bars(edges: list[int], counts: list[int], width: int = 40) -> None:
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        print(f"{low:>8,} … {high - 1:>8,} {count:>9,} {'█' * round(width * count / max(counts))}")


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
    """How fast examples are loaded, beside one architecture's training step: whether loading is the bottleneck.

    --set takes the keys of a run (task.KEY, model.KEY, train.num_workers …). Data that are not prepared are, before
    anything is measured.
    """
    from zoo.run.throughput import measure

    with _speaking(as_json):
        rows = [measure(arch, task.name, protocol, set_ or (), seconds) for task in _tasks(tasks)]
    columns = ("task", "arch", "batch", "first batch s", "samples/s", "tokens/s", "step samples/s", "ratio", "grew MB")
    _show(rows, as_json, columns)
    slow = [row["task"] for row in rows if row["ratio"] < 1]
    if not as_json:
        print(f"\nloading is the bottleneck of {', '.join(slow)}" if slow else "\nloading is no bottleneck")


def _task(name: str) -> Task:
    from zoo.spec.registry import registry

    return registry().task(name).record


def _tasks(names: str) -> list[Task]:
    from zoo.run.request import split_names, task_names
    from zoo.spec.registry import registry

    known = registry()
    return [known.task(name).record for name in task_names(split_names(names), known)]


def _open(task: Task, protocol: str, overrides: list[str] | None, objective: str = "") -> TaskData:
    from zoo.data.module import LoaderConfig
    from zoo.data.prepare import open_task
    from zoo.kinds import load_kind
    from zoo.run.compose import parse_overrides
    from zoo.spec.errors import UserError, did_you_mean

    kind = load_kind(task.kind)
    objectives = list(dict.fromkeys(kind.objective(mode) for mode in kind.modes))
    offered = [name for name in objectives if name in task.objectives] or objectives
    if objective and objective not in offered:
        raise UserError(f"--objective {objective!r} is none of {task.name}{did_you_mean(objective, offered)}")
    loading = LoaderConfig(kind=kind, objective=objective or offered[0])  # type: ignore[arg-type]
    return open_task(task, protocol, parse_overrides(overrides or ()), loading=loading)


def _speaking(as_json: bool) -> Any:
    import contextlib

    from zoo.data.progress import quiet

    return quiet() if as_json else contextlib.nullcontext()


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
        return " ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value[:60])) + (" …" if len(value) > 60 else "")
    return value
