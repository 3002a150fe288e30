"""What one more token costs by the length of its context: bytes of the carried state, and the time of a step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from zoo.board.part import Panel, Part, lines_chart
from zoo.board.tables import Table
from zoo.spec.generation import GenerationCost

SENTENCE = (
    "The bytes that an architecture carries of one text from token to token, at the size that it has under this "
    "protocol, in float32: a state of fixed size, a window, keys and values of every token, or (encoder-decoders) the "
    'encoded source. "no cache": nothing is carried, and the whole text is computed '
    "again for every token."
)

TIMED = " The picture has the time of the next token, too, on one machine."


def latest(costs: Sequence[GenerationCost]) -> list[list[GenerationCost]]:
    """Records by protocol and task, in the order of architectures; of several shapes of one architecture the one that
    was measured last."""
    found: dict[tuple[str, str], dict[str, GenerationCost]] = {}
    for cost in sorted(costs, key=lambda cost: (cost.protocol, cost.task, cost.architecture.name, cost.measured)):
        found.setdefault((cost.protocol, cost.task), {})[cost.architecture.name] = cost
    return [list(own.values()) for own in found.values()]


def generation_table(costs: Sequence[GenerationCost]) -> Table:
    """A row for each architecture: the bytes after each number of tokens."""
    contexts = sorted({point.context for cost in costs for point in cost.points})
    rows = []
    for cost in costs:
        held = {point.context: format_bytes(point.state_bytes) for point in cost.points}
        rows.append([cost.architecture.name, *(held.get(context, "") for context in contexts)])
    return Table(["architecture", *(f"{context:,} tokens" for context in contexts)], rows)


def generation_line(cost: GenerationCost) -> str:
    """A measurement in a line."""
    points = [
        f"{point.context:,} tokens {format_bytes(point.state_bytes)}"
        + (f" {1e3 * point.latency.seconds:.2f} ms" if point.latency else "")
        for point in cost.points
    ]
    return f"{cost.architecture.name} on {cost.task} ({cost.protocol}): {', '.join(points)}"


def format_bytes(count: int) -> str:
    """ "512 B", "33.0 KiB" or "1.50 MiB"; of 0 what the architecture does instead."""
    if not count:
        return "no cache"
    for power, unit in ((2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.3g} {unit}"
    return f"{count} B"


def generation_parts(costs: Sequence[GenerationCost]) -> list[Part]:
    """The parts of the board, task by task."""
    return [
        Part(
            own[0].protocol,
            f"Generation: bytes of the state by context, at the size for {own[0].task}",
            SENTENCE + (TIMED if any(cost.machine for cost in own) else ""),
            generation_table(own),
            f"generation-{own[0].protocol}-{own[0].task}.svg",
            partial(generation_chart, own),
        )
        for own in latest(costs)
    ]


def generation_chart(costs: Sequence[GenerationCost]) -> Any:
    """The bytes, and below them the latency where it was measured, of one machine, over the context. Returns an Altair
    chart."""
    held = {
        cost.architecture.name: [(point.context, point.state_bytes) for point in cost.points if point.state_bytes]
        for cost in costs
    }
    panels: list[Panel] = [("state carried from token to token", "bytes of one text", "B", held)]
    if machines := sorted({cost.machine for cost in costs if cost.machine}):
        timed = {
            cost.architecture.name: [(point.context, point.latency.seconds) for point in cost.points if point.latency]
            for cost in costs
            if cost.machine == machines[-1]
        }
        panels.append((f"time of the next token on {machines[-1]}", "time", "s", timed))
    return lines_chart(panels, "tokens before")
