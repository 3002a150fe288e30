"""Boards -> data for programs: CSV and JSON. Scores are fractions; what there is not is empty or null."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from zoo.board.breakdown import NOT_DEFINED
from zoo.board.model import Board, Section
from zoo.board.rows import Point, Row
from zoo.spec.store import Problem

COLUMNS = (
    "protocol",
    "task",
    "task_version",
    "rank",
    "tied",
    "architecture",
    "distribution",
    "mode",
    "objective",
    "config_hash",
    "overrides",
    "data",
    "parameters",
    "parameters_off",
    "state_size",
    "seeds",
    "converged",
    "accuracy",
    "low",
    "high",
    "interval",
    "each_seed",
    "failures",
    "chance",
    "majority",
    "reported",
    "reported_source",
    "delta",
    "tokens_per_second",
    "peak_memory_bytes",
    "hardware",
    "superseded",
    "notes",
    "records",
    "metric",
    "higher_is_better",
    "score",
    "other_scores",
    "length_generalization",
    "carried",
)
"""One row of results.csv. `low` to `each_seed`, the baselines and reported scores are of `metric`; `accuracy` is there
whether it is the ranked metric or not."""


def flat(found: Iterable[Board]) -> list[dict[str, Any]]:
    """One flat object per row; None for what there is not."""
    return [_flat(board, section, row) for board in found for section in board.sections for row in section.rows]


def _flat(board: Board, section: Section, row: Row) -> dict[str, Any]:
    found = row.estimate
    interval = found.interval if found else None
    others = dict(row.others or {})
    told = row.reported[0] if row.reported else None
    return {
        "protocol": board.protocol,
        "task": section.task,
        "task_version": section.version,
        "rank": row.rank.place if row.rank else None,
        "tied": row.rank.tied if row.rank else None,
        "architecture": row.architecture,
        "distribution": row.distribution,
        "mode": row.mode,
        "objective": row.objective,
        "config_hash": row.config_hash,
        "overrides": dict(row.overrides),
        "data": row.data,
        "parameters": row.parameters,
        "parameters_off": row.off,
        "state_size": row.state_size,
        "seeds": len(row.seeds),
        "converged": row.converged,
        "accuracy": found.mean if found and row.scale.name == "accuracy" else others.get("accuracy"),
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "interval": interval.kind if interval else None,
        "each_seed": {str(s.seed): s.word or s.score for s in row.seeds},
        "failures": row.failures,
        "chance": row.chance,
        "majority": row.majority,
        "reported": told.value if told else None,
        "reported_source": f"{told.source}, {told.table}".removesuffix(", ") if told else None,
        "delta": row.delta,
        "tokens_per_second": row.tokens_per_second,
        "peak_memory_bytes": row.peak_memory_bytes,
        "hardware": list(row.hardware),
        "superseded": row.superseded,
        "notes": list(row.notes),
        "records": [seed.path for seed in row.seeds if seed.path],
        "metric": row.scale.name,
        "higher_is_better": row.scale.higher,
        "score": found.mean if found else None,
        "other_scores": others,
        "length_generalization": row.beyond if row.defined else NOT_DEFINED if row.offered and found else None,
        "carried": row.carried,
    }


def csv_text(found: Iterable[Board]) -> str:
    """The rows of all boards under one header. Scores are fractions; objects are JSON."""
    return _csv(COLUMNS, flat(found))


def _csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else ""
    return str(value).lower() if isinstance(value, bool) else value


GROUP_COLUMNS = (
    "protocol",
    "task",
    "task_version",
    "architecture",
    "distribution",
    "objective",
    "config_hash",
    "seed",
    "split",
    "metric",
    "score",
    "weight",
)
"""groups.csv: a line per seed and part of test or beyond; after these a column for everything that parts differ in.
`weight` is the number of answers, or questions, that the score is over."""


def groups_csv(found: Iterable[Board]) -> str:
    """The scores of every part of the test questions, seed by seed; empty where nobody has any."""
    rows = [
        line
        for board in found
        for section in board.sections
        for row in section.rows
        for line in _parts(board, section, row)
    ]
    names = sorted({name for line in rows for name in line} - set(GROUP_COLUMNS))
    return _csv((*GROUP_COLUMNS, *names), rows) if rows else ""


def _parts(board: Board, section: Section, row: Row) -> list[dict[str, Any]]:
    about = {
        "protocol": board.protocol,
        "task": section.task,
        "task_version": section.version,
        "architecture": row.architecture,
        "distribution": row.distribution,
        "objective": row.objective,
        "config_hash": row.config_hash,
    }
    return [about | {"seed": seed.seed} | _part(point, row) for seed in row.seeds for point in seed.points]


def _part(point: Point, row: Row) -> dict[str, Any]:
    return {
        "split": "length_generalization" if point.beyond else "test",
        "metric": row.scale.name,
        "score": point.score,
        "weight": point.weight,
        **dict(point.where),
    }


def to_json(found: Sequence[Board], problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """What `zoo leaderboard --json` prints: boards by protocol, and the skipped files. A row has besides the columns of
    results.csv its `groups`: the means over seeds of every part of the test questions."""
    return {
        "boards": [
            {
                "protocol": board.protocol,
                "rows": [
                    _flat(board, section, row) | {"groups": [_part(point, row) for point in row.points]}
                    for section in board.sections
                    for row in section.rows
                ],
                "overall": [
                    {
                        "suite": overall.suite,
                        "tasks": list(overall.tasks),
                        "common_tasks": list(overall.common),
                        "average": {row.architecture: row.average for row in overall.rows},
                    }
                    for overall in board.overalls
                ],
                "superseded": board.superseded,
            }
            for board in found
        ],
        "skipped": [problem._asdict() for problem in problems],
    }
