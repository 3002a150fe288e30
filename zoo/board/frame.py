"""Records -> data frames: one row per run, and one row per run and group of its test questions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from zoo.board.costs import CostKey
from zoo.board.metric import NOT_FINITE, Metric
from zoo.board.statistics import Run, has_converged
from zoo.spec.cost import machine_name
from zoo.spec.record import Metrics, Record, SplitMetrics, unpack_bits
from zoo.spec.store import StoredRecord, describe_trial, edges_of_sweep, sweep_key

LENGTH_GENERALIZATION = "length_generalization"


def records_frame(stored: Iterable[StoredRecord]) -> pd.DataFrame:
    """One row per record, with typed columns.

    name           the architecture's name, with its distribution where that is not ours
    data_key       equal for records that were made on the same examples
    overrides      what the user changed, but for the settings that a sweep tried
    sweep, trial   which sweep the run belongs to, and which trial of it; "" for none
    edges          settings of the trial beyond which the sweep tried nothing
    outcome        "" where there is a score, else the status, or "not finite"
    score, scores  the ranked test score (NaN: none), and the other test scores by name
    baseline       the architecture that the width was matched with; "" for none
    samples, train_seconds          of the training: examples, and its wall clock
    cost_only      whether the score says nothing, because the budget is too small to learn the task
    cost_key       what decides its cost (zoo/board/costs.py)
    right          whether each test question was answered right; None where that is not known
    answers        predicted tokens of the test split; n where answers are not tokens
    length_generalization           the ranked score on that split (NaN: none)
    evaluated_longer, offers_longer whether the run was evaluated on that split, whether the task has one
    repeat         the order of runs that ended within the same second
    """
    rows = [_run(each) for each in stored]
    frame = pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)
    frame["ended"] = pd.to_datetime(frame["ended"], utc=True, format="ISO8601").dt.as_unit("us")
    return frame


_DTYPES: dict[str, str] = {
    **dict.fromkeys(("path", "protocol", "suite", "task", "task_version", "kind", "architecture", "family"), "object"),
    **dict.fromkeys(("name", "distribution", "mode", "objective", "stateful", "config_hash", "overrides"), "object"),
    **dict.fromkeys(("baseline", "sweep", "trial", "edges", "right", "cost_key", "task_options"), "object"),
    **dict.fromkeys(("data", "data_key", "status", "outcome", "metric", "scores", "machine", "ended"), "object"),
    **dict.fromkeys(("seed", "parameters", "samples", "n", "answers", "repeat"), "int64"),
    **dict.fromkeys(("state_size", "d_model", "n_layers"), "Int64"),
    **dict.fromkeys(
        ("parameters_off", "train_seconds", "score", "stderr", "length_generalization", "chance", "majority"), "float64"
    ),
    **dict.fromkeys(("cost_only", "higher_is_better", "converged", "evaluated_longer", "offers_longer"), "bool"),
}


def _run(stored: StoredRecord) -> dict[str, Any]:
    path, record = stored
    metric = Metric(record.metric.name, record.metric.higher_is_better)
    test = record.metrics.test if record.metrics else None
    longer = record.metrics.length_generalization if record.metrics else None
    score = test.scores[metric.name] if test else None
    architecture, distribution = record.architecture.name, record.plugin.distribution
    match = record.match
    run = None if test is None or score is None else Run(score, test.n, test.stderr)
    return {
        "path": path,
        "protocol": record.protocol,
        "suite": record.task.suite,
        "task": record.task.name,
        "task_version": record.task.version,
        "kind": record.task.kind,
        "cost_only": record.task.cost_only,
        "architecture": architecture,
        "family": record.architecture.family,
        "distribution": distribution,
        "name": architecture if distribution == "seqzoo" else f"{distribution}:{architecture}",
        "mode": record.mode,
        "objective": record.objective,
        "stateful": record.stateful,
        "config_hash": record.config_hash,
        "overrides": {k: v for k, v in record.overrides.items() if not record.sweep or k not in record.sweep.trials[0]},
        "sweep": sweep_key(record),
        "trial": describe_trial(record),
        "edges": edges_of_sweep(record),
        "data": record.data.kind,
        "data_key": _data_key(record),
        "task_options": record.config.get("task"),
        "seed": record.seed,
        "parameters": record.parameters,
        "parameters_off": record.parameters / match.parameters - 1 if match and record.parameters else None,
        "baseline": match.architecture if match else "",
        "state_size": record.state_size,
        **{name: setting(record, "model", name) for name in ("d_model", "n_layers")},
        "samples": record.samples,
        "train_seconds": record.seconds.train,
        "status": record.status,
        "outcome": "" if score is not None else NOT_FINITE if record.status == "ok" else record.status,
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "score": score,
        "scores": {name: value for name, value in test.scores.items() if name != metric.name} if test else {},
        "right": unpack_bits(test.right, test.n) if test and test.right else None,
        "n": test.n if test else 0,
        "answers": (test.answers or test.n) if test else 0,
        "stderr": test.stderr if test else None,
        "converged": run is not None and has_converged(run, metric, **dict(record.baselines)),
        "length_generalization": longer.scores[metric.name] if longer else None,
        "evaluated_longer": longer is not None,
        "offers_longer": LENGTH_GENERALIZATION in record.data.counts,
        "chance": record.baselines.chance,
        "majority": record.baselines.majority,
        "cost_key": CostKey.of(record),
        "machine": machine_name(record.hardware),
        "ended": record.ended,
        "repeat": stored.repeat,
    }


def _data_key(record: Record) -> str:
    """The data in which rows that are compared agree. Numbers of examples count of what is tested alone: from the same
    text an architecture that fills in words makes other examples to train on than one that predicts the next token."""
    data = record.data.model_dump(mode="json")
    tested = {split: n for split, n in data["counts"].items() if split not in ("train", "val")}
    return json.dumps(data | {"counts": tested}, sort_keys=True)


def setting(record: Record, section: str, name: str) -> Any:
    """A value of a record's configuration; None where it has none of this name."""
    values = record.config.get(section)
    return values.get(name) if isinstance(values, dict) else None


def groups_frame(stored: Iterable[StoredRecord]) -> pd.DataFrame:
    """One row per run and group of a split: `run` (row of `records_frame`), `longer` (whether the split is
    length_generalization, not test), score (NaN: not finite), weight, and a column for each dimension: length, pairs,
    depth, position …"""
    rows = []
    for run, (_, record) in enumerate(stored):
        for longer, split in enumerate(("test", LENGTH_GENERALIZATION)):
            whole: SplitMetrics | None = getattr(record.metrics, split, None)
            measured = [group for group in whole.groups if record.metric.name in group.scores] if whole else []
            if whole is None or not measured:
                continue
            by = weighting(whole, Metric(record.metric.name)) or "n"
            for group in measured:
                about = {"run": run, "longer": bool(longer), "score": group.scores[record.metric.name]}
                rows.append(about | {"weight": getattr(group, by)} | {k: float(v) for k, v in group.at.items()})
    fixed = {"run": "int64", "longer": "bool", "score": "float64", "weight": "int64"}
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(fixed))
    return frame[[*fixed, *sorted(set(frame.columns) - set(fixed))]].astype(fixed)


def weighting(whole: SplitMetrics, metric: Metric) -> str | None:
    """The count, "answers" or "n", by which the groups' scores average to that of the split; None: neither."""
    values = [group.scores.get(metric.name) for group in whole.groups]
    finite = [value for value in values if value is not None]
    score = whole.scores.get(metric.name)
    if len(finite) < len(values) or score is None:
        return "n"
    for key in ("answers", "n"):
        weights = [_count(group, key) for group in whole.groups]
        if all(weights) and math.isclose(metric.mean(finite, weights), score, rel_tol=1e-6, abs_tol=1e-6):
            return key
    return None


def _count(metrics: Metrics, key: str) -> int:
    return getattr(metrics, key) or 0
