"""Hyperparameters per (task, protocol). Nobody published a Long Range Arena run of Hyena: all of it is ours."""

from __future__ import annotations

from zoo import Preset, Reported

PRESETS: dict[tuple[str, str], Preset] = {}

REPORTED: tuple[Reported, ...] = ()
