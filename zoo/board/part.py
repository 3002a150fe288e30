"""Parts of the board that rank nobody: a table, a chart, and what the two show and cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.board.tables import Table


@dataclass(frozen=True)
class Part:
    """A table and a chart of a protocol.

    text   what they show and what they cannot, in a sentence or two
    chart  the name of the picture beside the board
    draw   makes it: an Altair chart
    """

    protocol: str
    title: str
    text: str
    table: Table
    chart: str
    draw: Callable[[], Any]


Panel = tuple[str, str, Mapping[str, Sequence[tuple[float, float]]]]
"""Its title, what its values are, and by name the points (x, value)."""


def lines_chart(panels: Sequence[Panel], names: Sequence[str], x_title: str) -> Any:
    """A panel below the other with a line for each name on two logarithmic axes. Returns an Altair chart."""
    import altair as alt

    from zoo.board.charts import COLORS, SHAPES, inline_data, styled

    numbers = range(len(names))
    hues = [COLORS[k % len(COLORS)] for k in numbers]
    shapes = [SHAPES[(k + k // len(COLORS)) % len(SHAPES)] for k in numbers]  # another where the colour comes again
    key: dict[str, Any] = {"sort": list(names), "legend": alt.Legend(title=None, columns=6)}
    color = alt.Color("name:N", scale=alt.Scale(domain=list(names), range=hues), **key)
    shape = alt.Shape("name:N", scale=alt.Scale(domain=list(names), range=shapes), **key)
    x = alt.X("x:Q", scale=alt.Scale(type="log", base=2, nice=False), title=x_title)
    drawn = []
    for title, axis, lines in panels:
        rows = [{"name": name, "x": at, "value": value} for name, points in lines.items() for at, value in points]
        y = alt.Y("value:Q", scale=alt.Scale(type="log"), title=axis).axis(format="~s")
        chart = alt.Chart(inline_data(rows))
        curves = chart.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=color)
        marks = chart.mark_point(filled=True, size=40, opacity=1).encode(x=x, y=y, color=color, shape=shape)
        drawn.append((curves + marks).properties(width=460, height=260, title=title))
    return styled(alt.vconcat(*drawn))
