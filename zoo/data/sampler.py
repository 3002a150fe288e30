"""Which examples the training stream consists of, and which part of it one validation interval reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

POOL = 50
"""Batches that are sorted by length together: enough that the lengths of a batch differ by a few percent."""


class StreamOrder:
    """Indices of training samples: permutation after permutation of the data, fixed by the seed.

    lengths  (size,) of the examples: those of one batch then have about the same length, see `group_by_length`;
             None = they are all alike
    rows     samples of a batch, that is of an optimiser step, with the micro-batches of all devices

    Yields the samples [start, stop) of that endless stream: a run that resumes after k samples builds it with
    `start=k` and sees exactly what the unbroken run would have. Of `world` devices each takes every world-th sample.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        stop: int,
        start: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
        lengths: np.ndarray | None = None,
        rows: int = 1,
    ) -> None:
        if size < 1:
            raise ValueError("an empty training split")
        if lengths is not None and len(lengths) != size:
            raise ValueError(f"{len(lengths)} lengths of {size} examples")
        self.size, self.seed, self.stop, self.start = size, seed, stop, start
        self.rank, self.world = rank, world
        self.lengths, self.rows = lengths, rows

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.stop, self.world))

    def __iter__(self) -> Iterator[int]:
        epoch = -1
        order: np.ndarray = np.empty(0, dtype=np.int64)
        for k in range(self.start + self.rank, self.stop, self.world):
            if k // self.size != epoch:
                epoch = k // self.size
                order = self._epoch(epoch)
            yield int(order[k % self.size])

    def _epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.size)
        if self.lengths is None:
            return order
        return group_by_length(order, self.lengths, self.rows, -epoch * self.size % self.rows, rng)


def group_by_length(
    order: np.ndarray, lengths: np.ndarray, rows: int, first: int, rng: np.random.Generator
) -> np.ndarray:
    """Rearrange an epoch so that the samples of a batch have about the same length, and batches come in random order.

    order  (n,) the epoch in random order: indices into `lengths`
    first  samples of the epoch that end the batch which the epoch before began; its own last batch may be cut off too

    Pools of about POOL batches, as the order has them, are sorted by length and cut into batches anew, so that every
    epoch puts other examples together. Within a batch lengths ascend: micro-batches are even more alike.
    """
    edges = np.unique([0, *range(min(first, len(order)), len(order), rows), len(order)])
    batches = np.array(list(pairwise(edges)))
    grouped = np.empty_like(order)
    for pool in np.array_split(batches, -(-len(batches) // POOL)):
        samples = order[pool[0, 0] : pool[-1, 1]]
        samples = samples[np.argsort(lengths[samples], kind="stable")]
        taken = 0
        for start, stop in rng.permutation(pool):
            grouped[start:stop] = samples[taken : taken + stop - start]
            taken += stop - start
    return grouped


class IntervalSampler:
    """The samples of one validation interval, which is Lightning's epoch: `set_epoch` moves to another interval.

    order        (start, stop) -> the samples [start, stop) of the training stream
    interval     samples between two validations
    max_samples  samples of the whole run; the last interval may be shorter
    """

    def __init__(self, order: Callable[[int, int], Any], interval: int, max_samples: int) -> None:
        self.order, self.interval, self.max_samples = order, interval, max_samples
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the interval; Lightning calls this with its epoch, also after it resumed from a checkpoint."""
        self.epoch = epoch

    def _current(self) -> Any:
        start = self.epoch * self.interval
        return self.order(start, min(start + self.interval, self.max_samples))

    def __len__(self) -> int:
        return len(self._current())

    def __iter__(self) -> Iterator[int]:
        return iter(self._current())
