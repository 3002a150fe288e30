"""Where to write the names of points and lines in a chart, so that none covers another. Pixels, y downwards.

Vega's own transform for this (`label`) measures on a canvas, which vl-convert does not have.
"""

from __future__ import annotations

import math
import random
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
DISTANCES = (8, 14, 22, 32, 44, 58)
DIRECTIONS = (
    *((0.8, -0.8), (1, 0), (0.8, 0.8), (0, -1.2), (0, 1.2), (-0.8, -0.8), (-1, 0), (-0.8, 0.8)),
    *((0.4, -1.1), (0.4, 1.1), (-0.4, -1.1), (-0.4, 1.1)),
)
"""Of the name from its point, the usual one first: above to the right."""
LINE = (0.2, 0.4, 0.6, 0.8)
"""Shares of a line from a point to its name where it is checked for what it runs over."""
ORDERS = 30
"""In so many orders do the points of a panel choose; the best is kept."""
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

    def covers(self, x: float, y: float) -> bool:
        return self.left < x < self.right and self.top < y < self.bottom

    def distance(self, x: float, y: float) -> float:
        """Of a point from the nearest edge; 0 inside."""
        return math.hypot(max(self.left - x, 0, x - self.right), max(self.top - y, 0, y - self.bottom))

    def overlaps(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


class _Candidate(NamedTuple):
    """A place of a name, what it covers, and points along the line to it."""

    place: Place
    box: _Box
    way: tuple[tuple[float, float], ...]

    def conflicts(self, other: _Candidate) -> bool:
        return (
            self.box.overlaps(other.box)
            or any(other.box.covers(*at) for at in self.way)
            or any(self.box.covers(*at) for at in other.way)
        )


def text_width(text: str) -> float:
    """The most that a text of `SIZE` takes, in pixels."""
    em = {char: width for chars, width in WIDTHS.items() for char in chars}
    return WIDER * SIZE * sum(em.get(char, OTHERS) for char in text)


def place_names(
    points: Sequence[tuple[float, float]], names: Sequence[str], first: int, width: float, height: float
) -> list[Place | None]:
    """Where to write the name of each point of a panel: near it, over no other point or name, and, without a line to
    it, nearer to it than to any other point; None where there is no room left. The names stay within the panel, or just
    above it.

    first  so many points choose their places before the others
    """
    free = [_free_places(points, k, text_width(name), width, height) for k, name in enumerate(names)]
    order, generator = list(range(len(points))), random.Random(0)
    best: tuple[int, int] = (len(points) + 1, 0)
    for _ in range(ORDERS):
        chosen = _choose(free, sorted(order, key=lambda k: k >= first))
        cost = (chosen.count(None), sum(at for at in chosen if at))
        if cost < best:
            best, places = cost, [None if at is None else free[k][at].place for k, at in enumerate(chosen)]
        generator.shuffle(order)
    return places


def _choose(free: Sequence[Sequence[_Candidate]], order: Sequence[int]) -> list[int | None]:
    """Which of its free places each point takes, if each takes the first that those before it leave."""
    taken: list[_Candidate] = []
    chosen: list[int | None] = [None] * len(free)
    for k in order:
        for at, one in enumerate(free[k]):
            if not any(one.conflicts(other) for other in taken):
                taken.append(one)
                chosen[k] = at
                break
    return chosen


def _free_places(
    points: Sequence[tuple[float, float]], k: int, name_width: float, width: float, height: float
) -> list[_Candidate]:
    """Places of point k's name within the panel and clear of all points, whatever the other names do; best first."""
    x, y = points[k]
    others = [at for at in points if at != (x, y)]
    free = []
    for place, box in _candidates(x, y, name_width):
        way = tuple((x + t * (place.x - x), y + t * (place.y - y)) for t in LINE) if place.far else ()
        own = box.distance(x, y)
        clear = 1.5 * DOT if place.far else own + DOT / 2
        inside = box.left >= 0 and box.right <= width and box.top >= -SIZE - DOT and box.bottom <= height
        crosses = any(math.dist(at, along) < 1.5 * DOT for at in others for along in way)
        if inside and own >= DOT and not crosses and all(box.distance(*at) >= clear for at in others):
            free.append(_Candidate(place, box, way))
    return free


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
