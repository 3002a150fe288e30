"""Hyperparameters per (task, protocol). No Perceiver was ever published on LRA, so there is no recipe to repeat."""

from __future__ import annotations

from zoo import Preset, Reported

PRESETS: dict[tuple[str, str], Preset] = {}

REPORTED: tuple[Reported, ...] = ()
