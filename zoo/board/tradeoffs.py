"""Charts of the score against what it costs: the time of training, the size of the state; with the Pareto front."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, get_args

import altair as alt
import pandas as pd

from zoo.board.charts import BLUE, GREY, MUTED, Rows, chart_title, inline_data, score_scale, styled
from zoo.board.labels import SIZE, Align, Axis, place_names
from zoo.board.metric import Metric
from zoo.board.results import Section
from zoo.board.tables import row_label, section_title

WIDTH, HEIGHT = 420, 270
"""Of a panel, in pixels."""
REMARK = 75
"""Characters of a line above a panel."""


def cost_chart(sections: Sequence[Section]) -> Any:
    """Task by task the score against the time of training, and the Pareto front; None where there is none to draw."""
    seconds = [pd.Series([1000 * c.train.seconds if c else math.nan for c in s.rows["cost"]]) for s in sections]
    return _tradeoffs(sections, seconds, "training, seconds per 1,000 examples (log scale)", "not measured")


def state_chart(sections: Sequence[Section]) -> Any:
    """Task by task the score against the numbers that are carried through a sequence, of recall tasks; None where there
    is nothing to draw."""
    recall = [section for section in sections if section.rows["kind"].eq("recall").all()]
    sizes = [section.rows["state_size"] for section in recall]
    return _tradeoffs(recall, sizes, "state, numbers per sequence (log scale)", "without a state of fixed size")


def _tradeoffs(sections: Sequence[Section], along: Sequence[pd.Series], title: str, absent: str) -> Any:
    """A panel for each task on which two ranked rows or more have a value."""
    panels = []
    for section, values in zip(sections, along, strict=True):
        points: Rows = [
            {"x": float(value), "score": row["score"], "name": row["name"], "label": row_label(row)}
            for value, (_, row) in zip(values, section.rows.iterrows(), strict=True)
            if section.current and not pd.isna(row["rank"]) and not pd.isna(value) and value > 0
        ]
        if len(points) > 1:
            panels.append(_panel(section, points, title, absent))
    return styled(alt.concat(*panels, columns=2, spacing=26)) if panels else None


def _panel(section: Section, points: Rows, title: str, absent: str) -> Any:
    metric = section.metric
    usual = section.rows["objective"].mode().iloc[0]  # named once, above, rather than at each point
    for point in points:
        point["label"] = point["label"].removesuffix(f" ({usual})")
        point["tip"] = f"{point['label']}: {metric.format(point['score'])}; {title}: {point['x']:,.3g}"
    front = pareto_front(points, metric)
    marks: Rows = [point | {"color": BLUE if point in front else GREY} for point in points]
    xs, ys = Axis([point["x"] for point in points], log=True), _score_axis([p["score"] for p in points], metric)
    scale = alt.Scale(type="log", domain=[xs.low, xs.high], nice=False)
    axis = alt.Axis(format="~s" if xs.high > 1000 else "~g", tickCount=4, grid=False)
    x = alt.X("x:Q", title=title, scale=scale, axis=axis)
    y = alt.Y("score:Q", title=None, **score_scale(metric, [], ticks=5))
    y = y.scale(type="log" if ys.log else "linear", domain=[ys.low, ys.high], zero=False, nice=False)
    color = alt.Color("color:N", scale=None)
    named = _named(marks, xs, ys)
    far = alt.Chart(inline_data([row for row in named if row["far"]]))
    layers = [
        alt.Chart(inline_data(front))
        .encode(x=x, y=y)
        .mark_line(interpolate="step-after", strokeWidth=1.2, strokeDash=[4, 3], color=BLUE),
        far.encode(x=x, y=y, x2="at_x:Q", y2="at_y:Q").mark_rule(strokeWidth=0.7, color=GREY),
        alt.Chart(inline_data(marks))
        .encode(x=x, y=y, color=color, description="tip:N")
        .mark_point(filled=True, size=45, opacity=1),
    ]
    for align in get_args(Align):
        own = alt.Chart(inline_data([row for row in named if row["align"] == align]))
        names = own.encode(x=alt.X("at_x:Q"), y=alt.Y("at_y:Q"), text="label:N")
        style: dict[str, Any] = {"align": align, "baseline": "middle", "fontSize": SIZE}
        layers.append(names.mark_text(stroke="white", strokeWidth=3, **style))
        layers.append(names.mark_text(**style).encode(color=alt.Color("ink:N", scale=None)))
    ranked = section.rows[section.rows["rank"].notna()]
    missing = [name for name in ranked["name"] if name not in {point["name"] for point in points}]
    other = ", but where a name says another" if section.rows["objective"].nunique() > 1 else ""
    remarks = [
        "blue: none is both better and further left",
        f"objective: {usual}{other}" if usual != "classify" else "",
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
    first = sorted(marks, key=lambda mark: (mark["color"] != BLUE, marks.index(mark)))
    points = [(WIDTH * xs.share(mark["x"]), HEIGHT * (1 - ys.share(mark["score"]))) for mark in first]
    places = place_names(points, [mark["label"] for mark in first], WIDTH, HEIGHT)
    return [
        mark
        | {"at_x": xs.at(place.x / WIDTH), "at_y": ys.at(1 - place.y / HEIGHT)}
        | {"align": place.align, "far": place.far, "ink": BLUE if mark["color"] == BLUE else MUTED}
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
