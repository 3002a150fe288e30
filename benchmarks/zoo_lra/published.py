"""Finding the user's copy of the Long Range Arena release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo import DataError

RELEASE = ("", "lra_release", "lra_release/lra_release", "lra")


def find(options: Any, root: Path, places: Sequence[str], is_it: Callable[[Path], bool], what: str) -> Path | None:
    """The folder to read, or None when the data are to be regenerated.

    places  where below the release it may be, such as "listops-1000"
    Raises DataError when published files are asked for and are not there.
    """
    if options.source == "regenerated":
        return None
    named = Path(options.path).expanduser().absolute() if options.path else None
    if named is None and options.source == "auto" and not options.as_published:
        return None
    top = named or root
    for release in RELEASE:
        for place in ("", *places):
            folder = top / release / place
            if (named is not None or release or place) and is_it(folder):
                return folder
    if named is None and options.source == "auto":
        return None
    raise DataError(f"{top}: no {what} there, nor in {', '.join(places)} or lra_release below it")


def stamp(paths: Sequence[Path]) -> list[list[Any]]:
    """What changes when a file does, without reading it."""
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
