"""Which examples the training stream consists of, and which part of it one validation interval reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler


class StreamOrder(Sampler[int]):
    """Indices of training samples: permutation after permutation of the data, fixed by the seed.

    Yields the samples [start, stop) of that endless stream: a run that resumes after k samples builds it with
    `start=k` and sees exactly what the unbroken run would have. Of `world` devices each takes every world-th sample.
    """

    def __init__(self, size: int, seed: int, stop: int, start: int = 0, *, rank: int = 0, world: int = 1) -> None:
        if size < 1:
            raise ValueError("an empty training split")
        self.size, self.seed, self.stop, self.start = size, seed, stop, start
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.stop, self.world))

    def __iter__(self) -> Iterator[int]:
        epoch = -1
        order: np.ndarray = np.empty(0, dtype=np.int64)
        for k in range(self.start + self.rank, self.stop, self.world):
            if k // self.size != epoch:
                epoch = k // self.size
                order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
            yield int(order[k % self.size])


class IntervalSampler(Sampler[int]):
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
