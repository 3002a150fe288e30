"""Hyperparameters per (task, protocol). No Perceiver was ever published on LRA, so there is no recipe to repeat."""

from __future__ import annotations

from zoo import Preset, Reported


def _heads(count: int) -> Preset:
    return Preset(
        values={"arch.n_heads": count, "arch.n_cross_heads": count},
        sources={"*": "ours, because fewer heads allow a width nearer to the baseline's parameters"},
    )


PRESETS: dict[tuple[str, str], Preset] = {("pathfinder", "quick"): _heads(2), ("pathx", "quick"): _heads(1)}

REPORTED: tuple[Reported, ...] = ()
