"""Boards -> one static SVG: per task a row per architecture with its interval, its mean and a dot for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from zoo.board.model import Board, Row, Section
from zoo.board.tables import baselines, section_title

LEFT, PLOT, RIGHT = 220, 560, 30
"""Widths of the names, of the axis from 0 to 100 %, and of the margin, in pixels."""
ROW, TITLE, AXIS, GAP, TOP = 22, 30, 26, 18, 12
"""Heights of a row, of a panel's title and axis, and of the spaces."""
WIDTH = LEFT + PLOT + RIGHT

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:13px}.axis{fill:#59636e}"
    ".grid{stroke:#e6e8eb}.chance{stroke:#8c959f;stroke-dasharray:2 3}.majority{stroke:#bc4c00;stroke-dasharray:5 3}"
    ".interval{stroke:#0969da;stroke-width:2}.mean{fill:#0969da}.seed{fill:#ffffff;stroke:#0969da}"
    ".aside .interval{stroke:#8c959f}.aside .mean{fill:#8c959f}.aside .seed{stroke:#8c959f}"
    ".word{fill:#cf222e;font-style:italic}"
)


def picture(found: Sequence[Board], *, comment: str = "") -> str:
    """The SVG text; `comment` becomes its first line's comment."""
    body: list[str] = []
    y = TOP
    for board in found:
        for section in board.sections:
            panel, height = _panel(board, section, y)
            body += panel
            y += height + GAP
    height = max(y - GAP + TOP, 2 * TOP)
    return "\n".join(
        [
            *([f"<!-- {comment} -->"] if comment else []),
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Scores with intervals, task by task">',
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def _x(fraction: float) -> str:
    return f"{LEFT + PLOT * min(max(fraction, 0.0), 1.0):.1f}"


def _panel(board: Board, section: Section, top: int) -> tuple[list[str], int]:
    """The elements of one section and their height."""
    first = top + TITLE
    bottom = first + ROW * len(section.rows)
    title = f"{board.protocol}: {section_title(section)}"
    out = [
        f'<text class="title" x="10" y="{top + 16}">{_text(title)}</text>',
        f'<text class="axis" x="{LEFT + PLOT}" y="{top + 16}" text-anchor="end">{_text(baselines(section))}</text>',
    ]
    for tenth in range(0, 11, 2):
        x = _x(tenth / 10)
        out.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{first}" y2="{bottom}"/>')
        out.append(f'<text class="axis" x="{x}" y="{bottom + 16}" text-anchor="middle">{tenth * 10} %</text>')
    for name, at in (("chance", section.chance), ("majority", section.majority)):
        if at is not None:
            out.append(f'<line class="{name}" x1="{_x(at)}" x2="{_x(at)}" y1="{first}" y2="{bottom}"/>')
    for k, row in enumerate(section.rows):
        out += _row(row, first + ROW * k + ROW // 2)
    return out, TITLE + ROW * len(section.rows) + AXIS


def _row(row: Row, y: int) -> list[str]:
    name = " ".join([row.name, *(f"({note.partition(':')[0]})" for note in row.notes)])
    name = name if len(name) <= 30 else name[:29] + "…"
    place = f"{row.rank.place}{'=' if row.rank.tied else ''}  " if row.rank else ""
    told = [f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{_text(place + name)}</text>']
    if row.estimate is None:
        return [*told, f'<text class="word" x="{LEFT + 8}" y="{y + 4}">{_text(row.failures)}</text>']
    found = row.estimate.interval
    marks = [
        f'<line class="interval" x1="{_x(found.low)}" x2="{_x(found.high)}" y1="{y}" y2="{y}"/>',
        f'<circle class="mean" cx="{_x(row.estimate.mean)}" cy="{y}" r="4.5"/>',
    ]
    if len(row.seeds) > 1:
        scores = [seed.score for seed in row.seeds if seed.score is not None]
        marks += [f'<circle class="seed" cx="{_x(score)}" cy="{y}" r="2.5"/>' for score in scores]
    about = "; ".join([f"{row.name}: {100 * row.estimate.mean:.1f} %", *row.notes, row.failures]).rstrip("; ")
    kind = "row" if row.rank else "aside"
    return [*told, f'<g class="{kind}"><title>{_text(about)}</title>', *marks, "</g>"]


def _text(text: str) -> str:
    return escape("".join(char if char.isprintable() else " " for char in text))
