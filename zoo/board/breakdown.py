"""What the test questions of a task are told apart by (length, pairs, depth, position …), and scores along that.

Everything is of the ranked metric. In training and in test the questions are of the same kind; the split
"length_generalization" has
test questions that are longer or harder, and stand apart wherever they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.board.rows import Point, Row
from zoo.board.scale import Scale

LENGTH = "length"
POSITION = "position"
"""Counted from 0 to the last; compared as the part of the way to the last, since texts differ in how many there are."""
NOT_DEFINED = "not defined"
"""Said of an architecture that has no form for lengths beyond those it was built for."""


@dataclass(frozen=True, order=True)
class Column:
    """A value of a dimension, in test or beyond."""

    beyond: bool
    value: float


def number(value: float) -> str:
    """64 -> "64", 0.25 -> "0.25"."""
    return f"{round(value, 4):g}" if abs(value) < 1e5 else f"{value:.0f}"


def points_of(rows: Iterable[Row], *, coarse: bool = False) -> list[Point]:
    """All parts that any of the rows has, positions from 0 to 1; `coarse`: in quarters, so that texts with more and
    with fewer positions have the same."""
    return [point for row in rows for point in _placed(row.points, coarse)]


def _placed(points: Sequence[Point], coarse: bool) -> list[Point]:
    last: dict[tuple[object, ...], float] = {}
    for point in points:
        where = dict(point.where)
        if POSITION in where:
            key = _text_of(point)
            last[key] = max(last.get(key, 0.0), where[POSITION])
    found = []
    for point in points:
        where = dict(point.where)
        if POSITION in where:
            where[POSITION] /= last[_text_of(point)] or 1.0
            if coarse:
                where[POSITION] = math.floor(4 * where[POSITION] + 0.5) / 4
            point = replace(point, where=tuple(sorted(where.items())))
        found.append(point)
    return found


def _text_of(point: Point) -> tuple[object, ...]:
    """What a part has in common with those that differ from it in position only."""
    return (point.beyond, tuple(item for item in point.where if item[0] != POSITION))


def dimensions(rows: Sequence[Row]) -> list[str]:
    """What the parts differ in: length first, the others by name. Of two that go together always, the first."""
    values: dict[str, set[float]] = {}
    for point in points_of(rows):
        for name, value in point.where:
            values.setdefault(name, set()).add(value)
    names = (name for name, found in values.items() if len(found) > 1)
    kept: list[str] = []
    for name in sorted(names, key=lambda name: (name != LENGTH, name)):
        if not any(name in twins(rows, other) for other in kept):
            kept.append(name)
    return kept


def twins(rows: Iterable[Row], dimension: str) -> dict[str, dict[float, float]]:
    """What goes together with a dimension always (a text of 20 pairs is always as long), with its value per value of
    the dimension."""
    pairs: dict[str, set[tuple[float, float]]] = {}
    for point in points_of(rows):
        where = dict(point.where)
        for name, value in point.where:
            pairs.setdefault(name, set()).add((where.get(dimension, math.nan), value))
    found = {}
    for name, seen in sorted(pairs.items()):
        one_to_one = len({a for a, _ in seen}) == len({b for _, b in seen}) == len(seen) > 1
        if name != dimension and one_to_one and not any(math.isnan(a) for a, _ in seen):
            found[name] = dict(seen)
    return found


def label(rows: Iterable[Row], dimension: str, value: float) -> str:
    """A value, with those that go together with it: "320 (16 pairs)"."""
    if dimension == POSITION:
        return {0.0: "first", 0.25: "¼", 0.5: "½", 0.75: "¾", 1.0: "last"}.get(value, number(value))
    also = [f"{number(values[value])} {name}" for name, values in twins(rows, dimension).items()]
    return f"{number(value)} ({', '.join(also)})" if also else number(value)


def columns(rows: Iterable[Row], dimension: str, *, coarse: bool = False) -> list[Column]:
    """The values of a dimension, those of test before those beyond."""
    points = points_of(rows, coarse=coarse)
    return sorted({Column(point.beyond, value) for point in points for name, value in point.where if name == dimension})


def trained_length(rows: Iterable[Row]) -> float | None:
    """The longest question of test, which is the longest in training; None where length tells nothing apart."""
    return max((column.value for column in columns(rows, LENGTH) if not column.beyond), default=None)


def along(
    row: Row, dimension: str, fixed: Mapping[str, float] | None = None, *, coarse: bool = False
) -> dict[Column, float | None]:
    """The row's scores along a dimension, of the parts that have the `fixed` values; what else the parts differ in is
    put together. None where a part's score was not finite."""
    parts: dict[Column, list[Point]] = {}
    for point in points_of([row], coarse=coarse):
        where = dict(point.where)
        if dimension in where and all(where.get(name) == value for name, value in (fixed or {}).items()):
            parts.setdefault(Column(point.beyond, where[dimension]), []).append(point)
    return {column: together(points, row.scale) for column, points in sorted(parts.items())}


def together(points: Sequence[Point], scale: Scale) -> float | None:
    """The score over several parts."""
    scores = [point.score for point in points if point.score is not None]
    if len(scores) < len(points):
        return None
    return scale.mean(scores, [point.weight for point in points])


def times(column: Column, trained: float | None) -> str:
    """ "×2" of a length beyond the trained one; empty where there is nothing to be compared."""
    return f"×{round(column.value / trained, 1):g}" if column.beyond and trained else ""


def beyond_text(row: Row) -> str:
    """ "×2 93.1 %, ×4 71.0 %": the scores over length beyond training, or over all of beyond, or why there are none."""
    if not row.estimate:
        return ""
    if not row.defined:
        return NOT_DEFINED
    trained = trained_length([row])
    far = {column: score for column, score in along(row, LENGTH).items() if column.beyond}
    if not far:
        return row.scale.text(row.beyond)
    return ", ".join(
        f"{times(column, trained) or f'length {number(column.value)}:'} {row.scale.text(score)}"
        for column, score in far.items()
    )


def profiles(rows: Sequence[Row], dimension: str) -> list[tuple[Row, Mapping[Column, float | None]]]:
    """The rows that have parts, each with its scores along a dimension, positions in quarters."""
    return [(row, along(row, dimension, coarse=True)) for row in rows if row.points]
