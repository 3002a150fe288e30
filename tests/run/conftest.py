"""Helpers of the tests of runs."""

from __future__ import annotations

from typing import Any

from zoo.run.compose import Experiment
from zoo.run.request import BenchRequest, resolve


def resolve_one(arch: str, task: str, **fields: Any) -> Experiment:
    """The only experiment of a request."""
    (experiment,) = resolve(BenchRequest.parse(arch, task, **fields))
    return experiment
