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


Panel = tuple[str, str, str, Mapping[str, Sequence[tuple[float, float]]]]
"""Its title, what its values are, their unit (of SI), and by name the points (x, value)."""


def lines_chart(panels: Sequence[Panel], x_title: str) -> Any:
    """A panel below the other with a line for each name on two logarithmic axes. Returns an Altair chart."""
    import altair as alt

    from zoo.board.charts import styled
    from zoo.board.labels import Axis
    from zoo.board.lines import BESIDE, line_panel

    names = list(dict.fromkeys(name for *_, lines in panels for name, points in lines.items() if points))
    drawn = []
    for title, y_title, unit, lines in panels:
        y = Axis([value for points in lines.values() for _, value in points], log=True)
        drawn.append(
            line_panel(
                lines, y, title=title, x_title=x_title, y_title=y_title, y_format="~s", unit=unit, names=sorted(names)
            )
        )
    return styled(alt.vconcat(*drawn), right=BESIDE)
