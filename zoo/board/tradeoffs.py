"""Charts of the score against what it costs: the time of training, the size of the state; with the Pareto front."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, get_args

import altair as alt

from zoo.board.charts import BLACK, GREY, MUTED, Rows, chart_title, inline_data, score_scale, styled
from zoo.board.families import FamilyMarks, families_of
from zoo.board.headings import section_title
from zoo.board.labels import SIZE, Align, Axis, place_names
from zoo.board.metric import Metric
from zoo.board.results import Section
from zoo.board.tables import row_label
from zoo.board.takeaways import STATE, TIME, Cost
from zoo.board.words import OBJECTIVES

WIDTH, HEIGHT = 420, 270
"""Of a panel, in pixels."""
POINT = 65
"""The area of a point, in square pixels."""
REMARK = 75
"""Characters of a line above a panel."""


def cost_chart(sections: Sequence[Section], families: Sequence[str] = ()) -> Any:
    """Task by task the score against the time of training, and the Pareto front; None where there is none to draw.
    `families` are those that have a mark of their own in all charts beside it; empty: those of the sections."""
    return _tradeoffs(sections, families, TIME, "training, seconds per 1,000 examples (log scale)", "not measured")


def state_chart(sections: Sequence[Section], families: Sequence[str] = ()) -> Any:
    """Task by task the score against the numbers that are carried through a sequence, of recall tasks; None where there
    is nothing to draw."""
    title = "state, numbers per sequence (log scale)"
    return _tradeoffs(sections, families, STATE, title, "without a state of fixed size")


def _tradeoffs(sections: Sequence[Section], families: Sequence[str], cost: Cost, title: str, absent: str) -> Any:
    """A panel for each task on which two ranked rows or more have a value, under a legend of the families."""
    drawn = []
    for section in sections:
        values = cost.values(section)
        shown = section.rows.loc[values.index]
        points: Rows = [
            {"x": float(value), "label": row_label(row)}
            | {name: row[name] for name in ("name", "family", "score", "low", "high")}
            for value, (_, row) in zip(values, shown.iterrows(), strict=True)
        ]
        if len(points) > 1:
            drawn.append((section, points))
    if not drawn:
        return None
    marks = FamilyMarks(families or families_of(sections))
    panels = [_panel(section, points, marks, title, absent) for section, points in drawn]
    chart = alt.concat(*panels, columns=2, spacing=26).resolve_scale(fill="shared", shape="shared", stroke="shared")
    return styled(chart)


def _panel(section: Section, points: Rows, families: FamilyMarks, title: str, absent: str) -> Any:
    metric = section.metric
    usual = OBJECTIVES[section.rows["objective"].mode().iloc[0]]  # named once, above, rather than at each point
    for point in points:
        point["label"] = point["label"].removesuffix(f" ({usual})")
        score = metric.format_with(point["score"], point["low"], point["high"])
        point["tip"] = f"{point['label']} ({point['family']}): {score}; {title}: {point['x']:,.3g}"
    front = pareto_front(points, metric)
    marks: Rows = [point | {"front": point in front} for point in points]
    ends = [end for point in points for end in (point["score"], point["low"], point["high"]) if math.isfinite(end)]
    xs, ys = Axis([point["x"] for point in points], log=True), _score_axis(ends, metric)
    scale = alt.Scale(type="log", domain=[xs.low, xs.high], nice=False)
    axis = alt.Axis(format="~s" if xs.high > 1000 else "~g", tickCount=4, grid=False)
    x = alt.X("x:Q", title=title, scale=scale, axis=axis)
    scale = alt.Scale(type="log" if ys.log else "linear", domain=[ys.low, ys.high], zero=False, nice=False)
    y, low = (
        alt.Y(f"{end}:Q", title=None, **score_scale(metric, [], ticks=5)).scale(scale) for end in ("score", "low")
    )
    named = _named(marks, xs, ys)
    far = alt.Chart(inline_data([row for row in named if row["far"]]))
    bars = alt.Chart(inline_data([mark for mark in marks if math.isfinite(mark["low"])]))
    legend = alt.Legend(title="family", columns=5, columnPadding=24, symbolStrokeWidth=0.8, symbolSize=POINT)
    layers = [
        bars.encode(x=x, y=low, y2="high:Q").mark_rule(strokeWidth=1, color=GREY, opacity=0.55),
        alt.Chart(inline_data(front))
        .encode(x=x, y=y)
        .mark_line(interpolate="step-after", strokeWidth=1.2, strokeDash=[4, 3], color=BLACK),
        far.encode(x=x, y=y, x2="at_x:Q", y2="at_y:Q").mark_rule(strokeWidth=1, strokeDash=[1, 2], color=GREY),
        alt.Chart(inline_data(marks))
        .encode(x=x, y=y, description="tip:N", **families.encode(legend, BLACK))
        .mark_point(size=POINT, opacity=1, strokeWidth=0.8),
    ]
    for align in get_args(Align):
        own = alt.Chart(inline_data([row for row in named if row["align"] == align]))
        names = own.encode(x=alt.X("at_x:Q"), y=alt.Y("at_y:Q"), text="label:N")
        bold = alt.expr("datum.front ? 'bold' : 'normal'")
        style: dict[str, Any] = {"align": align, "baseline": "middle", "fontSize": SIZE, "fontWeight": bold}
        layers.append(names.mark_text(stroke="white", strokeWidth=3, **style))
        layers.append(names.mark_text(**style).encode(color=alt.Color("ink:N", scale=None)))
    ranked = section.rows[section.rows["rank"].notna()]
    missing = [name for name in ranked["name"] if name not in {point["name"] for point in points}]
    other = ", but where a name says another" if section.rows["objective"].nunique() > 1 else ""
    remarks = [
        "dashed line, bold names: none is both better and further left",
        f"objective: {usual}{other}" if usual != OBJECTIVES["classify"] else "",
        f"{absent}: {', '.join(missing)}" if missing else "",
    ]
    head = f"{section.protocol}: {section_title(section)}, {metric.title}"
    heading = chart_title(section, head, *(line for each in remarks for line in textwrap.wrap(each, REMARK)))
    return alt.layer(*(layer for layer in layers if layer.data.values)).properties(
        width=WIDTH, height=HEIGHT, title=heading
    )


def _score_axis(scores: Sequence[float], metric: Metric) -> Axis:
    if metric.is_share:
        # as far as the scores go, so that near ones stay distinguishable; 10 points at least
        return Axis([*scores, max(max(scores) - 0.1, 0.0)], log=False, floor=0.0, ceiling=1.0)
    return Axis(scores, log=metric.kind == "perplexity" and max(scores) > 3 * min(scores))


def _named(marks: Rows, xs: Axis, ys: Axis) -> Rows:
    """The marks whose names have room, with the place of the name on the axes; those of the front choose first."""
    first = sorted(marks, key=lambda mark: (not mark["front"], marks.index(mark)))
    points = [(WIDTH * xs.share(mark["x"]), HEIGHT * (1 - ys.share(mark["score"]))) for mark in first]
    places = place_names(points, [mark["label"] for mark in first], sum(mark["front"] for mark in marks), WIDTH, HEIGHT)
    return [
        mark
        | {"at_x": xs.at(place.x / WIDTH), "at_y": ys.at(1 - place.y / HEIGHT)}
        | {"align": place.align, "far": place.far, "ink": BLACK if mark["front"] else MUTED}
        for mark, place in zip(first, places, strict=True)
        if place
    ]


def pareto_front(points: Rows, metric: Metric) -> Rows:
    """The points (`x`, `score`) than which no other has both less x and a better score, by x."""
    front: Rows = []
    sign = 1 if metric.higher_is_better else -1
    for point in sorted(points, key=lambda point: (point["x"], -sign * point["score"])):
        if not front or sign * point["score"] > sign * front[-1]["score"]:
            front.append(point)
    return front
