"""Handlers of the signals that end a run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and how schedulers end a job."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Block STOPPING, and in processes that are started meanwhile until they call `let_through`: without a handler, a
    signal while Python imports is a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """End what `held_back` began in the parent process; signals that came meanwhile are delivered."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


@contextlib.contextmanager
def handlers(handler: Any) -> Iterator[None]:
    """Set the handler of STOPPING, where this is the main thread; a signal that is ignored (nohup, `&`) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {each: signal.getsignal(each) for each in STOPPING}
    before = {each: old for each, old in before.items() if old is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, handler)
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, old)
