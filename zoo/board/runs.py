"""One line a run: results.csv, and what `zoo.leaderboard()` returns. `python -m zoo.board.runs` prints what its columns
mean, as it stands in docs/board.md."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from zoo.board.costs import MODES, median_speed
from zoo.board.frame import setting
from zoo.board.metric import Metric
from zoo.board.results import Board, compare, ranked_protocols
from zoo.board.statistics import Run, run_interval
from zoo.spec.cost import CostRecord, machine_name
from zoo.spec.files import default_results_dir
from zoo.spec.record import HistoryPoint, Record
from zoo.spec.store import StoredRecord, read_all


class Column(NamedTuple):
    """A column: what it means, and its value for a run and the row of the board that the run belongs to."""

    meaning: str
    value: Callable[[Record, pd.Series | None], Any]


def _at(path: str) -> Callable[[Record, pd.Series | None], Any]:
    def value(record: Record, row: pd.Series | None) -> Any:
        node: Any = record
        for name in path.split("."):
            node = getattr(node, name) if node is not None else None
        return node

    return value


def _setting(section: str, name: str) -> Callable[[Record, pd.Series | None], Any]:
    return lambda record, row: setting(record, section, name)


def _score(record: Record, split: str) -> float | None:
    metrics = getattr(record.metrics, split, None)
    return metrics.scores.get(record.metric.name) if metrics else None


def validations(record: Record) -> list[HistoryPoint]:
    """The validations of a run that have the ranked score; none where a task is validated by another score."""
    if record.metrics is None:
        ranked = Metric(record.metric.name, record.metric.higher_is_better).is_share
    else:
        ranked = record.metric.name in record.metrics.val.scores
    return [point for point in record.history if ranked and point.split == "val" and point.metric is not None]


def _interval(record: Record, row: pd.Series | None, end: str) -> Any:
    score = _score(record, "test")
    if score is None or record.metrics is None:
        return None
    test, metric = record.metrics.test, Metric(record.metric.name, record.metric.higher_is_better)
    return getattr(run_interval(Run(score, test.n, test.stderr), metric), end, None)


def _cost(record: Record, row: pd.Series | None, read: Callable[[Any], Any]) -> Any:
    return None if row is None or row["cost"] is None else read(row["cost"])


def _rank(record: Record, row: pd.Series | None) -> int | None:
    return None if row is None or pd.isna(row["rank"]) else int(row["rank"])


def _unranked(record: Record, row: pd.Series | None) -> str:
    """Why the run's row has no rank; empty where it has one."""
    if row is None:
        return "superseded by a later run"
    words = ["cost only"] if record.task.cost_only else []
    words += row["notes"]
    return "; ".join(words) if words or _rank(record, row) else row["failures"]


COLUMNS: dict[str, Column] = {
    "protocol": Column("the conditions; runs of different protocols are not comparable", _at("protocol")),
    "task": Column("the task", _at("task.name")),
    "task_version": Column("raised when the same seed gives other examples", _at("task.version")),
    "suite": Column("the suite of the task", _at("task.suite")),
    "architecture": Column("the architecture", _at("architecture.name")),
    "architecture_version": Column("raised when its equations or defaults change", _at("architecture.version")),
    "family": Column("its family, as its plugin says", _at("architecture.family")),
    "distribution": Column("the Python distribution of its plugin", _at("plugin.distribution")),
    "distribution_version": Column("its version", _at("plugin.version")),
    "source_hash": Column("SHA-256 of the sources of zoo, plugin and task", _at("plugin.source_hash")),
    "config_hash": Column("identity of the configuration", _at("config_hash")),
    "seed": Column("the seed of the run", _at("seed")),
    "lr": Column("peak learning rate (`optim.lr`)", _setting("optim", "lr")),
    "d_model": Column("width (`model.d_model`)", _setting("model", "d_model")),
    "n_layers": Column("depth (`model.n_layers`)", _setting("model", "n_layers")),
    "batch_size": Column("training examples a step (`train.batch_size`)", _setting("train", "batch_size")),
    "parameters": Column("number of parameters, embedding and head included", _at("parameters")),
    "state_size": Column("numbers carried per sequence; empty without a state of fixed size", _at("state_size")),
    "flops": Column("floating-point operations of the whole training; empty when not counted", _at("flops")),
    "mode": Column("causal, bidirectional or seq2seq", _at("mode")),
    "objective": Column("how the task is put: classify, causal_lm, infilling, seq2seq", _at("objective")),
    "stateful": Column("of running text: whether a state is carried between segments", _at("stateful")),
    "overrides": Column("what the user changed, as a JSON object", _at("overrides")),
    "status": Column("ok, out-of-memory, diverged, timeout, interrupted, failed", _at("status")),
    "metric": Column("the ranked score", _at("metric.name")),
    "higher_is_better": Column("of that score", _at("metric.higher_is_better")),
    "score": Column(
        "on test; accuracies are fractions; empty without one, never 0", lambda record, row: _score(record, "test")
    ),
    "low": Column("lower end of the run's own 95 % interval, over test questions", partial(_interval, end="low")),
    "high": Column("upper end", partial(_interval, end="high")),
    "interval": Column("binomial or normal: see Scores; empty for none", partial(_interval, end="kind")),
    "n": Column("test questions", _at("metrics.test.n")),
    "scores": Column("all scores on test, as a JSON object", _at("metrics.test.scores")),
    "val_score": Column("the ranked score on validation", lambda record, row: _score(record, "val")),
    "length_generalization": Column(
        "the ranked score on that split", lambda record, row: _score(record, "length_generalization")
    ),
    "chance": Column("the score of a uniform guess", _at("baselines.chance")),
    "majority": Column("the score of the other baseline", _at("baselines.majority")),
    "rank": Column("of the row of the board that the run counts in", _rank),
    "unranked": Column("why that row has no rank; empty where it has one", _unranked),
    "data": Column("regenerated, published, part (of the published) or own", _at("data.kind")),
    "samples": Column("training samples consumed, repeats included", _at("samples")),
    "tokens": Column("of these, padding excluded", _at("tokens")),
    "train_seconds": Column("wall clock of the run's training, whatever else ran", _at("seconds.train")),
    "eval_seconds": Column("likewise of its evaluation", _at("seconds.eval")),
    "peak_memory_bytes": Column("of the run's process, or of the GPU", _at("peak_memory_bytes")),
    "hardware": Column("what the run had", lambda record, row: machine_name(record.hardware)),
    **{
        f"{mode}_tokens_per_second": Column(
            f"speed of {'training' if mode == 'train' else mode}, measured apart on an idle machine (`zoo cost`)",
            partial(_cost, read=partial(median_speed, mode=mode)),
        )
        for mode in MODES
    },
    "extra_memory_bytes": Column(
        "likewise: what training takes beyond model and data", partial(_cost, read=lambda cost: cost.memory_bytes)
    ),
    "cost_machine": Column("where these three were measured", partial(_cost, read=lambda cost: cost.machine)),
    "zoo": Column("version of seqzoo", lambda record, row: record.versions.get("seqzoo")),
    "torch": Column("version of PyTorch", lambda record, row: record.versions.get("torch")),
    "python": Column("version of Python", lambda record, row: record.versions.get("python")),
    "commit": Column("of the checkout; empty for an installed package", _at("git.commit")),
    "dirty": Column("whether the checkout had changes", _at("git.dirty")),
    "started": Column("UTC", _at("started")),
    "ended": Column("UTC", _at("ended")),
    "record": Column("the record's file, relative to the results", lambda record, row: None),
}
"""The columns of results.csv, in order."""


def runs_table(stored: Sequence[StoredRecord], board: Board) -> pd.DataFrame:
    """One row per run, in the order of their files, as JSON values. `board` is that of exactly these records."""
    row_of = {run: row for _, row in board.results.iterrows() for run in row["runs"]} if len(board.results) else {}
    rows = [
        {name: column.value(record, row_of.get(k)) for name, column in COLUMNS.items()} | {"record": path}
        for k, (path, record) in enumerate(stored)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="object")


def leaderboard(results: Path | str | None = None) -> pd.DataFrame:
    """One row per run below `results` (ZOO_RESULTS_DIR, else leaderboard/results), with the columns of results.csv.

    Missing values are NA, objects are JSON text. Warns of each file that is not a valid record.
    """
    folder = default_results_dir() if results is None else Path(results)
    stored, problems = read_all(folder)
    for problem in problems:
        warnings.warn(f"{problem.file}: {problem.reason}", stacklevel=2)
    stored = ranked_protocols(stored)
    table = runs_table(stored, compare(stored, costs=CostRecord.read_all(folder)[0]))
    for name in ("scores", "overrides"):
        table[name] = table[name].map(lambda value: json.dumps(value, sort_keys=True), na_action="ignore")
    return table.convert_dtypes()


def dictionary() -> str:
    """What the columns mean, as a table in Markdown."""
    lines = [f"| `{name}` | {column.meaning} |" for name, column in COLUMNS.items()]
    return "\n".join(["| column | meaning |", "|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    print(dictionary(), end="")
