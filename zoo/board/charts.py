"""Charts of the board: each is described once, as an Altair chart, and rendered to SVG without a browser.

Altair and vl-convert are the extra `board`; nothing else of this package imports them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import vl_convert

from zoo.board.breakdown import (
    LENGTH,
    NOT_DEFINED,
    POSITION,
    column_values,
    dimensions,
    format_number,
    placed_groups,
    scores_along,
    trained_length,
    value_label,
)
from zoo.board.families import FamilyMarks, families_of
from zoo.board.headings import majority_word, section_heading, section_title
from zoo.board.metric import Metric
from zoo.board.results import Section
from zoo.board.tables import NONE, one_line, row_label
from zoo.board.words import BEYOND

BLUE, GREY, RED, ORANGE, BLACK, WHITE, MUTED = (
    *("#0969da", "#8c959f", "#cf222e", "#bc4c00", "#1f2328", "#ffffff", "#59636e"),
)
COLORS = ["#0a3069", "#bc4c00", "#1a7f37", "#8250df", "#0969da", "#6e7781"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"]

MAX_LINES = 6
"""With more lines than this in a panel, a heat map is clearer."""

WIDTH, HEIGHT, CELL = 185, 95, 16
"""Of a panel of a breakdown, and the height of a heat map's row, in pixels."""
SCORES_WIDTH, FAMILY_WIDTH = 560, 130
"""Of a panel of scores, and of the names of families beside it."""

Rows = list[dict[str, Any]]
Labels = dict[Any, str]


def to_svg(chart: Any) -> str:
    """The chart as SVG text; the same chart gives the same text."""
    # charts are checked against the schema where they are tested: the check takes longer than to draw them
    svg = draw(json.dumps(chart.to_dict(validate=False)))
    # vega numbers clip paths through all charts of a process
    names: dict[str, str] = {}
    return re.sub(r"\bclip\d+\b", lambda match: names.setdefault(match[0], f"clip{len(names)}"), svg) + "\n"


@lru_cache(maxsize=64)
def draw(spec: str) -> str:
    """The SVG of a Vega-Lite specification, as JSON; charts of a board's files are on its page, too, and drawn once."""
    return vl_convert.vegalite_to_svg(spec)


def styled(chart: Any, right: int = 12) -> Any:
    """The chart in the common style: on white, to be readable in dark pages too, in a font that vl-convert brings.
    `right` are the pixels beside it, for names that a viewer's own font makes wider."""
    small = {"labelColor": MUTED, "titleColor": MUTED, "titleFontWeight": "normal"}
    return chart.configure(
        background=WHITE,
        padding={"left": 12, "top": 12, "right": right, "bottom": 12} if right != 12 else 12,
        font="Liberation Sans",
        view={"stroke": None},
        axis={**small, "gridColor": "#e6e8eb", "domainColor": GREY, "tickColor": GREY},
        title={"anchor": "start", "color": BLACK, "subtitleColor": MUTED}
        | {"fontSize": 13, "subtitleFontSize": 11, "offset": 12},
        legend={"orient": "top", "direction": "horizontal", "labelColor": BLACK, "titleColor": MUTED},
    )


class InlineData(alt.Data):
    """Data that Altair neither checks nor copies with each layer, panel and configuration of a chart."""

    _class_is_valid_at_instantiation = False

    def __deepcopy__(self, memo: Any) -> InlineData:
        return self


def inline_data(rows: Rows) -> alt.Data:
    """Inline data; missing and infinite values are null."""
    values = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    return InlineData(values=values)


def chart_title(section: Section, text: str, *subtitle: str) -> alt.TitleParams:
    better = "" if section.metric.higher_is_better else " (lower is better)"
    return alt.Title(text + better, subtitle=[one_line(line) for line in subtitle if line])


def row_labels(rows: pd.DataFrame) -> Labels:
    """The unique label of each row: its rank and name and, where these are equal, the configuration's hash."""
    labels: Labels = {}
    for index, row in rows.iterrows():
        rank = "" if pd.isna(row["rank"]) else f"{row['rank']}{'=' if row['tied'] else ''}  "
        text = one_line(rank + row_label(row))
        labels[index] = f"{text} {row['config_hash'][:6]} {index}" if text in labels.values() else text
    return labels


def score_scale(metric: Metric, values: Iterable[float], ticks: int) -> dict[str, Any]:
    """Scale and axis: 0 to 100 % for shares; logarithmic for perplexities; else as far as the values go."""
    if metric.is_share:
        return {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format=".0%", tickCount=ticks)}
    finite = [value for value in values if math.isfinite(value)] or [1.0]
    log = metric.kind == "perplexity" and max(finite) > 3 * min(finite)
    scale = alt.Scale(type="log" if log else "linear", domain=[min(finite), max(finite)], zero=False, nice=True)
    return {"scale": scale, "axis": alt.Axis(format="~g", tickCount=ticks)}


# -- scores of each task -------------------------------------------------------------------------------------------


def scores_chart(sections: Sequence[Section], families: Sequence[str] = ()) -> Any:
    """Task by task a row per configuration: its interval, its mean (the mark of its family), a dot for each seed.
    `families` are those that have a mark of their own in all charts beside it; empty: those of the sections."""
    marks = FamilyMarks(families or families_of(sections))
    panels = [_scores_panel(section, marks) for section in sections] or [alt.Chart(inline_data([])).mark_point()]
    return styled(alt.vconcat(*panels, spacing=22))


def _scores_panel(section: Section, families: FamilyMarks) -> Any:
    metric, labels = section.metric, row_labels(section.rows)
    means, seeds, words = [], [], []
    for index, row in section.rows.iterrows():
        mark = {"row": labels[index], "family": row["family"], "color": GREY if row["notes"] else BLACK}
        scores = [score for score in row["each_seed"].values() if not isinstance(score, str)]
        if row["metric"] != metric.name:
            words.append(mark | {"word": f"{Metric(row['metric']).title} {row['score']:.4g}"})
        elif not scores:
            words.append(mark | {"word": row["failures"], "color": RED})
        else:
            means.append(mark | {"score": row["score"], "low": row["low"], "high": row["high"]})
            seeds += [mark | {"score": score} for score in scores if row["seeds"] > 1]
    baselines: Rows = [
        {"score": section.chance, "color": GREY, "word": "grey: chance"},
        {"score": section.majority, "color": ORANGE, "word": f"orange: {majority_word(section)}"},
    ]
    baselines = [line for line in baselines if not math.isnan(line["score"])]
    shown = [row[key] for row in [*means, *baselines] for key in ("score", "low", "high") if key in row]
    order = list(labels.values())
    y = alt.Y("row:N", sort=order, title=None, scale=alt.Scale(domain=order)).axis(
        minExtent=230, maxExtent=230, labelLimit=225, labelFontSize=12, labelColor=BLACK, ticks=False, domain=False
    )
    axis = score_scale(metric, shown, ticks=5)
    x, low = alt.X("score:Q", title=None, **axis), alt.X("low:Q", title=None, **axis)
    shade = alt.Color("color:N", scale=None)
    note = alt.Chart(inline_data(words)).encode(y=y, x=alt.value(4), text="word:N", color=shade)
    beside = alt.Chart(inline_data([*means, *words])).encode(y=y, x=alt.value(SCORES_WIDTH + 10), text="family:N")
    layers = [
        alt.Chart(inline_data(baselines)).mark_rule(strokeDash=[4, 3]).encode(x=x, color=shade),
        alt.Chart(inline_data(means)).mark_rule(strokeWidth=1.2).encode(y=y, x=low, x2="high:Q", color=shade),
        alt.Chart(inline_data(seeds))
        .mark_point(fill="white", size=30, strokeWidth=1, filled=True, opacity=1)
        .encode(y=y, x=x, stroke=shade),
        alt.Chart(inline_data(means))
        .mark_point(size=75, opacity=1, strokeWidth=0.8)
        .encode(y=y, x=x, **families.encode(None, BLACK) | {"stroke": alt.Stroke("color:N", scale=None)}),
        note.mark_text(align="left", fontStyle="italic", stroke="white", strokeWidth=4),
        note.mark_text(align="left", fontStyle="italic"),
        beside.mark_text(align="left", color=MUTED, limit=FAMILY_WIDTH),
    ]
    title = f"{section.protocol}: {section_title(section)}, {metric.title}"
    lines = f"; dashed {', '.join(line['word'] for line in baselines)}" if baselines else ""
    return alt.layer(*(layer for layer in layers if layer.data.values)).properties(
        width=SCORES_WIDTH, height=22 * len(order), title=chart_title(section, title, section_heading(section) + lines)
    )


# -- breakdowns ----------------------------------------------------------------------------------------------------


class View(NamedTuple):
    """The dimension along a panel, the one that distinguishes its lines or goes down its heat map, and which it is."""

    along: str
    by: str | None
    heat_map: bool


def choose_view(groups: pd.DataFrame) -> View | None:
    """How to show the groups of a section; None where there is nothing to show."""
    names = dimensions(groups)
    if not names:
        return None
    if "depth" in names and LENGTH in names:
        return View(LENGTH, "depth", heat_map=True)
    first = POSITION if POSITION in names else names[0]
    by = next((name for name in names if name != first), None)
    return View(first, by, heat_map=by is not None and groups[by].nunique() > MAX_LINES)


def breakdown_chart(section: Section) -> Any:
    """A panel per row with the score along the dimensions of its groups; None where there are none."""
    groups = placed_groups(section)
    view = choose_view(groups)
    if view is None:
        return None
    measured = section.rows.index.isin(groups["row"])
    labels = row_labels(section.rows[measured])
    undefined = section.rows[measured & ~section.rows["evaluated_longer"].astype(bool) & section.has_longer]
    draw = _heat_map if view.heat_map else _lines
    panel, marks, remarks = draw(section, groups, view, labels, list(undefined.index))
    title = f"{section.protocol}: {section.task}, {section.metric.title} by {' and '.join(filter(None, view[:2]))}"
    if view.along != LENGTH and len(undefined):
        remarks.append(f"{NOT_DEFINED} there: {', '.join(undefined['name'])}")
    failed = [f"{row['name']}: {row['failures'] or 'no groups'}" for _, row in section.rows[~measured].iterrows()]
    header: dict[str, Any] = {"labelAnchor": "start", "labelFontWeight": "bold", "labelLimit": 200, "labelFontSize": 11}
    facet = alt.Facet("panel:N", sort=list(labels.values()), title=None).header(labelColor=BLACK, **header)
    panels = panel.facet(facet=facet, data=inline_data(marks), columns=4, spacing=14)
    panels.title = chart_title(section, title, "; ".join(remarks), "; ".join(failed))
    return styled(panels.resolve_axis(x="independent", y="independent"))


Panel = tuple[Any, Rows, list[str]]
"""The layers of one panel, the marks of all panels, and remarks on how to read them."""


def _lines(section: Section, groups: pd.DataFrame, view: View, labels: Labels, undefined: list[Any]) -> Panel:
    """Lines along `view.along`, one per value of `view.by`, hollow and dashed for length_generalization."""
    metric, trained = section.metric, trained_length(groups) if view.along == LENGTH else math.nan
    longer = bool(groups["longer"].any())
    scores = scores_along(groups, metric, *filter(None, (view.by, view.along)))
    values = sorted(scores[view.by].unique()) if view.by else []
    texts = {value: value_label(groups, view.by, value) for value in values if view.by} or {0: ""}
    points: Rows = [
        {
            "panel": labels[point["row"]],
            "kind": "longer" if point["longer"] else "trained",
            "x": point[view.along],
            "score": point["score"],
            "by": texts[point[view.by] if view.by else 0],
        }
        for point in scores.to_dict("records")
    ]
    joints = [point | {"kind": "longer"} for point in points if longer and point["x"] == trained]
    lines = [point | {"kind": f"{point['kind']} line"} for point in [*points, *joints]]
    marks: Rows = []
    for index, panel in labels.items():
        marks += [{"panel": panel, "kind": "region", "x": trained}] if longer and not math.isnan(trained) else []
        marks += [{"panel": panel, "kind": "chance", "score": section.chance}] if section.chance > 0 else []
        marks += [{"panel": panel, "kind": "word"}] if view.along == LENGTH and index in undefined else []
    x = alt.X("x:Q", title=view.along, **_along_scale(groups[view.along].dropna(), view))
    y = alt.Y("score:Q", title=None, **score_scale(metric, [point["score"] for point in points], ticks=3))
    by = list(texts.values())
    legend = alt.Legend(title=view.by) if view.by else None
    color = alt.Color("by:N", scale=alt.Scale(domain=by, range=COLORS[: len(by)]), legend=legend)
    shape = alt.Shape("by:N", scale=alt.Scale(domain=by, range=SHAPES[: len(by)]), legend=legend)

    def of(kind: str) -> alt.Chart:
        return alt.Chart().transform_filter(alt.datum.kind == kind)

    note = of("word").encode(x=alt.value(WIDTH - 6), y=alt.value(HEIGHT / 2), text=alt.value(NOT_DEFINED))
    layers = [
        of("region").mark_rect(color="#eff1f3").encode(x=x, x2=alt.X2Value("width")),
        of("region").mark_rule(color=BLACK, strokeDash=[3, 2]).encode(x=x),
        of("chance").mark_rule(color=GREY, strokeDash=[2, 3]).encode(y=y),
        of("trained line").mark_line(strokeWidth=1.6).encode(x=x, y=y, color=color),
        of("longer line").mark_line(strokeWidth=1.6, strokeDash=[4, 3]).encode(x=x, y=y, color=color),
        of("trained").mark_point(filled=True, size=32, opacity=1).encode(x=x, y=y, color=color, shape=shape),
        of("longer").mark_point(fill="white", size=32, opacity=1).encode(x=x, y=y, color=color, shape=shape),
        note.mark_text(color=RED, fontStyle="italic", fontSize=10, align="right"),
    ]
    remarks = [
        longer and f"hollow, dashed: {BEYOND}",
        longer and trained > 0 and f"grey: longer than any in training ({format_number(trained)})",
        section.chance > 0 and f"dotted: chance, {metric.format(section.chance)}",
    ]
    return alt.layer(*layers, width=WIDTH, height=HEIGHT), [*marks, *lines, *points], [r for r in remarks if r]


def _along_scale(values: pd.Series, view: View) -> dict[str, Any]:
    """Scale and axis: lengths and numbers of pairs grow by factors, the rest by differences."""
    if view.along == POSITION:
        words = "datum.value == 0 ? 'first' : datum.value == 1 ? 'last' : 'middle'"
        axis = alt.Axis(values=[0, 0.5, 1], labelExpr=words, grid=False)
    else:
        ticks = sorted(values.unique(), reverse=True)
        shown = [float(value) for value in ticks[:: math.ceil(len(ticks) / MAX_LINES)]]
        axis = alt.Axis(values=shown, format="d" if all(map(float.is_integer, shown)) else "~g", grid=False)
    log = view.along != POSITION and 0 < 4 * values.min() <= values.max()
    domain = [float(values.min()), float(values.max())]
    return {"scale": alt.Scale(type="log" if log else "linear", domain=domain, zero=False, padding=8), "axis": axis}


def _heat_map(section: Section, groups: pd.DataFrame, view: View, labels: Labels, undefined: list[Any]) -> Panel:
    """Cells along `view.along` and down `view.by`, the darker the better, with length_generalization behind a gap."""
    metric, by = section.metric, view.by or ""
    heads = column_values(groups, view.along)
    names = {head: format_number(head[1]) + (" " if head[0] else "") for head in heads}
    gap = [" "] if len({longer for longer, _ in heads}) > 1 else []
    order = [names[h] for h in heads if not h[0]] + gap + [names[h] for h in heads if h[0]]
    down = [format_number(value) for value in sorted(groups[by].dropna().unique())]
    scores = scores_along(groups, metric, by, view.along)
    low, high = (0.0, 1.0) if metric.is_share else (float(scores["score"].min()), float(scores["score"].max()))
    cells: Rows = []
    for cell in scores.to_dict("records"):
        score = cell["score"]
        dark = (score - low > (high - low) / 2) == metric.higher_is_better
        text = NONE if math.isnan(score) else f"{100 * score:.0f}" if metric.is_share else f"{score:.3g}"
        x_label = names[bool(cell["longer"]), cell[view.along]]
        at = {"panel": labels[cell["row"]], "x": x_label, "y": format_number(cell[by])}
        cells.append(at | {"score": score, "text": text, "color": WHITE if dark and text != NONE else BLACK})
    words = [{"panel": labels[index], "word": NOT_DEFINED} for index in undefined]
    step = max(20, WIDTH / len(order))
    plain: dict[str, Any] = {"grid": False, "ticks": False, "domain": False}
    x = alt.X("x:N", sort=order, scale=alt.Scale(domain=order), title=view.along)
    x = x.axis(labelAngle=0, labelFontSize=9, labelOverlap=True, **plain)
    y = alt.Y("y:N", sort=down, scale=alt.Scale(domain=down), title=by).axis(**plain)
    shades = [WHITE, COLORS[0]] if metric.higher_is_better else [COLORS[0], WHITE]
    shade = alt.Color("score:Q", scale=alt.Scale(domain=[low, high], range=shades, interpolate="rgb"), legend=None)
    size: dict[str, Any] = {"width": step * len(order), "height": CELL * len(down)}
    cell_chart, note = (alt.Chart().transform_filter(f"isValid(datum.{key})") for key in ("text", "word"))
    middle: dict[str, Any] = {"x": alt.value(size["width"] - step), "y": alt.value(size["height"] / 2)}
    layers = [
        cell_chart.mark_rect(stroke="#d1d9e0", strokeWidth=0.5).encode(x=x, y=y, color=shade),
        cell_chart.mark_text(fontSize=9).encode(x=x, y=y, text="text:N", color=alt.Color("color:N", scale=None)),
        note.mark_text(color=RED, fontStyle="italic", fontSize=10).encode(**middle, text="word:N"),
    ]
    remarks = [f"numbers: {metric.title}{' in %' if metric.is_share else ''}; dark: good"]
    remarks += [f"right of the gap: {BEYOND}"] if gap else []
    return alt.layer(*layers, **size).resolve_scale(color="independent"), [*cells, *words], remarks
