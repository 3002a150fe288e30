"""What a command prints can neither fail for want of a character nor, where it only reports, end the work."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


def replace_unprintable() -> None:
    """Print `?` for what the terminal's encoding lacks, on both streams."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def keep_working(*names: str) -> None:
    """Go on, silently, when nobody reads the streams of these names ("stdout", "stderr") any more."""
    for name in names:
        stream = getattr(sys, name) or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
        setattr(sys, name, _Tolerant(stream))  # it is None where it was closed


class _Tolerant:
    """A stream that discards what it cannot write: the reader of the pipe or the terminal is gone, or the disk full."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())  # or flushing at exit would fail, too
