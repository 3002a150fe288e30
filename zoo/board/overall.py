"""The averages over the tasks of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from zoo.board.metric import Metric
from zoo.board.results import Section


class Overall(NamedTuple):
    """The comparable rows of the current tasks of a suite.

    rows     those without notes: ranked, or failed
    metrics  of each task
    common   tasks of shares that every architecture with any such score has a score on; no other is averaged
    average  of each architecture over the common tasks, best first; NaN: none
    """

    suite: str
    rows: pd.DataFrame
    metrics: Mapping[str, Metric]
    common: list[str]
    average: pd.Series


def overalls(sections: Sequence[Section]) -> list[Overall]:
    """The averages over tasks of each suite, of the sections of one protocol."""
    suites: dict[str, list[Section]] = {}
    for section in sections:
        if section.current:
            suites.setdefault(section.suite, []).append(section)
    return [_overall(suite, suites[suite]) for suite in sorted(suites)]


def _overall(suite: str, sections: Sequence[Section]) -> Overall:
    rows = pd.concat([section.rows[section.rows["notes"].map(len) == 0] for section in sections])
    metrics = {section.task: section.metric for section in sections}
    scores = rows.pivot(index="name", columns="task", values="score").reindex(columns=list(metrics))
    shares = scores[[task for task, metric in metrics.items() if metric.is_share]].dropna(how="all")
    common = sorted(str(task) for task in shares if len(shares) and shares[task].notna().all())
    average = shares[common].mean(axis="columns").reindex(scores.index)
    order = average.rename("average").reset_index().sort_values(["average", "name"], ascending=[False, True])
    return Overall(suite, rows, metrics, common, order.set_index("name")["average"])
