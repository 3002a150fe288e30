"""The breakdown of a task's scores -> one static SVG: a small panel per architecture, lines or a map of shades.

Lines go over length (or position, or whatever else the parts differ in), one for each value of a second thing; a map
has length across and depth down. What is beyond training has hollow marks and dashed lines, and stands on grey or
behind a line. Shapes and shades alone tell everything, so that it can be printed in black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from zoo.board.axis import Axis, score_axis
from zoo.board.breakdown import (
    LENGTH,
    NOT_DEFINED,
    POSITION,
    Column,
    along,
    columns,
    dimensions,
    label,
    number,
    points_of,
    trained_length,
)
from zoo.board.model import Board, Section
from zoo.board.picture import drawing, safe
from zoo.board.rows import Row

ACROSS, PANEL, LEFT, PLOT, HEIGHT = 4, 204, 38, 154, 92
"""Panels in a row; width of a panel, of its labels and of its plot; height of the plot; in pixels."""
TITLE, AXIS, GAP, TOP, LINE = 20, 18, 12, 12, 18
"""Heights of a panel's title and axis, of the spaces, and of a line of text above the panels."""
WIDTH = ACROSS * PANEL + 10
CELL = 15
"""Height of a row of a map."""

MOST_LINES = 6
"""With more lines than this in a panel, a map is clearer."""
LABELS = 6
"""At most so many labels below a panel."""

Scores = Mapping[Column, float | None]

COLOURS = ("#0a3069", "#bc4c00", "#1a7f37", "#8250df", "#0969da", "#6e7781")

STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:13px}.name{font-weight:600}"
    ".axis{fill:#59636e;font-size:9px}.trained{fill:#1f2328;font-size:9px;font-weight:700}.grid{stroke:#e6e8eb}"
    ".beyond{fill:#eff1f3}.edge{stroke:#1f2328;stroke-width:1.5;stroke-dasharray:3 2}"
    ".chance{stroke:#8c959f;stroke-dasharray:2 3}"
    ".line{fill:none;stroke-width:1.6}.far{stroke-dasharray:4 3}.word{fill:#cf222e;font-style:italic;font-size:10px}"
    ".cell{stroke:#ffffff}.dark{font-size:9px;fill:#ffffff}.light{font-size:9px;fill:#1f2328}"
)


@dataclass(frozen=True)
class View:
    """What is across a panel, and what tells its lines apart or goes down its map."""

    across: str
    by: str | None
    map: bool


def view_of(section: Section) -> View | None:
    """How to show a section's parts; None where there is nothing to be shown."""
    names = dimensions(section.rows)
    if not names:
        return None
    if "depth" in names and LENGTH in names:
        return View(LENGTH, "depth", map=True)
    across = POSITION if POSITION in names else names[0]
    by = next((name for name in names if name != across), None)
    many = by is not None and len({column.value for column in columns(section.rows, by)}) > MOST_LINES
    return View(across, by, map=many)


def multiples(board: Board, section: Section, *, comment: str = "") -> str:
    """The SVG text; empty where the section has no parts. `comment` becomes its first line's comment."""
    view = view_of(section)
    if view is None:
        return ""
    shown = [row for row in section.rows if row.points]
    head, y = _head(board, section, view)
    height = _plot_height(section, view)
    body = [*head]
    for k, row in enumerate(shown):
        left = 5 + PANEL * (k % ACROSS)
        top = y + (TITLE + height + AXIS + GAP) * (k // ACROSS)
        body.append(f'<g transform="translate({left} {top})">')
        body += _map(row, section, view) if view.map else _lines(row, section, view)
        body.append("</g>")
    y += (TITLE + height + AXIS + GAP) * math.ceil(len(shown) / ACROSS)
    if without := [row for row in section.rows if not row.points]:
        words = "; ".join(f"{row.name}: {row.failures or 'no parts'}" for row in without)
        body.append(f'<text class="word" x="10" y="{y + 8}">{safe(words)}</text>')
        y += LINE
    about = f"{section.task}: {section.scale.title} over {' and '.join(filter(None, (view.across, view.by)))}"
    return drawing(body, WIDTH, y + TOP, label=about, style=STYLE, comment=comment)


def _plot_height(section: Section, view: View) -> int:
    return CELL * len(_down(section, view)) if view.map else HEIGHT


def _down(section: Section, view: View) -> list[float]:
    """The values that go down a map."""
    return sorted({column.value for column in columns(section.rows, view.by or "")})


def _head(board: Board, section: Section, view: View) -> tuple[list[str], int]:
    """Title and legend, and where they end."""
    what = " and ".join(filter(None, (view.across, view.by)))
    title = f"{board.protocol}: {section.task}, {section.scale.title} over {what}"
    title += "" if section.scale.higher else " (less is better)"
    y = TOP + LINE - 4
    out = [f'<text class="title" x="10" y="{y}">{safe(title)}</text>']
    if view.by and not view.map:
        y += LINE
        x = 10
        for k, value in enumerate(_down(section, view)):
            text = f"{view.by} {label(section.rows, view.by, value)}"
            out.append(_mark(k, x + 6, y - 4, hollow=False))
            out.append(f'<text x="{x + 16}" y="{y}">{safe(text)}</text>')
            x += 26 + round(6.4 * len(text))
    if said := _legend(section, view):
        y += LINE
        out.append(f'<text class="axis" x="10" y="{y}">{safe(said)}</text>')
    return out, y + GAP


def _legend(section: Section, view: View) -> str:
    said = []
    trained = trained_length(section.rows)
    if view.map:
        said.append(f"across: {view.across}; down: {view.by}; dark: good; numbers: {section.scale.title}")
        if section.scale.share:
            said[-1] += " in %"
    if any(point.beyond for point in points_of(section.rows)):
        if view.map:
            said.append("behind the dashed line: beyond what was trained")
        else:
            said.append("hollow, dashed: beyond what was trained")
            if view.across == LENGTH and trained is not None:
                said[-1] += f"; vertical line: the longest in training, {number(trained)}"
    if section.chance is not None and not view.map:
        said.append(f"dotted: chance, {section.scale.text(section.chance)}")
    return "; ".join(said)


def _name(row: Row) -> str:
    place = f"{row.rank.place}{'=' if row.rank.tied else ''} " if row.rank else ""
    extra = [word for word in (row.asked, *(note.partition(":")[0] for note in row.notes)) if word]
    name = place + row.name
    room = max(30 - len(name), 3)
    aside = ", ".join(extra)
    aside = aside if len(aside) <= room else aside[: room - 1] + "…"
    return f'<text x="{LEFT}" y="13"><tspan class="name">{safe(name)}</tspan> {safe(aside)}</text>'


# -- lines ---------------------------------------------------------------------------------------------------------


def _across(section: Section, view: View) -> Axis:
    """Lengths and numbers of pairs grow by factors, the rest by differences."""
    if view.across == POSITION:
        return Axis(-0.04, 1.04, False, ((0.0, "first"), (0.5, "middle"), (1.0, "last")))
    values = sorted({column.value for column in columns(section.rows, view.across)})
    low, high = values[0], values[-1]
    log = low > 0 and high / low >= 4
    kept = _thinned(values)
    pad = (high / low) ** 0.04 if log else 0.04 * (high - low)
    ends = (low / pad, high * pad) if log else (low - pad, high + pad)
    return Axis(*ends, log, tuple((value, number(value)) for value in kept))


def _thinned(values: Sequence[float]) -> list[float]:
    """So many of them that their labels do not run into each other, the last one always."""
    every = math.ceil(len(values) / LABELS)
    return [value for k, value in enumerate(values) if (len(values) - 1 - k) % every == 0]


def _lines(row: Row, section: Section, view: View) -> list[str]:
    across = _across(section, view)
    finite = [point.score for point in points_of(section.rows) if point.score is not None]
    up = score_axis(section.scale, finite, every=5)
    bottom = TITLE + HEIGHT

    def x(value: float) -> str:
        return f"{LEFT + PLOT * across.at(value):.1f}"

    def y(value: float) -> str:
        return f"{bottom - HEIGHT * up.at(value):.1f}"

    out = [_name(row)]
    trained = trained_length(section.rows) if view.across == LENGTH else None
    far = [column.value for column in columns(section.rows, LENGTH) if column.beyond] if trained else []
    if trained and far:
        begin = LEFT + PLOT * across.at(trained)
        width = LEFT + PLOT - begin
        out.append(
            f'<rect class="length_generalization" x="{begin:.1f}" y="{TITLE}" width="{width:.1f}" height="{HEIGHT}"/>'
        )
    for value, text in up.ticks:
        out.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{y(value)}" y2="{y(value)}"/>')
        out.append(f'<text class="axis" x="{LEFT - 4}" y="{float(y(value)) + 3:.1f}" text-anchor="end">{text}</text>')
    for value, text in across.ticks:
        style = "trained" if value == trained else "axis"
        out.append(f'<text class="{style}" x="{x(value)}" y="{bottom + 12}" text-anchor="middle">{text}</text>')
    if trained:
        out.append(f'<line class="edge" x1="{x(trained)}" x2="{x(trained)}" y1="{TITLE}" y2="{bottom}"/>')
    if section.chance is not None:
        at = y(section.chance)
        out.append(f'<line class="chance" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{at}" y2="{at}"/>')
    fixed = [{view.by: each} for each in _down(section, view)] if view.by else [{}]
    for k, where in enumerate(fixed):
        out += _line(k, along(row, view.across, where), x, y)
    if section.beyond and not row.defined:
        middle = (float(x(trained)) + LEFT + PLOT) / 2 if trained and far else LEFT + PLOT / 2
        out.append(
            f'<text class="word" x="{middle:.1f}" y="{TITLE + HEIGHT / 2 - 4:.1f}" text-anchor="middle">beyond</text>'
            f'<text class="word" x="{middle:.1f}" y="{TITLE + HEIGHT / 2 + 8:.1f}" text-anchor="middle">'
            f"{NOT_DEFINED}</text>"
        )
    return out


def _line(k: int, scores: Scores, x: Callable[[float], str], y: Callable[[float], str]) -> list[str]:
    """One line: through the parts of test, and dashed through those beyond, joined where these go on from those."""
    found = [(column, score) for column, score in scores.items() if score is not None]
    near = [(x(column.value), y(score)) for column, score in found if not column.beyond]
    far = [(x(column.value), y(score)) for column, score in found if column.beyond]
    colour = COLOURS[k % len(COLOURS)]
    out = []
    for style, path in (("line", near), ("line far", [*_joint(found, near), *far])):
        if len(path) > 1:
            ends = " ".join(f"{a},{b}" for a, b in path)
            out.append(f'<polyline class="{style}" stroke="{colour}" points="{ends}"/>')
    out += [_mark(k, float(a), float(b), hollow=False) for a, b in near]
    out += [_mark(k, float(a), float(b), hollow=True) for a, b in far]
    return out


def _joint(found: Sequence[tuple[Column, float]], near: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The last part of test, where everything beyond lies behind it."""
    tested = [column.value for column, _ in found if not column.beyond]
    beyond = [column.value for column, _ in found if column.beyond]
    return [near[-1]] if tested and beyond and min(beyond) > max(tested) else []


def _mark(k: int, x: float, y: float, *, hollow: bool) -> str:
    """The k-th shape: disc, square, triangle, diamond, triangle on its tip, hexagon."""
    colour = COLOURS[k % len(COLOURS)]
    style = f'fill="{"#ffffff" if hollow else colour}" stroke="{colour}" stroke-width="1.2"'
    if k % len(COLOURS) == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" {style}/>'
    corners, turn = ((4, 45), (3, -90), (4, 0), (3, 90), (6, 0))[k % len(COLOURS) - 1]
    angles = [math.radians(turn + 360 * j / corners) for j in range(corners)]
    points = " ".join(f"{x + 3.8 * math.cos(a):.1f},{y + 3.8 * math.sin(a):.1f}" for a in angles)
    return f'<polygon points="{points}" {style}/>'


# -- maps ----------------------------------------------------------------------------------------------------------


def _map(row: Row, section: Section, view: View) -> list[str]:
    head, down = columns(section.rows, view.across), _down(section, view)
    finite = [point.score for point in points_of(section.rows) if point.score is not None]
    shade = score_axis(section.scale, finite)
    wide = PLOT / len(head)
    bottom = TITLE + CELL * len(down)
    trained = trained_length(section.rows) if view.across == LENGTH else None
    out = [_name(row)]
    for j, value in enumerate(down):
        y = TITLE + CELL * j
        scores = along(row, view.across, {view.by or "": value})
        out.append(f'<text class="axis" x="{LEFT - 4}" y="{y + 11}" text-anchor="end">{safe(number(value))}</text>')
        for k, column in enumerate(head):
            if column in scores:
                out += _cell(scores[column], section, shade, x=LEFT + wide * k, y=y, wide=wide)
    kept = _thinned(range(len(head)))
    for k, column in enumerate(head):
        if k in kept:
            style = "trained" if column.value == trained and not column.beyond else "axis"
            text = number(column.value)
            x = LEFT + wide * (k + 0.5)
            out.append(f'<text class="{style}" x="{x:.1f}" y="{bottom + 12}" text-anchor="middle">{text}</text>')
    tested = sum(not column.beyond for column in head)
    if 0 < tested < len(head):
        x = LEFT + wide * tested
        out.append(f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="{TITLE - 3}" y2="{bottom + 3}"/>')
        if not row.defined:
            middle = (x + LEFT + PLOT) / 2
            at = f'x="{middle:.1f}" y="{(TITLE + bottom) / 2 + 4:.1f}" text-anchor="middle"'
            out.append(f'<text class="word" {at}>{NOT_DEFINED}</text>')
    return out


def _cell(score: float | None, section: Section, shade: Axis, *, x: float, y: int, wide: float) -> list[str]:
    good = 0.0
    if score is not None:
        good = shade.at(score) if section.scale.higher else 1 - shade.at(score)
    colour = "".join(f"{round(255 + (end - 255) * good):02x}" for end in (10, 48, 105))
    out = [f'<rect class="cell" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{CELL}" fill="#{colour}"/>']
    if wide >= 17:
        text = "–" if score is None else f"{100 * score:.0f}" if section.scale.share else f"{score:.3g}"
        style = "dark" if good > 0.5 else "light"
        out.append(f'<text class="{style}" x="{x + wide / 2:.1f}" y="{y + 11}" text-anchor="middle">{text}</text>')
    return out
