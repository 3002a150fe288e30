"""Charts of what single runs did: learning curves, and how far rows agree on the test questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd

from zoo.board.charts import (
    BLACK,
    BLUE,
    COLORS,
    GREY,
    HEIGHT,
    ORANGE,
    WHITE,
    WIDTH,
    chart_title,
    inline_data,
    row_labels,
    score_scale,
    styled,
)
from zoo.board.headings import majority_word, section_title
from zoo.board.paired import measure_agreement
from zoo.board.results import Section
from zoo.board.runs import validations
from zoo.spec.store import StoredRecord

Along = Literal["samples", "seconds"]


def validation_curve(section: Section, row: pd.Series, stored: Sequence[StoredRecord]) -> pd.DataFrame:
    """The validation score of a row during training, over its seeds: samples, seconds (their mean), score (the metric's
    mean), low and high (of the seeds), one line per validation."""
    points = [
        {"samples": point.samples, "seconds": point.seconds, "score": point.metric}
        for run in row["runs"]
        for point in validations(stored[run].record)
    ]
    curve = pd.DataFrame(points, columns=["samples", "seconds", "score"], dtype="float64")
    by_step = curve.groupby("samples")
    means = by_step["score"].agg(lambda scores: section.metric.mean(list(scores)))
    ends = by_step["score"].agg(["min", "max"]).set_axis(["low", "high"], axis="columns")
    return ends.assign(score=means, seconds=by_step["seconds"].mean()).reset_index()


def learning_curves(section: Section, stored: Sequence[StoredRecord], along: Along) -> Any:
    """A panel per ranked row: the validation score by samples or by seconds, of several seeds their mean with a band
    from the worst to the best; None where no run says. `stored` are the records of the board."""
    ranked = section.rows[section.rows["rank"].notna()]
    labels = row_labels(ranked)
    curves = {labels[index]: validation_curve(section, row, stored) for index, row in ranked.iterrows()}
    marks = [
        {"panel": label, "x": point[along], "score": point["score"], "low": point["low"], "high": point["high"]}
        for label, curve in curves.items()
        for point in curve.to_dict("records")
    ]
    if not marks:
        return None
    lines = ((section.chance, GREY, "chance"), (section.majority, ORANGE, majority_word(section)))
    known = [(score, color, word) for score, color, word in lines if not math.isnan(score)]
    marks += [
        {"panel": label, "line": score, "color": color}
        for label, curve in curves.items()
        for score, color, _ in known
        if len(curve)
    ]
    scores = [mark[key] for mark in marks for key in ("score", "low", "high") if key in mark]
    scale = score_scale(section.metric, scores, ticks=3)
    x = alt.X("x:Q", title=along, axis=alt.Axis(format="~s", tickCount=3, grid=False))
    points = alt.Chart().transform_filter("isValid(datum.score)")
    y = alt.Y("score:Q", title=None, **scale)
    layers = [
        alt.Chart()
        .transform_filter("isValid(datum.line)")
        .mark_rule(strokeDash=[4, 3])
        .encode(y=alt.Y("line:Q", title=None, **scale), color=alt.Color("color:N", scale=None)),
        points.mark_area(opacity=0.25, color=BLUE).encode(x=x, y=alt.Y("low:Q", title=None, **scale), y2="high:Q"),
        points.mark_line(strokeWidth=1.6, color=BLUE).encode(x=x, y=y),
        points.mark_point(filled=True, size=14, opacity=1, color=BLUE).encode(x=x, y=y),
    ]
    header: dict[str, Any] = {"labelAnchor": "start", "labelFontWeight": "bold", "labelLimit": 200, "labelFontSize": 11}
    facet = alt.Facet("panel:N", sort=list(curves), title=None).header(labelColor=BLACK, **header)
    panel = alt.layer(*layers, width=WIDTH, height=HEIGHT)
    panels = panel.facet(facet=facet, data=inline_data(marks), columns=4, spacing=14)
    title = f"{section.protocol}: {section_title(section)}, {section.metric.title} on validation by {along} of training"
    dashed = (
        f"dashed: {', '.join(f'{word} {section.metric.format(score)}' for score, _, word in known)}" if known else ""
    )
    panels.title = chart_title(section, title, dashed)
    return styled(panels.resolve_axis(x="independent", y="independent"))


def agreement_chart(section: Section) -> Any:
    """Row by row the share of the test questions that both answer alike; None without two rows that say."""
    if len(section.answers) < 2:
        return None
    shares = measure_agreement(section.answers)
    order = [str(name) for name in shares]
    known = [share for share in shares.to_numpy().flat if not math.isnan(share)]
    middle = (min(known) + 1) / 2
    cells = [
        {
            "row": row,
            "other": other,
            "share": share,
            "text": "–" if math.isnan(share) else f"{100 * share:.0f}",
            "color": WHITE if share > middle else BLACK,
        }
        for row, others in shares.to_dict("index").items()
        for other, share in others.items()
    ]
    plain: dict[str, Any] = {"grid": False, "ticks": False, "domain": False, "labelColor": BLACK, "labelLimit": 200}
    scale = alt.Scale(domain=order)
    x = alt.X("other:N", sort=order, scale=scale, title=None).axis(labelAngle=-45, orient="top", **plain)
    y = alt.Y("row:N", sort=order, scale=scale, title=None).axis(**plain)
    shade = alt.Scale(domain=[min(known), 1], range=[WHITE, COLORS[0]], interpolate="rgb")
    base = alt.Chart(inline_data(cells))
    layers = [
        base.mark_rect(stroke="#d1d9e0", strokeWidth=0.5).encode(
            x=x, y=y, color=alt.Color("share:Q", scale=shade, legend=None)
        ),
        base.mark_text(fontSize=9).encode(x=x, y=y, text="text:N", color=alt.Color("color:N", scale=None)),
    ]
    size = 26 * len(order)
    title = f"{section.protocol}: {section_title(section)}, % of the test questions answered alike"
    chart = alt.layer(*layers, width=size, height=size, title=alt.Title(title, subtitle="on the diagonal: over seeds"))
    return styled(chart.resolve_scale(color="independent"))
