"""What the charts of the score against a cost say, in a sentence a task, as far as the ranges of ranks allow it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from zoo.board.results import Section


class Cost(NamedTuple):
    """What scores are set against.

    of        (section) -> its value for each row, NaN where there is none
    written   writes a value with its unit
    least     what the row with the least value does
    less, more
              what rows with smaller and greater values are
    """

    of: Callable[[Section], pd.Series]
    written: Callable[[float], str]
    least: str
    less: str
    more: str

    def values(self, section: Section) -> pd.Series:
        """The positive values of the ranked rows of a section."""
        rows, values = section.rows, self.of(section)
        return values[rows["rank"].notna() & section.current & (values > 0)]


def _seconds(section: Section) -> pd.Series:
    seconds = [1000 * cost.train.seconds if cost else math.nan for cost in section.rows["cost"]]
    return pd.Series(seconds, section.rows.index, dtype="float64")


def _state(section: Section) -> pd.Series:
    sizes = section.rows["state_size"].astype("Int64").astype("float64")
    return sizes.where(section.rows["kind"].eq("recall"))


TIME = Cost(_seconds, "{:,.3g} s per 1,000 examples".format, "trains fastest", "that are faster", "that are slower")
"""Training, measured apart from the runs."""
STATE = Cost(
    *(_state, "{:,.0f} numbers".format),
    *("has the smallest state", "with a smaller state", "with a larger state"),
)
"""What is carried through a sequence, of recall tasks."""


def takeaways(sections: Sequence[Section], cost: Cost) -> list[str]:
    """Task by task how little of the cost a row needs that could be the best, and whether those with less and with more
    are shown to be worse. Nothing of a task where all rows could be the best, or less than two have the cost, or on a
    part of its data."""
    return [line for section in sections if not section.partial and (line := _takeaway(section, cost))]


def _takeaway(section: Section, cost: Cost) -> str:
    values = cost.values(section)
    rows = section.rows.loc[values.index].assign(value=values)
    could, n = rows["best_rank"] == 1, len(rows)
    if n < 2 or could.all():
        return ""
    if not could.any():
        return f"{section.task}: none of these {n} rows could be the best of all."
    row = rows[could].sort_values("value", kind="stable").iloc[0]
    name, value = f"{row['name']} ({row['family']})", cost.written(row["value"])
    text = f"of these {n} rows only {name} could be the best of all, with {value}"
    if could.sum() > 1:
        text = f"{could.sum()} of these {n} rows could be the best of all; of them {name} {cost.least}, {value}"
    sides = ((values < row["value"], cost.less), (values > row["value"], cost.more))
    worse = [_count((~could & side).sum(), side.sum(), word) for side, word in sides if (~could & side).any()]
    return f"{section.task}: {text}." + f" Shown to be worse: {' and '.join(worse)}." * bool(worse)


def _count(some: int, of: int, word: str) -> str:
    """ "2 of the 10 with a larger state"."""
    if some < of:
        return f"{some} of the {of} {word}"
    return f"all {of} {word}" if of > 2 else f"{('the one', 'both')[of - 1]} {word}"
