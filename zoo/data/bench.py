"""Speed of loading examples, and the memory that it takes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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


def measure_step(step: Callable[[Batch], None], batches: Sequence[Batch], seconds: float) -> float:
    """Samples per second of `step`, called with the batches over and over; the first call is not counted."""
    step(batches[0])
    began, samples, i = time.perf_counter(), 0, 0
    while samples == 0 or time.perf_counter() - began < seconds:
        batch = batches[i % len(batches)]
        step(batch)
        samples, i = samples + batch.inputs.shape[0], i + 1
    return samples / (time.perf_counter() - began)
