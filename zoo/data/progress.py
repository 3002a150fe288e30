"""Progress bars and notices on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm

if TYPE_CHECKING:
    from zoo.data.module import Progress

_quiet: ContextVar[bool] = ContextVar("zoo_quiet", default=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress bars and notices within (`--json`)."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def notice(text: str, *, always: bool = False) -> None:
    """Print one line on stderr, unless quiet; `always` for what a person must know before it happens."""
    if always or not _quiet.get():
        print(f"zoo: {text}", file=sys.stderr)


@contextlib.contextmanager
def progress(title: str, unit: Literal["examples", "bytes", "runs"] = "examples") -> Iterator[Progress]:
    """Yield `update(done, total)` of a progress bar on a terminal, shown after two seconds; a total of 0 is unknown."""
    size = {"unit": "B", "unit_scale": True} if unit == "bytes" else {"unit": f" {unit}"}
    # a dumb terminal cannot go back to the beginning of the line; None: unless stderr is a terminal
    silent = True if _quiet.get() or os.environ.get("TERM") in ("dumb", "unknown") else None
    line = "{desc}: {n_fmt}/{total_fmt} left {remaining} |{bar}| {rate_fmt}"
    with tqdm(desc=title, delay=2, leave=False, disable=silent, file=sys.stderr, bar_format=line, **size) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield update
