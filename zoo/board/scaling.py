"""How the time and memory of training grow with the length of the input, from costs at several lengths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from zoo.board.costs import format_memory
from zoo.board.headings import describe_task
from zoo.board.part import Panel, Part, lines_chart
from zoo.board.tables import NONE, Table
from zoo.spec.cost import BUSY, CostRecord

FITTED = 3
"""The longest lengths to which an exponent is fitted; a study has as many at least."""
Lines = dict[str, list[CostRecord]]
"""By architecture its costs, by length."""


def scaling_parts(costs: Sequence[CostRecord]) -> list[Part]:
    """The parts of the board: of each protocol and task with several lengths, those of one machine."""
    found: dict[tuple[str, str], dict[str, list[CostRecord]]] = {}
    for cost in costs:
        found.setdefault((cost.protocol, cost.task.name), {}).setdefault(cost.machine, []).append(cost)
    parts = []
    for (protocol, task), by_machine in sorted(found.items()):
        studies = [(machine, lines) for machine, own in by_machine.items() if (lines := _lines(own))]
        if not studies:
            continue
        machine, lines = max(studies, key=lambda study: (sum(map(len, study[1].values())), study[0]))
        parts.append(
            Part(
                protocol,
                f"Cost over length: training on {task}",
                f"{describe_task(task)}{_sentence(machine, lines)}",
                scaling_table(lines),
                f"scaling-{protocol}-{task}.svg",
                partial(scaling_chart, lines, machine),
            )
        )
    return parts


def _lines(costs: Sequence[CostRecord]) -> Lines:
    """Of each architecture the newest cost at each length, where there are enough lengths of one width and depth."""
    models: dict[tuple[str, Any, Any], dict[int, CostRecord]] = {}
    for cost in sorted(costs, key=lambda cost: (cost.architecture.name, cost.measured)):
        model: Any = cost.config.get("model", {})
        size = (model.get("d_model"), model.get("n_layers"))
        models.setdefault((cost.architecture.name, *size), {})[round(cost.places)] = cost
    lines: Lines = {}
    for (name, *_), by_length in models.items():
        if len(by_length) >= FITTED:
            lines[name] = [by_length[length] for length in sorted(by_length)]
    return lines


def _sentence(machine: str, lines: Lines) -> str:
    busy = sorted(name for name, costs in lines.items() if any(cost.others > BUSY for cost in costs))
    text = (
        f"Seconds and memory beyond model and data that training takes for one example, on {machine}; each "
        f"architecture at its width for this protocol. Exponents are fitted to the {FITTED} longest lengths: at short "
        "ones what does not depend on the length hides the growth. A step has about as many tokens at every length: "
        "long examples come in small batches, where what is done one after the other, segment by segment, weighs more."
    )
    return text + (f" Other processes ran meanwhile: {', '.join(busy)}." if busy else "")


def time_points(costs: Sequence[CostRecord]) -> list[tuple[float, float]]:
    """Positions of an example, and its seconds in training."""
    return [(round(cost.places), cost.train.seconds) for cost in costs]


def memory_points(costs: Sequence[CostRecord]) -> list[tuple[float, float]]:
    """Positions of an example, and the bytes that training takes for it."""
    points = [(round(cost.places), cost.memory_bytes / cost.batch_size) for cost in costs]
    return [point for point in points if point[1] > 0]


def fit_exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent b of a length^b, by least squares of the logarithms over the longest; None for too few points."""
    if len(points) < FITTED:
        return None
    x, y = np.log(np.array(points[-FITTED:])).T
    return float(np.polyfit(x, y, 1)[0])


def scaling_table(lines: Lines) -> Table:
    """A row for each architecture: exponents, and what an example of the longest length takes."""
    rows = []
    for name, costs in lines.items():
        exponents = [fit_exponent(points) for points in (time_points(costs), memory_points(costs))]
        shown = [NONE if exponent is None else f"L^{exponent:.2f}" for exponent in exponents]
        last = costs[-1]
        memory = format_memory(last.memory_bytes // last.batch_size)
        rows.append([name, *shown, f"{round(last.places):,}", _format_seconds(last.train.seconds), memory])
    return Table(["architecture", "time grows as", "memory grows as", "longest", "time there", "memory there"], rows)


def _format_seconds(seconds: float) -> str:
    """ "118 ms" or "1.26 s"."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def scaling_chart(lines: Lines, machine: str) -> Any:
    """Time and memory of an example over its length. Returns an Altair chart."""
    times = {name: time_points(costs) for name, costs in lines.items()}
    memory = {name: memory_points(costs) for name, costs in lines.items()}
    panels: list[Panel] = [
        (f"time of training on {machine}", "time of an example", "s", times),
        ("memory of training", "memory of an example", "B", memory),
    ]
    return lines_chart(panels, "positions of an example")
