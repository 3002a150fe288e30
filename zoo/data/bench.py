"""Speed of loading examples and of what is done with them, and the memory that it takes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import psutil

from zoo.data.batch import Batch


@dataclass(frozen=True)
class LoadingSpeed:
    """Measurements of a loader.

    first_seconds  until its first batch
    samples        examples in the batches after the first
    tokens         real tokens of these
    seconds        that these took
    megabytes      largest growth of this process's memory meanwhile; pages of mapped files, which the system takes back
                   when it needs them, are not counted
    """

    first_seconds: float
    samples: int
    tokens: int
    seconds: float
    megabytes: float

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.seconds if self.seconds else float("nan")

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else float("nan")


def measure_loading(batches: Iterable[Batch], seconds: float) -> LoadingSpeed:
    """Read a fresh loader for `seconds`, or until it ends."""
    began = time.perf_counter()
    reader = iter(batches)
    next(reader, None)
    first = time.perf_counter() - began
    gc.collect()
    before = peak = private_memory()
    sampled = began = now = time.perf_counter()
    samples = tokens = 0
    for batch in reader:
        samples += batch.inputs.shape[0]
        tokens += int(batch.n_tokens)
        now = time.perf_counter()
        if now - sampled > 0.05:
            peak, sampled = max(peak, private_memory()), now
        if now - began > seconds:
            break
    grown = max(0.0, max(peak, private_memory()) - before)
    return LoadingSpeed(first, samples, tokens, now - began, grown / 1e6)


def private_memory() -> float:
    """Bytes of this process's memory without pages of files."""
    memory = psutil.Process().memory_info()
    return float(memory.rss - getattr(memory, "shared", 0))


@dataclass(frozen=True)
class Timing:
    """Seconds that an example takes, over several passes: the median and the quartiles."""

    seconds: float
    low: float
    high: float
    passes: int


MOST_PASSES = 50
PASS_SECONDS = 0.4
"""How long one pass over a few batches is to take."""


def take_batches(
    call: Callable[[Batch], object], batches: Iterable[Batch], seconds: float = PASS_SECONDS, most: int = 32
) -> list[Batch]:
    """The first batches, as many as `call` takes `seconds` for, which is tried with the first."""
    kept = list(islice(batches, 1))
    for batch in kept:  # the first call, which sets up much, and one that is like the others
        call(batch)
        began = time.perf_counter()
        call(batch)
        most = min(most, int(seconds / (time.perf_counter() - began)))
    return kept + list(islice(batches, max(most - 1, 0)))


def time_passes(call: Callable[[Batch], object], batches: Sequence[Batch], seconds: float, least: int = 3) -> Timing:
    """How long `call` takes with the batches, over and over for `seconds`, `least` passes however long they take; the
    first call is not counted."""
    call(batches[0])
    examples = sum(batch.inputs.shape[0] for batch in batches)
    times: list[float] = []
    while len(times) < least or (math.fsum(times) < seconds and len(times) < MOST_PASSES):
        began = time.perf_counter()
        for batch in batches:
            call(batch)
        times.append(time.perf_counter() - began)
    low, median, high = (float(t) / examples for t in np.quantile(times, [0.25, 0.5, 0.75]))
    return Timing(median, low, high, len(times))


@contextlib.contextmanager
def memory_growth(grown: list[float]) -> Iterator[None]:
    """Append to `grown` by how many bytes this process's memory grew within at most, looking every millisecond."""
    release_memory()
    before = peak = private_memory()
    ended = threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(0.001):
            peak = max(peak, private_memory())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        grown.append(max(peak, private_memory()) - before)


def release_memory() -> None:
    """Give memory that nothing uses back to the system, where the C library can (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
