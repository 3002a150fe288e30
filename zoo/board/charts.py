"""Charts of the board: each is described once, as an Altair chart, and rendered to SVG without a browser.

Altair and vl-convert are the extra `board`; nothing else of this package imports them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import vl_convert

from zoo.board.breakdown import (
    LENGTH,
    NOT_DEFINED,
    POSITION,
    columns,
    dimensions,
    label,
    number,
    placed_parts,
    trained_length,
)
from zoo.board.breakdown import along as scores_along
from zoo.board.frame import LENGTH_GENERALIZATION
from zoo.board.metric import Metric
from zoo.board.results import Section
from zoo.board.tables import NONE, majority_word, one_line, row_label, section_heading, section_title

BLUE, GREY, RED, ORANGE = "#0969da", "#8c959f", "#cf222e", "#bc4c00"
COLORS = ["#0a3069", "#bc4c00", "#1a7f37", "#8250df", "#0969da", "#6e7781"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"]

MAX_LINES = 6
"""With more lines than this in a panel, a heat map is clearer."""


def to_svg(chart: alt.TopLevelMixin) -> str:
    """The chart as SVG text; the same chart gives the same text."""
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    # vega numbers clip paths through all charts of a process
    names: dict[str, str] = {}
    return re.sub(r"\bclip\d+\b", lambda match: names.setdefault(match[0], f"clip{len(names)}"), svg) + "\n"


def _styled(chart: Any) -> Any:
    """The chart in the common style: on white, to be readable in dark pages too, in a font that vl-convert brings."""
    return chart.configure(background="white", padding=12, font="Liberation Sans").configure_view(
        stroke=None
    ).configure_axis(
        labelColor="#59636e", titleColor="#59636e", titleFontWeight="normal", gridColor="#e6e8eb", domainColor=GREY,
        tickColor=GREY,
    ).configure_title(
        anchor="start", color="#1f2328", subtitleColor="#59636e", fontSize=13, subtitleFontSize=11, offset=12
    ).configure_legend(orient="top", direction="horizontal", labelColor="#1f2328", titleColor="#59636e")  # fmt: skip


def _data(rows: Iterable[dict[str, Any]]) -> alt.Data:
    """Rows as inline data; missing and infinite values as null."""
    values = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    return alt.Data(values=values)  # type: ignore[arg-type]


# -- scores of each task -------------------------------------------------------------------------------------------


def scores_chart(sections: Sequence[Section]) -> Any:
    """Task by task a row per configuration: its interval, its mean and a dot for each seed."""
    panels = [_scores_panel(section) for section in sections]
    return _styled(alt.vconcat(*panels, spacing=22) if panels else alt.Chart(_data([])).mark_point())


def _scores_panel(section: Section) -> Any:
    metric, rows = section.metric, section.rows
    labels = _unique_labels(rows)
    means, seeds, words = [], [], []
    for (_, row), name in zip(rows.iterrows(), labels, strict=True):
        color = GREY if row["notes"] else BLUE
        if row["metric"] != metric.name:
            words.append({"row": name, "word": f"{Metric(row['metric']).title} {row['score']:.4g}", "color": GREY})
        elif math.isnan(row["score"]):
            words.append({"row": name, "word": row["failures"], "color": RED})
        else:
            means.append({"row": name, "score": row["score"], "low": row["low"], "high": row["high"], "color": color})
            dots = [score for score in row["each_seed"].values() if not isinstance(score, str)]
            seeds += [{"row": name, "score": score, "color": color} for score in dots if row["seeds"] > 1]
    baselines = (
        (section.chance, GREY, "grey: chance"),
        (section.majority, ORANGE, f"orange: {majority_word(section)}"),
    )
    lines = [{"score": value, "color": color} for value, color, _ in baselines if not math.isnan(value)]
    words_of_lines = ", ".join(word for value, _, word in baselines if not math.isnan(value))
    shown = [row[key] for row in [*means, *lines] for key in ("score", "low", "high") if key in row]
    scale, axis = _score_scale(metric, shown)
    y = alt.Y("row:N", sort=labels, title=None, scale=alt.Scale(domain=labels)).axis(
        minExtent=230, maxExtent=230, labelLimit=225, labelFontSize=12, labelColor="#1f2328", ticks=False, domain=False
    )
    x = alt.X("score:Q", scale=scale, axis=axis, title=None)
    color = alt.Color("color:N", scale=None)
    base, dots = alt.Chart(_data(means)), alt.Chart(_data(seeds))
    layers = [
        alt.Chart(_data(lines)).mark_rule(strokeDash=[4, 3]).encode(x=x, color=color),
        base.mark_rule(strokeWidth=2).encode(y=y, x=alt.X("low:Q", scale=scale), x2="high:Q", color=color),
        dots.mark_point(filled=True, fill="white", size=30, strokeWidth=1, opacity=1).encode(y=y, x=x, stroke=color),
        base.mark_point(filled=True, size=55, opacity=1, shape="diamond").encode(y=y, x=x, color=color),
        *(
            alt.Chart(_data(words))
            .mark_text(align="left", fontStyle="italic", **halo)
            .encode(y=y, x=alt.value(4), text="word:N", color=color)
            for halo in ({"stroke": "white", "strokeWidth": 4}, {})
        ),
    ]
    used = [layer for layer in layers if layer.data.values]
    title = f"{section.protocol}: {section_title(section)}, {metric.title}" + _better(metric)
    subtitle = section_heading(section) + (f"; dashed {words_of_lines}" if lines else "")
    return alt.layer(*used).properties(
        width=560, height=22 * len(labels), title=alt.Title(title, subtitle=one_line(subtitle))
    )


def _better(metric: Metric) -> str:
    return "" if metric.higher_is_better else " (lower is better)"


def _unique_labels(rows: pd.DataFrame) -> list[str]:
    """The label of each row, with its rank and, where several are equal, the configuration's hash."""
    labels = [
        ("" if pd.isna(row["rank"]) else f"{row['rank']}{'=' if row['tied'] else ''}  ") + one_line(row_label(row))
        for _, row in rows.iterrows()
    ]
    hashes = rows["config_hash"].str[:6]
    unique = [f"{text} {h}" if labels.count(text) > 1 else text for text, h in zip(labels, hashes, strict=True)]
    return [text if unique.count(text) == 1 else f"{text} {k}" for k, text in enumerate(unique)]


def _score_scale(metric: Metric, values: Iterable[float], ticks: int = 5) -> tuple[alt.Scale, alt.Axis]:
    """0 to 100 % for shares; logarithmic for perplexities; else as far as the values go."""
    if metric.is_share:
        return alt.Scale(domain=[0, 1]), alt.Axis(format=".0%", tickCount=ticks)
    finite = [value for value in values if math.isfinite(value)] or [1.0]
    low, high = min(finite), max(finite)
    if metric.kind == "perplexity" and high > 3 * low:
        return alt.Scale(type="log", domain=[low, high], nice=True), alt.Axis(format="~g", tickCount=ticks)
    return alt.Scale(domain=[low, high], zero=False, nice=True), alt.Axis(format="~g", tickCount=ticks)


# -- breakdowns ----------------------------------------------------------------------------------------------------


class View(NamedTuple):
    """The property along a panel, the one that distinguishes its lines or goes down its heat map, and which it is."""

    along: str
    by: str | None
    heat_map: bool


def view_of(parts: pd.DataFrame) -> View | None:
    """How to show the parts of a section; None where there is nothing to show."""
    names = dimensions(parts)
    if not names:
        return None
    if "depth" in names and LENGTH in names:
        return View(LENGTH, "depth", heat_map=True)
    along = POSITION if POSITION in names else names[0]
    by = next((name for name in names if name != along), None)
    return View(along, by, heat_map=by is not None and parts[by].nunique() > MAX_LINES)


def breakdown_chart(section: Section) -> Any:
    """A panel per row with the score along the properties of the questions; None where they are not grouped."""
    parts = placed_parts(section)
    view = view_of(parts)
    if view is None:
        return None
    rows = section.rows[section.rows.index.isin(parts["row"])]
    labels = dict(zip(rows.index, _unique_labels(rows), strict=True))
    title = f"{section.protocol}: {section.task}, {section.metric.title} by {' and '.join(filter(None, view[:2]))}"
    chart, remark = (_heat_map if view.heat_map else _lines)(section, parts, view, labels)
    without = section.rows[~section.rows.index.isin(parts["row"])]
    failures = "; ".join(f"{row['name']}: {row['failures'] or 'no groups'}" for _, row in without.iterrows())
    panels = chart.facet(
        facet=alt.Facet("panel:N", sort=list(labels.values()), title=None).header(
            labelAnchor="start", labelFontWeight="bold", labelLimit=200, labelFontSize=11, labelColor="#1f2328"
        ),
        columns=4,
        spacing=14,
    ).resolve_axis(x="independent", y="independent")
    subtitle = [one_line(text) for text in (remark, failures) if text]
    return _styled(panels.properties(title=alt.Title(title + _better(section.metric), subtitle=subtitle)))


WIDTH, HEIGHT, CELL = 185, 95, 16
"""Of a panel with lines, and the height of a heat map's row, in pixels."""


def _lines(section: Section, parts: pd.DataFrame, view: View, labels: dict[int, str]) -> tuple[Any, str]:
    """Lines along `view.along`, one per value of `view.by`; dashed and hollow for length_generalization."""
    metric = section.metric
    names = [view.by, view.along] if view.by else [view.along]
    points = [
        {
            "panel": labels[key[0]],
            "kind": "longer" if key[-2] else "trained",
            "x": key[-1],
            "score": score,
            "by": label(parts, view.by, key[1]) if view.by else "",
        }
        for key, score in scores_along(parts, metric, *names).items()
    ]
    trained = trained_length(parts) if view.along == LENGTH else math.nan
    joints = [point | {"kind": "longer"} for point in points if point["x"] == trained and parts["longer"].any()]
    undefined = _undefined(section)
    marks: list[dict[str, Any]] = []
    for index, panel in labels.items():
        if parts["longer"].any() and not math.isnan(trained):
            marks.append({"panel": panel, "kind": "region", "x": trained})
        if not math.isnan(section.chance):
            marks.append({"panel": panel, "kind": "chance", "score": section.chance})
        if view.along == LENGTH and index in undefined:
            marks.append({"panel": panel, "kind": "word", "word": NOT_DEFINED})
    lines = [point | {"kind": f"{point['kind']} line"} for point in [*points, *joints]]
    finite = [point["score"] for point in points if math.isfinite(point["score"])]
    scale, axis = _score_scale(metric, finite, ticks=3)
    x = alt.X("x:Q", scale=_along_scale(parts, view), axis=_along_axis(parts, view), title=view.along)
    y = alt.Y("score:Q", scale=scale, axis=axis, title=None)
    chart = alt.Chart(_data([*marks, *lines, *points])).properties(width=WIDTH, height=HEIGHT)
    by = [label(parts, view.by, value) for value in sorted(parts[view.by].dropna().unique())] if view.by else [""]
    legend = alt.Legend(title=view.by, symbolFillColor=None) if view.by else None
    color = alt.Color("by:N", scale=alt.Scale(domain=by, range=COLORS[: len(by)]), legend=legend)
    shape = alt.Shape("by:N", scale=alt.Scale(domain=by, range=SHAPES[: len(by)]), legend=legend)

    def of(kind: str) -> Any:
        return chart.transform_filter(alt.datum.kind == kind)

    layers = [
        of("region").mark_rect(color="#eff1f3").encode(x=x, x2=alt.X2Value("width")),
        of("region").mark_rule(color="#1f2328", strokeDash=[3, 2]).encode(x=x),
        of("chance").mark_rule(color=GREY, strokeDash=[2, 3]).encode(y=y),
        of("trained line").mark_line(strokeWidth=1.6).encode(x=x, y=y, color=color),
        of("longer line").mark_line(strokeWidth=1.6, strokeDash=[4, 3]).encode(x=x, y=y, color=color),
        of("trained").mark_point(filled=True, size=32, opacity=1).encode(x=x, y=y, color=color, shape=shape),
        of("longer")
        .mark_point(size=32, fill="white", opacity=1, strokeWidth=1.4)
        .encode(x=x, y=y, color=color, shape=shape),
        of("word")
        .mark_text(color=RED, fontStyle="italic", fontSize=10, align="right")
        .encode(x=alt.value(WIDTH - 6), y=alt.value(HEIGHT / 2), text="word:N"),
    ]
    remark = []
    if parts["longer"].any():
        remark.append(f"hollow, dashed: {LENGTH_GENERALIZATION}")
        if view.along != LENGTH and undefined:
            remark.append(f"{NOT_DEFINED} there: {', '.join(section.rows.loc[undefined, 'name'])}")
        if not math.isnan(trained):
            remark.append(f"grey: longer than any in training ({number(trained)})")
    if not math.isnan(section.chance):
        remark.append(f"dotted: chance, {metric.format(section.chance)}")
    return alt.layer(*layers), "; ".join(remark)


def _undefined(section: Section) -> list[Any]:
    """The rows with parts that were not evaluated on length_generalization, where the task has it."""
    rows = section.rows[section.rows.index.isin(section.parts["row"])]
    return list(rows.index[~rows["evaluated_longer"].astype(bool)]) if section.has_longer else []


def _along_scale(parts: pd.DataFrame, view: View) -> alt.Scale:
    """Lengths and numbers of pairs grow by factors, the rest by differences."""
    low, high = parts[view.along].min(), parts[view.along].max()
    log = view.along != POSITION and low > 0 and high >= 4 * low
    return alt.Scale(type="log" if log else "linear", domain=[low, high], nice=False, zero=False, padding=8)


def _along_axis(parts: pd.DataFrame, view: View) -> alt.Axis:
    if view.along == POSITION:
        words = "datum.value == 0 ? 'first' : datum.value == 1 ? 'last' : 'middle'"
        return alt.Axis(values=[0, 0.5, 1], labelExpr=words, grid=False)
    values = sorted(parts[view.along].dropna().unique())
    every = math.ceil(len(values) / MAX_LINES)
    shown = [float(value) for k, value in enumerate(values) if (len(values) - 1 - k) % every == 0]
    whole = all(value.is_integer() for value in shown)
    return alt.Axis(values=shown, format="d" if whole else "~g", grid=False, labelOverlap=False)


def _heat_map(section: Section, parts: pd.DataFrame, view: View, labels: dict[int, str]) -> tuple[Any, str]:
    """Cells along `view.along` and down `view.by`, the higher the better the darker; length_generalization behind a
    gap."""
    metric, by = section.metric, view.by or ""
    heads = columns(parts, view.along)
    gap = [" "] if len({longer for longer, _ in heads}) > 1 else []
    names = {head: number(head[1]) + (" " if head[0] else "") for head in heads}
    order = [names[h] for h in heads if not h[0]] + gap + [names[h] for h in heads if h[0]]
    scores = scores_along(parts, metric, by, view.along)
    finite = [score for score in scores if math.isfinite(score)] or [0.0]
    low, high = (0.0, 1.0) if metric.is_share else (min(finite), max(finite))
    cells = []
    for (row, value, longer, across), score in scores.items():
        good = (score - low) / ((high - low) or 1.0)
        text = NONE if math.isnan(score) else f"{100 * score:.0f}" if metric.is_share else f"{score:.3g}"
        cells.append(
            {
                "panel": labels[row],
                "x": names[longer, across],
                "y": number(value),
                "score": score,
                "text": text,
                "color": "white" if (good if metric.higher_is_better else 1 - good) > 0.5 else "#1f2328",
            }
        )
    words = [
        {"panel": panel, "word": NOT_DEFINED, "x": order[-1]}
        for index, panel in labels.items()
        if index in _undefined(section)
    ]
    down = [number(value) for value in sorted(parts[by].dropna().unique())]
    shades = ["#ffffff", "#0a3069"] if metric.higher_is_better else ["#0a3069", "#ffffff"]
    step = max(20, WIDTH / len(order))
    x = alt.X("x:N", sort=order, scale=alt.Scale(domain=order), title=view.along)
    x = x.axis(labelAngle=0, labelFontSize=9, labelOverlap=True, grid=False, ticks=False, domain=False)
    y = alt.Y("y:N", sort=down, title=by).axis(grid=False, ticks=False, domain=False)
    color = alt.Color("score:Q", scale=alt.Scale(domain=[low, high], range=shades, interpolate="rgb"), legend=None)
    chart = alt.Chart(_data([*cells, *words])).properties(width=step * len(order), height=CELL * len(down))
    cell = chart.transform_filter("isValid(datum.text)")
    layers = [
        cell.mark_rect(stroke="#d1d9e0", strokeWidth=0.5).encode(x=x, y=y, color=color),
        cell.mark_text(fontSize=9).encode(x=x, y=y, text="text:N", color=alt.Color("color:N", scale=None)),
    ]
    if words:
        note = chart.transform_filter("isValid(datum.word)").mark_text(color=RED, fontStyle="italic", fontSize=10)
        middle = {"x": alt.value(step * (len(order) - 1)), "y": alt.value(CELL * len(down) / 2)}
        layers.append(note.encode(**middle, text="word:N"))
    unit = " in %" if metric.is_share else ""
    remark = f"numbers: {metric.title}{unit}; dark: good"
    return alt.layer(*layers).resolve_scale(color="independent"), remark + (
        f"; right of the gap: {LENGTH_GENERALIZATION}" if gap else ""
    )
