"""Scores along the dimensions by which a task groups its test questions: length, pairs, depth, position …

Everything is in the ranked metric. The split length_generalization, with questions that are longer or harder than any
in training, stands apart wherever it is shown. `groups` are data frames like `Section.mean_groups`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from zoo.board.frame import LENGTH_GENERALIZATION
from zoo.board.metric import Metric
from zoo.board.results import Section, dimension_columns, weighted_means

LENGTH = "length"
POSITION = "position"
"""Counted from 0; shown relative to the last (0 to 1), since texts differ in how many positions there are."""
NOT_DEFINED = "not defined"
"""Shown for an architecture that has no form for lengths beyond those it was built for."""


def placed_groups(section: Section, *, coarse: bool = False) -> pd.DataFrame:
    """`Section.mean_groups` with positions relative to the last, from 0 to 1; `coarse`: rounded to quarters."""
    groups = section.mean_groups.copy()
    names = dimension_columns(groups)
    if POSITION in names:
        others = [name for name in names if name != POSITION]
        last = groups.groupby(["row", "longer", *others], dropna=False)[POSITION].transform("max")
        groups[POSITION] /= last.where(last > 0, 1.0)
        if coarse:
            groups[POSITION] = np.floor(4 * groups[POSITION] + 0.5) / 4
    return groups


def dimensions(groups: pd.DataFrame) -> list[str]:
    """The dimensions with several values, length first. Of two that always go together, the first."""
    kept: list[str] = []
    for name in sorted(dimension_columns(groups), key=lambda name: (name != LENGTH, name)):
        if groups[name].nunique() > 1 and not any(name in matching_dimensions(groups, other) for other in kept):
            kept.append(name)
    return kept


def matching_dimensions(groups: pd.DataFrame, dimension: str) -> dict[str, dict[float, float]]:
    """The dimensions that correspond to `dimension` one to one (a text of 20 pairs is always as long), each with its
    value per value of `dimension`."""
    corresponding = {}
    for name in dimension_columns(groups):
        pairs = groups.loc[groups[name].notna(), [dimension, name]].drop_duplicates()
        unique = all(pairs.iloc[:, k].is_unique for k in (0, 1)) and pairs.iloc[:, 0].notna().all()
        if name != dimension and len(pairs) > 1 and unique:
            corresponding[name] = dict(pairs.itertuples(index=False, name=None))
    return corresponding


def scores_along(groups: pd.DataFrame, metric: Metric, *names: str) -> pd.DataFrame:
    """The scores along `names`, over all other dimensions: row, longer, *names, score (NaN where one of the groups is
    not finite)."""
    return weighted_means(groups.dropna(subset=list(names)), ["row", "longer", *names], metric)


def column_values(groups: pd.DataFrame, name: str) -> list[tuple[bool, float]]:
    """(longer, value) along a dimension, those of test before those of length_generalization."""
    pairs = groups.loc[groups[name].notna(), ["longer", name]].drop_duplicates()
    return sorted((bool(longer), float(value)) for longer, value in pairs.itertuples(index=False))


def trained_length(groups: pd.DataFrame) -> float:
    """The longest question of test, which is the longest in training; NaN where groups do not differ in length."""
    return groups.loc[~groups["longer"], LENGTH].max() if LENGTH in groups else math.nan


# -- as text -------------------------------------------------------------------------------------------------------


def format_number(value: float) -> str:
    """64 -> "64", 0.25 -> "0.25"."""
    return f"{round(value, 4):g}" if abs(value) < 1e5 else f"{value:.0f}"


def value_label(groups: pd.DataFrame, dimension: str, value: float) -> str:
    """A value, with those that correspond to it: "320 (16 pairs)"."""
    if dimension == POSITION:
        return {0.0: "first", 0.25: "¼", 0.5: "½", 0.75: "¾", 1.0: "last"}.get(value, format_number(value))
    also = [f"{format_number(values[value])} {name}" for name, values in matching_dimensions(groups, dimension).items()]
    return f"{format_number(value)} ({', '.join(also)})" if also else format_number(value)


def length_factor(length: float, trained: float) -> str:
    """ "×2" for a length of twice the trained one; empty where there is none to compare."""
    return "" if math.isnan(trained) else f"×{round(length / trained, 1):g}"


def format_longer(row: pd.Series, groups: pd.DataFrame, metric: Metric) -> str:
    """ "×2 93.1 %, ×4 71.0 %": a row's scores along lengths beyond training, or over all of length_generalization, or
    why there are none. `groups` are those of the section, averaged."""
    if math.isnan(row["score"]):
        return ""
    if not row["evaluated_longer"]:
        return NOT_DEFINED
    own = groups[groups["row"] == row.name]
    if LENGTH not in dimension_columns(own[own["longer"]]):
        return metric.format(row[LENGTH_GENERALIZATION])
    trained = trained_length(own)
    texts = []
    for group in scores_along(own[own["longer"]], metric, LENGTH).to_dict("records"):
        where = length_factor(group[LENGTH], trained) or f"length {format_number(group[LENGTH])}:"
        texts.append(f"{where} {metric.format(group['score'])}")
    return ", ".join(texts)
