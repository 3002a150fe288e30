"""Work in threads, results in order. Compiled generators release the interpreter's lock, so threads are enough."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from zoo.spec.errors import UserError

T = TypeVar("T")


def workers() -> int:
    """`ZOO_DATA_WORKERS`, else the processors that this process may use."""
    named = os.environ.get("ZOO_DATA_WORKERS", "").strip()
    if named:
        if not named.isdecimal() or int(named) < 1:
            raise UserError(f"ZOO_DATA_WORKERS={named!r}: expected a positive number")
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(work: Callable[[int, int], T], start: int, stop: int, step: int) -> Iterator[T]:
    """`work(first, count)` over [start, stop) in pieces of `step`, a few at once, yielded in order."""
    n = workers()
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
