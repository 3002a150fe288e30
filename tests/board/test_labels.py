"""Names in charts: none over another, near what they name."""

from __future__ import annotations

import itertools
import math
import random
import re
from typing import Any

import pytest

from tests.board.samples import mqar, sections
from zoo.board.charts import to_svg
from zoo.board.labels import SIZE, Axis, place_names, spread, text_width
from zoo.board.part import lines_chart
from zoo.board.tradeoffs import state_chart

Box = tuple[float, float, float, float]


def box(x: float, y: float, align: str, name: str) -> Box:
    """The place of a name whose `align` end stands at (x, y)."""
    width = text_width(name)
    left = x - width * {"left": 0.0, "start": 0.0, "center": 0.5, "middle": 0.5}.get(align, 1.0)
    return left, y - SIZE / 2, left + width, y + SIZE / 2


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_names_of_near_points_neither_cover_each_other_nor_a_point() -> None:
    points = [(100 + 9 * (k % 4), 100 + 7 * (k // 4)) for k in range(6)]
    names = [f"architecture {k}" for k in range(6)]
    places = place_names(points, names, 0, 420, 270)
    boxes = [box(at.x, at.y, at.align, name) for at, name in zip(places, names, strict=True) if at]
    assert len(boxes) == 6
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    assert not any(overlap(box, (x, y, x, y)) for box in boxes for x, y in points)
    assert all(box[0] >= 0 and box[2] <= 420 and box[3] <= 270 for box in boxes)


def test_a_name_without_a_line_is_nearest_to_its_own_point() -> None:
    """Of two points side by side, a name between them would be read as the other's."""
    generator = random.Random(0)
    points = [(generator.uniform(0, 420), generator.uniform(0, 270)) for _ in range(30)]
    names = [f"architecture {k}" for k in range(30)]

    def distance(at: tuple[float, float], to: Box) -> float:
        return math.hypot(max(to[0] - at[0], 0, at[0] - to[2]), max(to[1] - at[1], 0, at[1] - to[3]))

    near = 0
    for point, name, at in zip(points, names, place_names(points, names, 0, 420, 270), strict=True):
        if at and not at.far:
            near += 1
            own = box(at.x, at.y, at.align, name)
            assert min(points, key=lambda other: distance(other, own)) == point
    assert near >= 5


def test_a_lone_name_stands_beside_its_point_and_one_without_room_is_left_out() -> None:
    (at,) = place_names([(50, 50)], ["s4"], 0, 100, 100)
    assert at
    assert (at.x, at.y, at.align, at.far) == (pytest.approx(56.4), pytest.approx(43.6), "left", False)
    assert place_names([(5, 5)], ["a name that is wider than the panel"], 0, 100, 100) == [None]
    many = place_names([(50, 50)] * 40, ["name"] * 40, 0, 100, 100)
    assert many[0]
    assert many[-1] is None


def test_names_at_the_ends_of_lines_are_spread_in_order_and_within_the_panel() -> None:
    assert spread([50, 10, 90], 12, 0, 100) == [50, 10, 90]
    assert spread([50, 50, 50], 10, 0, 100) == [40, 50, 60]
    assert spread([99, 100, 0], 10, 0, 100) == [90, 100, 0]
    assert spread([], 10, 0, 100) == []


def test_an_axis_goes_a_little_beyond_the_values_but_not_beyond_its_bounds() -> None:
    axis = Axis([1, 100], log=True)
    assert axis.low < 1 < 100 < axis.high
    assert (axis.share(10), axis.at(0.5)) == (pytest.approx(0.5), pytest.approx(10))
    assert (Axis([0, 1], log=False, floor=0, ceiling=1).low, Axis([0.9, 1], log=False, ceiling=1).high) == (0, 1)
    assert Axis([3], log=False).low < 3 < Axis([3], log=False).high


def texts(chart: Any) -> dict[str, tuple[float, float]]:
    """Where the texts of size 10 with a colour stand, by what they say."""
    found = re.findall(r'<text[^>]* transform="translate\(([\d.-]+),([\d.-]+)\)"[^>]*>([^<]+)</text>', to_svg(chart))
    return {text: (float(x), float(y)) for x, y, text in found}


def test_every_line_is_named_once_at_its_end() -> None:
    lines = {name: [(64.0, 1.0), (128.0, 2.0)] for name in ("alpha", "beta")} | {"early": [(64.0, 5.0)]}
    at = texts(lines_chart([("a title", "time", "s", lines)], "tokens"))
    assert at["alpha"][0] == at["beta"][0] > 460
    assert abs(at["alpha"][1] - at["beta"][1]) >= SIZE
    assert at["early"][0] < 100
    assert "10s" not in at  # less than a power of ten apart: ticks between
    assert "2s" in at


def test_equal_points_of_a_scatter_chart_are_named_apart() -> None:
    records = [mqar(name, 0.9, None, state_size=256) for name in ("alpha", "beta", "gamma")]
    chart = state_chart(sections(records))
    svg = to_svg(chart)
    pattern = (
        r'<text[^>]* text-anchor="(\w+)" transform="translate\(([\d.-]+),([\d.-]+)\)"[^>]*>(alpha|beta|gamma)</text>'
    )
    found = {name: box(float(x), float(y), align, name) for align, x, y, name in re.findall(pattern, svg)}
    assert set(found) == {"alpha", "beta", "gamma"}
    assert not any(overlap(a, b) for a, b in itertools.combinations(found.values(), 2))
    assert svg == to_svg(state_chart(sections(records)))
