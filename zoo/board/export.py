"""Boards as CSV and JSON. Scores are fractions; missing values are empty or null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from zoo.board.breakdown import NOT_DEFINED
from zoo.board.costs import MODES, median_speed
from zoo.board.frame import LENGTH_GENERALIZATION
from zoo.board.overall import Overall, overalls
from zoo.board.results import Board, dimension_columns
from zoo.spec.cost import CostRecord
from zoo.spec.store import Problem

COLUMNS = [
    *("protocol", "task", "task_version", "rank", "tied", "best_rank", "worst_rank", "architecture", "distribution"),
    *("mode", "objective", "tuned", "difference"),
    *("config_hash", "overrides", "data", "parameters", "parameters_off", "state_size", "seeds", "converged"),
    *("accuracy", "low", "high", "interval", "each_seed", "failures", "chance", "majority", "reported"),
    *("reported_source", "delta", "train_tokens_per_second", "inference_tokens_per_second", "extra_memory_bytes"),
    *("cost", "cost_only", "hardware", "superseded", "notes"),
    *("records", "metric", "higher_is_better", "score", "other_scores", LENGTH_GENERALIZATION, "stateful"),
]
"""Columns of board.csv. `low` to `each_seed`, the baselines and reported scores are of `metric`; `accuracy` is filled
whether it is the ranked metric or not. `hardware` is that of the runs; `cost` says where speed and memory were
measured, and gives the seconds of an example."""

GROUP_COLUMNS = [
    *("protocol", "task", "task_version", "architecture", "distribution", "objective", "config_hash"),
    *("seed", "split", "metric", "score", "weight"),
]
"""Columns of groups.csv, followed by one for each dimension of the groups. `weight` is the number of answers, or
questions, that the score is over."""


def results_table(board: Board) -> pd.DataFrame:
    """One row per configuration with the columns of board.csv, as JSON values."""
    if board.results.empty:
        return pd.DataFrame(columns=COLUMNS)
    table = _json_values(board.results)
    costs = table["cost"]
    memory = [cost.memory_bytes if cost else None for cost in costs]
    first = table["reported"].map(lambda reported: reported[0] if reported else None)
    is_accuracy = table["metric"] == "accuracy"
    not_defined = board.results["offers_longer"] & ~board.results["evaluated_longer"] & table["score"].notna()
    return table.assign(
        accuracy=table["score"].where(is_accuracy, table["other_scores"].map(lambda scores: scores.get("accuracy"))),
        each_seed=table["each_seed"].map(lambda seeds: {str(seed): score for seed, score in seeds.items()}),
        **{f"{mode}_tokens_per_second": costs.map(partial(median_speed, mode=mode)) for mode in MODES},
        extra_memory_bytes=pd.Series(memory, costs.index, dtype="object"),
        cost=costs.map(_cost),
        difference=table["difference"].map(lambda one: one._asdict() if one else None),
        reported=first.map(lambda one: one.value if one else None).astype("object"),
        reported_source=first.map(lambda one: f"{one.source}, {one.table}".removesuffix(", ") if one else None),
        **{LENGTH_GENERALIZATION: table[LENGTH_GENERALIZATION].mask(not_defined.astype(bool), NOT_DEFINED)},
    )[COLUMNS]


def _cost(cost: CostRecord | None) -> dict[str, Any] | None:
    shown = {"machine", "measured", "others", "tokens", "places", "batch_size", "train", "inference"}
    return cost.model_dump(mode="json", include=shown) if cost else None


def groups_table(board: Board) -> pd.DataFrame:
    """One row per seed and group of the test questions with the columns of groups.csv, as JSON values."""
    names = dimension_columns(board.groups)
    if board.groups.empty:
        return pd.DataFrame(columns=GROUP_COLUMNS)
    about = board.results.drop(columns=["score", LENGTH_GENERALIZATION])
    table = board.groups.join(about, on="row")
    table["split"] = table["longer"].map({False: "test", True: LENGTH_GENERALIZATION})
    whole = {name: "Int64" for name in names if (table[name].dropna() % 1 == 0).all()}
    table = table.astype(whole)  # 64, not 64.0
    return _json_values(table[[*GROUP_COLUMNS, *names]])


def _json_values(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells as Python objects, None where they are missing."""
    return frame.astype("object").where(frame.notna(), None)


def _overall_values(overall: Overall) -> dict[str, Any]:
    """The table over the tasks of a suite; of each row its score on each task, or a word for want of one."""
    rows = overall.rows.rename_axis("architecture").reset_index().drop(columns="objectives")
    scores = pd.Series(overall.cells.to_dict("records"), dtype="object")
    return {
        "suite": overall.suite,
        "tasks": list(overall.metrics),
        "common_tasks": overall.common,
        "rows": _json_values(rows.assign(scores=scores)).to_dict("records"),
    }


def to_csv(table: pd.DataFrame) -> str:
    """CSV text. Lists and objects are JSON."""
    return table.map(_csv_cell).to_csv(index=False, lineterminator="\n")


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else ""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def to_json(board: Board, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """The object that `zoo leaderboard --json` prints: of each protocol the rows of board.csv and groups.csv and the
    tables over tasks; and the skipped files."""
    results, groups = results_table(board), groups_table(board)
    boards = []
    for protocol, sections in board.protocols():
        rows = results[results["protocol"] == protocol]
        boards.append(
            {
                "protocol": protocol,
                "rows": rows.to_dict("records"),
                "groups": groups[groups["protocol"] == protocol].to_dict("records"),
                "overall": [_overall_values(overall) for overall in overalls(sections)],
                "superseded": int(rows["superseded"].sum()),
            }
        )
    return {"boards": boards, "skipped": [problem._asdict() for problem in problems]}
