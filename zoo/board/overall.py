"""How architectures do over the tasks of a suite: one table, ranked by the mean normalized score."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from zoo.board.metric import ACCURACY, Metric
from zoo.board.results import UNFINISHED, Section
from zoo.board.statistics import Estimate, average, rank_rows
from zoo.board.tables import Table, make_table, rank_cells
from zoo.board.words import DATA, OBJECTIVES

NO_RECORD = "no record"
SWEEP_UNFINISHED = "sweep unfinished"
NORMALIZED, INTERVAL, MEAN = "normalized score", "95 % interval", "mean score"


class Overall(NamedTuple):
    """The architectures on the current tasks of a suite.

    metrics     of each task
    common      the tasks that the ranking is over: with `rows`, the largest block of scores without a gap
    unscaled    tasks with scores that are not normalized -> why: no baseline or no perfect score, or parts of the data
    scored      tasks on which each architecture has a normalized score
    cells       architecture × task: the score, or a word for want of one
    rows        one row per architecture, in the order shown. Of those that are ranked: normalized (mean over the common
                tasks), low, high, rank, tied, best_rank, worst_rank; and average (of the scores, where all the common
                tasks have shares)
    """

    suite: str
    metrics: Mapping[str, Metric]
    common: list[str]
    unscaled: Mapping[str, str]
    scored: Mapping[str, frozenset[str]]
    cells: pd.DataFrame
    rows: pd.DataFrame


def overalls(sections: Sequence[Section]) -> list[Overall]:
    """The table over tasks of each suite with several, of the sections of one protocol."""
    suites: dict[str, list[Section]] = {}
    for section in sections:
        if section.current and not section.cost_only:
            suites.setdefault(section.suite, []).append(section)
    return [_overall(suite, suites[suite]) for suite in sorted(suites) if len(suites[suite]) > 1]


def _overall(suite: str, sections: Sequence[Section]) -> Overall:
    metrics = {section.task: section.metric for section in sections}
    every = pd.concat([section.rows for section in sections])
    objectives = every.groupby("name")["objective"].agg(_objectives)
    cells = pd.DataFrame({section.task: _cells(section) for section in sections}).fillna(NO_RECORD)
    estimates = {section.task: {} if section.partial else normalize(section) for section in sections}
    without = [s for s in sections if s.rows["rank"].notna().any() and not estimates[s.task]]
    unscaled = {s.task: f"{DATA['part']} data" if s.partial else "no baseline" for s in without}
    scored = {str(name): frozenset(t for t in metrics if name in estimates[t]) for name in objectives.index}
    common, names = largest_block(scored)
    means = [average([estimates[task][name] for task in common]) for name in names]
    shares = all(metrics[task].is_share for task in common)
    ranked = [
        {
            "normalized": mean.mean,
            "low": mean.interval.low if mean.interval else math.nan,
            "high": min(mean.interval.high, 1.0) if mean.interval else math.nan,  # 1 is the best score there is
            "average": math.fsum(cells[task][name] for task in common) / len(common) if shares else math.nan,
            "rank": rank.rank,
            "best_rank": rank.best,
            "worst_rank": rank.worst,
        }
        for name, mean, rank in zip(names, means, rank_rows(means), strict=True)
    ]
    rows = pd.DataFrame(ranked, names, list(_DTYPES)).reindex(objectives.index).astype(_DTYPES)
    rows = rows.assign(tied=rows["rank"].duplicated(keep=False).where(rows["rank"].notna()), objectives=objectives)
    rows = rows.sort_values(["rank", "normalized"], ascending=[True, False])  # of equals by name
    return Overall(suite, metrics, common, unscaled, scored, cells.loc[rows.index], rows)


_DTYPES = {
    **dict.fromkeys(("normalized", "low", "high", "average"), "float64"),
    **dict.fromkeys(("rank", "best_rank", "worst_rank"), "Int64"),
}


def _objectives(keys: pd.Series) -> str:
    """The objectives of an architecture over the tasks, in words."""
    return ", ".join(OBJECTIVES[key] for key in sorted({*keys} - {"classify"}))


def normalize(section: Section) -> dict[str, Estimate]:
    """The score of each ranked row between the best baseline of its task, 0, and a perfect score, 1.

    It is 1 - error / error of the baseline, where the error of a share is what it lacks to 1, and of a perplexity its
    logarithm. Empty where the task has no baseline, or its metric no perfect score.
    """
    metric, baselines = section.metric, (section.chance, section.majority)
    unit = min((metric.error(line) for line in baselines if not math.isnan(line)), default=math.nan)
    if not unit > 0:
        return {}
    ranked = section.rows[section.rows["rank"].notna()].set_index("name")["estimate"]
    return {
        str(name): Estimate(1 - metric.error(each.mean) / unit, None, each.error / unit, each.df)
        for name, each in ranked.items()
    }


def largest_block(scored: Mapping[str, frozenset[str]]) -> tuple[list[str], list[str]]:
    """Tasks and architectures, of those with scores on these tasks, that form the largest block without a gap: the one
    of most scores, of equals that of more architectures. A single architecture is a block only where no other has a
    score."""
    closed: set[frozenset[str]] = set()
    for tasks in scored.values():
        closed |= {tasks} | {tasks & other for other in closed}
    least = min(2, sum(map(bool, scored.values())))
    blocks = [(sorted(tasks), [name for name, own in scored.items() if own >= tasks]) for tasks in closed if tasks]
    blocks = [(tasks, names) for tasks, names in blocks if len(names) >= least]
    return min(blocks, key=lambda block: (-len(block[0]) * len(block[1]), -len(block[1]), block), default=([], []))


def _cells(section: Section) -> pd.Series:
    """The score of each architecture, or a word: how its runs ended, or what sets them apart from those compared."""
    return pd.Series({name: _cell(rows) for name, rows in section.rows.groupby("name")}, dtype="object")


def _cell(rows: pd.DataFrame) -> Any:
    """What stands for the rows of an architecture on a task."""
    compared = rows[rows["notes"].map(len) == 0]
    if len(compared):
        row = compared.iloc[0]
        return row["failures"] if math.isnan(row["score"]) else row["score"]
    notes = [notes[0] for notes in rows["notes"]]
    if any(note.endswith(UNFINISHED) for note in notes):
        return SWEEP_UNFINISHED
    apart = {note.partition(":")[0] for note in notes if not note.startswith("trial ")}
    return ", ".join(sorted(apart or {*rows["failures"]}))


# -- as text -------------------------------------------------------------------------------------------------------


def overall_title(overall: Overall) -> str:
    """The heading of a suite's table."""
    return f"{overall.suite}: overall"


def overall_table(overall: Overall) -> Table:
    """Architectures by the tasks of a suite, best normalized score first."""
    rows = overall.rows
    places = pd.DataFrame([rank_cells(row) for _, row in rows.iterrows()])
    columns = {
        "rank": places["rank"],
        "architecture": rows.index,
        NORMALIZED: [_percent(value) for value in rows["normalized"]],
        INTERVAL: [ACCURACY.format_range(*ends) for ends in rows[["low", "high"]].to_numpy()],
        "rank range": places["rank range"],
        "objective": list(rows["objectives"]),
        MEAN: [_percent(value) for value in rows["average"]],
    }
    table = pd.DataFrame(columns)
    for task, metric in overall.metrics.items():
        title = task if metric.is_share else f"{task}\n({metric.title})"
        table[title] = [cell if isinstance(cell, str) else metric.format(cell) for cell in overall.cells[task]]
    return make_table(table)


def _percent(value: float) -> str:
    return "" if math.isnan(value) else ACCURACY.format(value)


def overall_lines(overall: Overall) -> list[str]:
    """What the ranking is over, and what it leaves out and why."""
    common, scored = overall.common, overall.scored.values()
    odd = [f"{task} ({why})" for task, why in overall.unscaled.items()]
    lines = ["Not ranked: no two architectures have a normalized score on the same task."]
    if common:
        formula = "(score − baseline) / (100 % − baseline), with the best baseline of the task"
        if any(not overall.metrics[task].is_share for task in common):
            formula += "; of a perplexity 1 − ln perplexity / ln baseline"
        lines = [f"Ranked by the mean normalized score over {_join(common)}: {formula}."]
        counts = {task: sum(task in own for own in scored) for task in overall.metrics if task not in common}
        odd = [f"{task} (scores of {n} of {len(scored)} rows)" for task, n in counts.items() if n] + odd
    lines += [f"Not counted: {_join(odd)}."] if odd else []
    wanting = Counter(_join(t for t in common if t not in own) for own in scored if not own.issuperset(common))
    without = [f"{n} row{'s' * (n > 1)} without a score on {tasks}" for tasks, n in sorted(wanting.items())]
    lines += [f"Not ranked: {', '.join(without)}."] if without else []
    if (overall.cells == NO_RECORD).any(axis=None):
        lines.append(f"{NO_RECORD.capitalize()}: not run, or the architecture has no form for the task.")
    if (overall.cells == SWEEP_UNFINISHED).any(axis=None):
        lines.append(f"{SWEEP_UNFINISHED.capitalize()}: trials are missing, so that none is chosen yet.")
    return lines


def _join(names: Iterable[str]) -> str:
    """Names as in a sentence."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
