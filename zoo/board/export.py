"""Boards -> data for programs: CSV and JSON. Scores are fractions; what there is not is empty or null."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from zoo.board.model import Board, Row, Section
from zoo.interface.record import Problem

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
)


def flat(found: Iterable[Board]) -> list[dict[str, Any]]:
    """One flat object per row; None for what there is not."""
    return [_flat(board, section, row) for board in found for section in board.sections for row in section.rows]


def _flat(board: Board, section: Section, row: Row) -> dict[str, Any]:
    found = row.estimate
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
        "accuracy": found.mean if found else None,
        "low": found.interval.low if found else None,
        "high": found.interval.high if found else None,
        "interval": found.interval.kind if found else None,
        "each_seed": {str(s.seed): s.outcome if s.score is None else s.score for s in row.seeds},
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
    }


def csv_text(found: Iterable[Board]) -> str:
    """The rows of all boards under one header. Scores are fractions; objects are JSON."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in flat(found):
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else ""
    return str(value).lower() if isinstance(value, bool) else value


def to_json(found: Sequence[Board], problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """What `zoo leaderboard --json` prints: boards by protocol, and the skipped files."""
    return {
        "boards": [
            {
                "protocol": board.protocol,
                "rows": flat([board]),
                "common_tasks": list(board.overall.common),
                "average": {row.architecture: row.average for row in board.overall.rows},
                "superseded": board.superseded,
            }
            for board in found
        ],
        "skipped": [problem._asdict() for problem in problems],
    }
