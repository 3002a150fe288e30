"""What one more token costs by the length of its context: bytes of the carried state, and the time of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zoo.board.tables import Table
from zoo.spec.generation import GenerationCost

SENTENCE = (
    "The bytes that an architecture carries of one text from token to token, at the size that it has under this "
    "protocol, in float32: a state of fixed size, a window, or keys and values of every token."
)


def latest(costs: Sequence[GenerationCost]) -> list[list[GenerationCost]]:
    """Records by protocol and task, in the order of architectures; of several shapes of one architecture the one that
    was measured last."""
    found: dict[tuple[str, str], dict[str, GenerationCost]] = {}
    for cost in sorted(costs, key=lambda cost: (cost.protocol, cost.task, cost.architecture.name, cost.measured)):
        found.setdefault((cost.protocol, cost.task), {})[cost.architecture.name] = cost
    return [list(own.values()) for own in found.values()]


def chart_name(costs: Sequence[GenerationCost]) -> str:
    """The name of their picture beside the board."""
    return f"generation-{costs[0].protocol}-{costs[0].task}.svg"


def generation_table(costs: Sequence[GenerationCost]) -> Table:
    """A row for each architecture: the bytes after each number of tokens."""
    contexts = sorted({point.context for cost in costs for point in cost.points})
    rows = []
    for cost in costs:
        held = {point.context: format_bytes(point.state_bytes) for point in cost.points}
        rows.append([cost.architecture.name, *(held.get(context, "") for context in contexts)])
    return Table(["architecture", *(f"{context:,}" for context in contexts)], rows)


def generation_line(cost: GenerationCost) -> str:
    """A measurement in a line."""
    points = [
        f"{point.context:,} tokens {format_bytes(point.state_bytes)}"
        + (f" {1e3 * point.latency.seconds:.2f} ms" if point.latency else "")
        for point in cost.points
    ]
    return f"{cost.architecture.name} on {cost.task} ({cost.protocol}): {', '.join(points)}"


def format_bytes(count: int) -> str:
    """ "512 B", "33.0 KiB" or "1.50 MiB"."""
    for power, unit in ((2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.3g} {unit}"
    return f"{count} B"


def generation_lines(costs: Sequence[GenerationCost], chart: str, pipes: Callable[[Table], list[str]]) -> list[str]:
    """A part of a Markdown document; chart: the name of their picture."""
    lines = [f"### Generation: bytes of the state by context, at the size for {costs[0].task}", "", SENTENCE, ""]
    lines += [f"![Bytes of the state by context]({chart})", ""] if chart else []
    return [*lines, *pipes(generation_table(costs)), ""]


def generation_chart(costs: Sequence[GenerationCost]) -> Any:
    """The bytes, and below them the latency where one machine has it of two architectures, over the context. Returns an
    Altair chart."""
    import altair as alt

    from zoo.board.charts import COLORS, SHAPES, inline_data, styled

    names = [cost.architecture.name for cost in costs]
    numbers = range(len(names))
    hues = [COLORS[k % len(COLORS)] for k in numbers]
    shapes = [SHAPES[(k + k // len(COLORS)) % len(SHAPES)] for k in numbers]  # another where the colour comes again
    key: dict[str, Any] = {"sort": names, "title": None}
    color = alt.Color("name:N", scale=alt.Scale(domain=names, range=hues), **key)
    shape = alt.Shape("name:N", scale=alt.Scale(domain=names, range=shapes), **key)
    x = alt.X("context:Q", scale=alt.Scale(type="log", base=2), title="tokens before")

    def panel(rows: list[dict[str, Any]], title: str, axis: str) -> Any:
        y = alt.Y("value:Q", scale=alt.Scale(type="log"), title=axis).axis(format="~s")
        chart = alt.Chart(inline_data(rows))
        lines = chart.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=color)
        points = chart.mark_point(filled=True, size=40, opacity=1).encode(x=x, y=y, color=color, shape=shape)
        return (lines + points).properties(width=460, height=260, title=title)

    held = [
        {"name": cost.architecture.name, "context": point.context, "value": point.state_bytes}
        for cost in costs
        for point in cost.points
        if point.state_bytes
    ]
    panels = [panel(held, "state carried from token to token", "bytes of one text")]
    machines = sorted({cost.machine for cost in costs if cost.machine})
    timed = [
        {"name": cost.architecture.name, "context": point.context, "value": point.latency.seconds}
        for cost in costs
        for point in cost.points
        if point.latency and cost.machine == machines[-1]
    ]
    if timed:
        panels.append(panel(timed, f"time of a step on {machines[-1]}", "seconds"))
    return styled(alt.vconcat(*panels))
