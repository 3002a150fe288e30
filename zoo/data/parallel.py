"""Work in threads, results in order. Compiled generators release the interpreter's lock, so threads are enough."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from zoo.spec.errors import UserError

T = TypeVar("T")


def worker_count() -> int:
    """Return `ZOO_DATA_WORKERS`, else the number of processors that this process may use."""
    value = os.environ.get("ZOO_DATA_WORKERS", "").strip()
    if value:
        if not value.isdecimal() or int(value) < 1:
            raise UserError(f"ZOO_DATA_WORKERS={value!r}: expected a positive number")
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ranges(work: Callable[[int, int], T], start: int, stop: int, step: int) -> Iterator[T]:
    """Yield `work(first, count)` over [start, stop) in ranges of `step`, in order. At most two ranges per worker wait,
    so that memory is bounded (which Executor.map does not do)."""
    n = worker_count()
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(n)
    try:
        for first in range(start, stop, step):
            waiting.append(pool.submit(work, first, min(step, stop - first)))
            if len(waiting) > 2 * n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
