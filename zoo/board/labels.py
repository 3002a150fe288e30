"""Where to write the names of points and lines in a chart, so that none covers another. Pixels, y downwards.

Vega's own transform for this (`label`) measures on a canvas, which vl-convert does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

SIZE = 10
"""Of the font, in pixels."""
WIDTHS = {"ijl|'": 0.22, "ft .,:;!/[]I": 0.28, "r()-": 0.33, "ckszvxyJ": 0.5, "wCDHNRU": 0.72, "mMWGOQ%=": 0.83}
"""Advance widths of Liberation Sans in ems, rounded; of any other character `OTHERS`."""
OTHERS = 0.56
WIDER = 1.15
"""Room for the fonts of viewers that do not have Liberation Sans."""
DISTANCES = (8, 14, 22, 32, 44)
DIRECTIONS = ((0.8, -0.8), (1, 0), (0.8, 0.8), (0, -1.2), (0, 1.2), (-0.8, -0.8), (-1, 0), (-0.8, 0.8))
"""Of the name from its point, the usual one first: above to the right."""
DOT = 4
"""Radius that a point keeps free around itself."""

Align = Literal["left", "center", "right"]


class Axis:
    """A scale from `low` to `high`: a little more than the values, so that no point lies on the edge."""

    def __init__(self, values: Sequence[float], *, log: bool, floor: float = -math.inf, ceiling: float = math.inf):
        self.log = log
        low, high = map(self._to, (min(values), max(values)))
        margin = 0.06 * (high - low) or 0.1
        self.low, self.high = max(self._from(low - margin), floor), min(self._from(high + margin), ceiling)

    def _to(self, value: float) -> float:
        return math.log(value) if self.log else value

    def _from(self, value: float) -> float:
        return math.exp(value) if self.log else value

    def share(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        low, high = self._to(self.low), self._to(self.high)
        return (self._to(value) - low) / (high - low)

    def at(self, share: float) -> float:
        """The inverse of `share`, to six digits: the same on every machine."""
        low, high = self._to(self.low), self._to(self.high)
        return float(f"{self._from(low + share * (high - low)):.6g}")


class Place(NamedTuple):
    """Where a name ends on the side of its point, at half its height; `align` says which end that is, and `far` whether
    it needs a line to its point."""

    x: float
    y: float
    align: Align
    far: bool


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def covers(self, x: float, y: float, margin: float = 0) -> bool:
        return self.left - margin < x < self.right + margin and self.top - margin < y < self.bottom + margin

    def overlaps(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def text_width(text: str) -> float:
    """The most that a text of `SIZE` takes, in pixels."""
    em = {char: width for chars, width in WIDTHS.items() for char in chars}
    return WIDER * SIZE * sum(em.get(char, OTHERS) for char in text)


def place_names(
    points: Sequence[tuple[float, float]], names: Sequence[str], width: float, height: float
) -> list[Place | None]:
    """Where to write the name of each point of a panel: near it, and over no other point or name. The first points
    choose first; None where there is no room left. The names stay within the panel, or just above it."""
    boxes: list[_Box] = []
    lines: list[tuple[float, float]] = []  # places along the lines from points to names
    places: list[Place | None] = []
    for (x, y), name in zip(points, names, strict=True):
        places.append(None)
        for place, box in _candidates(x, y, text_width(name)):
            way = [(x + t * (place.x - x), y + t * (place.y - y)) for t in (0.3, 0.5, 0.7, 0.9)] * place.far
            inside = box.left >= 0 and box.right <= width and box.top >= -SIZE - DOT and box.bottom <= height
            if (
                inside
                and not any(box.overlaps(other) or any(other.covers(*at) for at in way) for other in boxes)
                and not any(box.covers(*at, margin=DOT) for at in points)
                and not any(box.covers(*at) for at in lines)
            ):
                boxes.append(box)
                lines += way
                places[-1] = place
                break
    return places


def _candidates(x: float, y: float, width: float) -> Iterator[tuple[Place, _Box]]:
    for distance in DISTANCES:
        for right, down in DIRECTIONS:
            end, middle = x + distance * right, y + distance * down
            left = end if right > 0 else end - width if right < 0 else end - width / 2
            align: Align = "left" if right > 0 else "right" if right < 0 else "center"
            box = _Box(left, middle - SIZE / 2 - 1, left + width, middle + SIZE / 2 + 1)
            yield Place(end, middle, align, distance > DISTANCES[0]), box


def spread(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions nearest to the targets (least squares), in their order, `gap` apart and from `low` to `high`. With too
    many for that the last ones exceed `high`."""
    order = np.argsort(targets, kind="stable")
    steps = gap * np.arange(len(targets))
    placed = isotonic_regression(np.asarray(targets, dtype=float)[order] - steps).x if len(targets) else steps
    result = np.empty(len(targets))
    result[order] = np.clip(placed, low, max(high - gap * (len(targets) - 1), low)) + steps
    return result.tolist()
