"""Sweeps: every architecture tries the same few settings, and the best of them on validation represents it.

The trials run with the first seed. Which won follows from their records alone, so that the board (zoo/board/results.py)
and a later call of the same command find the same.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.spec.constraints import Written
from zoo.spec.errors import UserError

Trials = tuple[Mapping[str, Any], ...]
"""Dotted configuration keys and values of each trial."""


def parse_sweep(sweep: Sequence[str] | Mapping[str, Any], samples: int | None = None) -> Trials:
    """The trials of ["optim.lr=0.001,0.003", …], or of {"optim.lr": [0.001, 0.003], …}: the product of the lists.

    samples  this many of the product, drawn at random but always the same; None = all

    Raises UserError.
    """
    grid: dict[str, list[Any]] = {}
    items = sweep.items() if isinstance(sweep, Mapping) else [_split(item) for item in sweep]
    for key, values in items:
        if key in grid:
            raise UserError(f"--sweep {key}: given twice")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise UserError(f"--sweep {key}: expected several values, such as 0.001,0.003,0.01")
        if len({str(value) for value in values}) < len(values):
            raise UserError(f"--sweep {key}: a value is there twice")
        grid[key] = list(values)
    trials = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())] if grid else []
    if samples is None:
        return tuple(trials)
    if not 1 <= samples <= len(trials):
        raise UserError(f"--sweep-samples {samples}: expected 1 to {len(trials)}, the number of all trials")
    drawn = random.Random(0).sample(range(len(trials)), samples)
    return tuple(trials[k] for k in sorted(drawn))


def _split(item: str) -> tuple[str, list[Written]]:
    key, equals, values = item.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--sweep {item!r}: expected key=value,value,…, such as optim.lr=0.001,0.003,0.01")
    return key.strip(), [Written(value.strip()) for value in values.split(",") if value.strip()]
