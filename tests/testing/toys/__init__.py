"""Two correct architectures, and faults to plant in them. Imports no torch, like any plugin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zoo import Architecture, Capabilities, Cost, Paper

PAPER = Paper(title="A toy", authors="Nobody", venue="nowhere", year=2020)

EMA = Architecture(
    name="toy_ema",
    title="Gated moving average",
    family="toy",
    paper=PAPER,
    reference=None,
    backbone="tests.testing.toys.backbone:EMA",
    config="tests.testing.toys.config:ToyConfig",
    capabilities=Capabilities(
        modes=frozenset({"causal", "bidirectional"}), state="recurrent", chunk_exact=True, state_grad=True, step=True
    ),
    cost=Cost(time="O(L)", memory="O(L)", time_exponent=1.0, memory_exponent=1.0),
)
MEMORY = Architecture(
    name="toy_memory",
    title="Attention over this segment and the last",
    family="toy",
    paper=PAPER,
    reference=None,
    backbone="tests.testing.toys.backbone:Memory",
    config="tests.testing.toys.config:ToyConfig",
    capabilities=Capabilities(
        modes=frozenset({"causal"}), state="memory", segment=True, length="max", positions="external"
    ),
    cost=Cost(time="O(L)", memory="O(L)", time_exponent=1.0, memory_exponent=1.0),
)


def declaring(architecture: Architecture, cost: dict[str, Any] | None = None, **capabilities: Any) -> Architecture:
    """The same architecture with other declarations."""
    return replace(
        architecture,
        capabilities=replace(architecture.capabilities, **capabilities),
        cost=replace(architecture.cost, **(cost or {})),
    )
