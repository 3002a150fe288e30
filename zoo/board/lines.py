"""Line charts over a logarithmic axis, with the name of each line at its end instead of a legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

import altair as alt

from zoo.board.charts import BLACK, COLORS, GREY, SHAPES, inline_data
from zoo.board.labels import SIZE, Axis, spread

WIDTH, HEIGHT = 460, 260
"""Of a panel without the names, in pixels."""
GAP = SIZE + 2
"""Between the middles of two names."""
TICKS = 9
"""Of the lower axis at most."""
NEAR = 1.3
"""Places on x that differ by a smaller factor are taken for one."""
BESIDE = 40
"""Right of the names."""
LINK = 24
"""Length of the lines from the ends of lines to their names."""

Points = Sequence[tuple[float, float]]
"""(x, value) from left to right."""


def line_panel(
    lines: Mapping[str, Points],
    y: Axis,
    *,
    title: str,
    x_title: str,
    y_title: str,
    y_format: str,
    unit: str = "",
    names: Sequence[str] = (),
    black: str = "",
    marked: Sequence[float] = (),
    tip: Callable[[float], str] = "{:.4g}".format,
) -> Any:
    """A panel with a line of each name over x, base 2. Lines of one colour differ in their markers. Returns an Altair
    chart.

    y_format, unit  of the values: a format of d3, and what follows it
    names           of all panels that share colours; else those of `lines`
    black           the name of the line that is black
    marked          places on x that get a rule
    tip             writes a value where a point is described
    """
    lines = {name: points for name, points in lines.items() if points}
    styles = [style for style in _styles(names or list(lines), black) if style["name"] in lines]
    rows = [
        style | {"x": at, "value": value, "tip": f"{style['name']}, {at:,.0f}: {tip(value)}"}
        for style in styles
        for at, value in lines[style["name"]]
    ]
    xs = sorted({row["x"] for row in rows})
    across = alt.Axis(values=_ticks(xs), format=",d", grid=False)
    x = alt.X("x:Q", title=x_title, axis=across).scale(type="log", base=2, nice=False, domain=[xs[0], xs[-1]])
    tens = _powers_of_ten(y) if y.log else []
    ticks: dict[str, Any] = {"values": tens} if len(tens) > 1 else {"tickCount": 6}
    up = alt.Axis(labelExpr=f"format(datum.value, '{y_format}') + '{unit}'", **ticks)
    scale = alt.Scale(type="log" if y.log else "linear", domain=[y.low, y.high], nice=False, zero=False)
    value, at = (alt.Y(f"{name}:Q", title=y_title, scale=scale, axis=up) for name in ("value", "at"))
    color, shape = alt.Color("color:N", scale=None), alt.Shape("shape:N", scale=None)
    ends = _ends_of_lines(styles, lines, y)
    base = alt.Chart(inline_data(rows)).encode(x=x, y=value, color=color)
    edge = alt.Chart(inline_data([end for end in ends if "at" in end])).encode(color=color)
    inner = alt.Chart(inline_data([end for end in ends if "at" not in end])).encode(x=x, y=value, text="name:N")
    text: dict[str, Any] = {"align": "left", "baseline": "middle", "fontSize": SIZE}
    layers = [
        alt.Chart(inline_data([{"x": each} for each in marked])).mark_rule(color=GREY, strokeDash=[4, 4]).encode(x=x),
        base.mark_line(strokeWidth=1.6).encode(detail="name:N"),
        base.mark_point(filled=True, size=40, opacity=1).encode(shape=shape, description="tip:N"),
        edge.mark_rule(strokeWidth=0.8).encode(x=alt.value(WIDTH + 4), x2=alt.value(WIDTH + LINK), y=value, y2="at:Q"),
        edge.mark_text(**text).encode(x=alt.value(WIDTH + LINK + 3), y=at, text="name:N"),
        inner.mark_text(dx=7, dy=-7, stroke="white", strokeWidth=3, **text),
        inner.mark_text(dx=7, dy=-7, **text).encode(color=color),
    ]
    drawn = [layer for layer in layers if layer.data.values]
    return alt.layer(*drawn).properties(width=WIDTH, height=HEIGHT, title=title)


def _styles(names: Sequence[str], black: str) -> list[dict[str, Any]]:
    """A colour for each line, and another shape of its points where colours come again."""
    hues = cycle(COLORS)
    colors = [BLACK if name == black else next(hues) for name in names]
    return [
        {"name": name, "color": color, "shape": SHAPES[colors[:k].count(color) % len(SHAPES)]}
        for k, (name, color) in enumerate(zip(names, colors, strict=True))
    ]


def _ends_of_lines(styles: Sequence[dict[str, Any]], lines: Mapping[str, Points], y: Axis) -> list[dict[str, Any]]:
    """The last point of each line, and where its name is written beside the panel (`at`) if it reaches the edge."""
    ends = [style | dict(zip(("x", "value"), lines[style["name"]][-1], strict=True)) for style in styles]
    edge = max(end["x"] for end in ends)
    reaching = [end for end in ends if NEAR * end["x"] >= edge]
    heights = spread([HEIGHT * (1 - y.share(end["value"])) for end in reaching], GAP, 0, HEIGHT)
    for end, height in zip(reaching, heights, strict=True):
        end["at"] = y.at(1 - height / HEIGHT)
    return ends


def _ticks(xs: Sequence[float]) -> Sequence[float]:
    """The values on x themselves, or where they are many or come close to each other the powers of two among them."""
    near = any(b < NEAR * a for a, b in pairwise(xs))
    powers = [at for at in xs if math.log2(at).is_integer()]
    return powers if near or len(xs) > TICKS else xs


def _powers_of_ten(y: Axis) -> list[float]:
    low, high = math.ceil(math.log10(y.low) - 1e-9), math.floor(math.log10(y.high) + 1e-9)
    return [float(f"1e{k}") for k in range(low, high + 1)]
