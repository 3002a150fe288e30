"""Finding the user's files and reading them, as the tasks of all benchmarks do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any

from zoo.data.cache import sha256
from zoo.data.paths import remembered
from zoo.data.progress import notice
from zoo.data.reading import members
from zoo.spec.errors import DataError

RELEASE = ("", "lra_release", "lra_release/lra_release", "lra")
"""Folders below the named one in which published layouts lie, too."""


def search(path: str, root: Path, name: str, places: Sequence[str], is_it: Callable[[Path], bool]) -> Path | None:
    """The user's folder or file: below `path` if that is said, else in the data directory `root`, else where `--from`
    found the files of the task `name`; one folder deeper in what was named. None where there is none.

    places  where below the release it may be, such as "listops-1000"
    """
    named = Path(path).expanduser().absolute() if path else None
    tops = [named] if named is not None else [root, remembered(root, name)]
    for top in tops:
        if top is None:
            continue
        below = [f"{release}/{place}".strip("/") for release in RELEASE for place in ("", *places)]
        # the data directory itself is never one task's folder; a folder that somebody named may be
        candidates = [top / place if place else top for place in below if place or top is not root]
        found = [c for c in candidates if c.exists() and is_it(c)][:1]
        if not found and top is not root and top.is_dir():
            deeper = sorted({c for place in places for c in top.glob(f"*/{place}") if is_it(c)}, key=_bytes)
            found = deeper[-1:]
            if len(deeper) > 1:
                others = ", ".join(map(str, deeper[:-1]))
                _tell_once(f"{name}: taking the largest, {deeper[-1]}; there are also {others}")
        if found:
            return found[0]
    return None


@cache
def _tell_once(text: str) -> None:
    notice(text)


def _bytes(place: Path) -> tuple[int, str]:
    """How much a candidate holds, by its metadata where it has some."""
    folder = place / "metadata" if (place / "metadata").is_dir() else place
    files = [place] if place.is_file() else folder.iterdir()
    return sum(p.stat().st_size for p in files), str(place)


def stamp(paths: Iterable[Path]) -> list[list[Any]]:
    """What changes when a file does, without reading it. Who reads one that cannot be had will name it."""
    found: list[list[Any]] = []
    for path in paths:
        try:
            status = path.stat()
            found.append([path.name, status.st_size, status.st_mtime_ns])
        except OSError as error:
            found.append([path.name, str(error.strerror)])
    return found


def check_sum(path: Path, published: Mapping[str, str]) -> str:
    """sha256 of a file. Raises DataError when it bears the name of a published file and is another."""
    found = sha256(path)
    expected = published.get(path.name)
    if expected is not None and found != expected:
        raise DataError(
            f"{path}: sha256 {found}, the published file has {expected}; fetch it again (or, if it is your own"
            " archive, give it another name)"
        )
    return found


def listing(entries: Iterable[tuple[str, bytes]]) -> str:
    """sha256 over the (name, sha256 of the contents) of many files, in the order of their names."""
    total = digest()
    for name, key in sorted(entries):
        total.update(f"{key.hex()}  {name}\n".encode())
    return total.hexdigest()


__all__ = ["RELEASE", "check_sum", "listing", "members", "search", "stamp"]
