"""What tests call in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def report_and_wait(report: Callable[[dict[str, Any]], None], *, seconds: float) -> str:
    report({"here": 1})
    time.sleep(seconds)
    return "done"
