"""Measurements of cost (zoo/spec/cost.py) beside the rows of the board, and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from zoo.board.words import MEMORY
from zoo.spec.config import cost_settings, same_cost
from zoo.spec.cost import BUSY, CostRecord
from zoo.spec.record import Record

MODES: tuple[Literal["train"], Literal["inference"]] = ("train", "inference")


class CostKey(NamedTuple):
    """What decides the cost of a run: names and versions, and the settings that have a part in it."""

    names: tuple[str, ...]
    settings: dict[str, Any]

    @classmethod
    def of(cls, record: Record | CostRecord) -> CostKey:
        architecture, task = record.architecture, record.task
        versions = (architecture.name, architecture.version, task.name, task.version, record.protocol)
        return cls((record.plugin.distribution, *versions), cost_settings(record.config))

    def equals(self, other: CostKey) -> bool:
        """Whether both cost the same; `other` may be older or newer than some settings."""
        return self.names == other.names and same_cost(self.settings, other.settings)


def costs_of(rows: pd.DataFrame, costs: Sequence[CostRecord]) -> pd.Series:
    """The cost of each row of one section by its `cost_key`, the latest that there is; None where there is none.

    All are of one machine, or they could not be compared: the one with costs of most rows; of equals the one that
    measured last.
    """
    measured = [(CostKey.of(cost), cost) for cost in sorted(costs, key=lambda cost: cost.measured, reverse=True)]
    by_machine: dict[str, list[CostRecord | None]] = {}
    for machine in {cost.machine for cost in costs}:
        own = [(key, cost) for key, cost in measured if cost.machine == machine]
        by_machine[machine] = [next((cost for key, cost in own if key.equals(row)), None) for row in rows["cost_key"]]

    def order(machine: str) -> tuple[int, str, str]:
        found = [cost for cost in by_machine[machine] if cost]
        return len(found), max((cost.measured for cost in found), default=""), machine

    best = by_machine[max(by_machine, key=order)] if by_machine else [None] * len(rows)
    return pd.Series(best, rows.index, dtype="object")


def median_speed(cost: CostRecord | None, mode: Literal["train", "inference"]) -> float | None:
    """Real tokens per second."""
    return round(cost.tokens_per_second(mode)[0], 1) if cost else None


def cost_cells(cost: CostRecord | None) -> dict[str, str]:
    """The cells of a row of a task's table."""
    speeds = {f"{mode} tokens/s": "" if cost is None else format_speed(cost, mode) for mode in MODES}
    return speeds | {MEMORY: "" if cost is None else format_memory(cost.memory_bytes)}


def cost_remarks(rows: pd.DataFrame) -> list[str]:
    """How to read the costs in a task's table."""
    costs = [cost for cost in rows["cost"] if cost is not None]
    if not costs:
        return []
    text = f"Tokens/s and {MEMORY} were measured apart from the runs: real tokens a second, the median and in brackets "
    text += "the quartiles of repeated passes over the same batches; what training takes beyond model and data. "
    text += f"On {costs[0].machine}"
    busy = sorted({cost.architecture.name for cost in costs if cost.others > BUSY})
    return [text + (f"; other processes ran meanwhile: {', '.join(busy)}." if busy else ".")]


def cost_line(cost: CostRecord) -> str:
    """A measurement in a line."""
    speeds = ", ".join(f"{mode} {format_speed(cost, mode)} tokens/s" for mode in MODES)
    name = f"{cost.architecture.name} on {cost.task.name} ({cost.protocol})"
    return f"{name}: {speeds}, {format_memory(cost.memory_bytes)}"


def format_speed(cost: CostRecord, mode: Literal["train", "inference"]) -> str:
    """Tokens per second, with the quartiles: "12,300 (12,100–12,400)"."""
    median, low, high = (_rounded(value) for value in cost.tokens_per_second(mode))
    return f"{median} ({low}–{high})"


def _rounded(value: float) -> str:
    """With three digits: 12345.6 -> "12,300"."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def format_memory(count: int) -> str:
    """ "1.50 GiB" or "64 MiB"."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
