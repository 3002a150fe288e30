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
