"""A plugin that lives in the tests."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="in_process",
        title="t",
        family="f",
        paper=Paper(title="t", authors="a", venue="v", year=2024),
        reference=None,
        backbone="m:B",
        config="m:C",
        capabilities=Capabilities(modes=frozenset({"causal"})),
        cost=Cost(time="O(L)", memory="O(L)", time_exponent=1.0, memory_exponent=1.0),
    )
