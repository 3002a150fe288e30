"""Locate the published files on this machine, and split their examples without duplicates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo import MissingFiles
from zoo.data.finding import check_sum, listing, members, search, stamp
from zoo.data.module import Split

ORDER: tuple[Split, ...] = ("test", "val", "train")
"""Priority of the splits: a duplicate stays in the first of these and is dropped from the later ones."""


def find(
    options: Any, root: Path, name: str, places: Sequence[str], is_it: Callable[[Path], bool], what: str
) -> Path | None:
    """Return the folder of the published files, or None where the data are regenerated.

    places  folders below the release to search, such as "listops-1000"
    is_it   whether a folder has the expected files
    what    those files, for error messages
    Raises MissingFiles where options.path or source=published need files that do not exist.
    """
    if options.source == "regenerated":
        return None
    if not options.path and options.source == "auto" and not options.as_published:
        return None
    folder = search(options.path, root, name, places, is_it)
    if folder is None and (options.path or options.source == "published"):
        raise _missing(options.path or root, places, what)
    return folder


def require(
    options: Any,
    root: Path,
    name: str,
    places: Sequence[str],
    is_it: Callable[[Path], bool],
    what: str,
    needs: str,
) -> Path:
    """Return the file or folder of a task that cannot be generated. Raises MissingFiles, which says what to bring."""
    path = search(options.path, root, name, places, is_it)
    if path is not None:
        return path
    if options.path:
        raise MissingFiles(f"{_missing(options.path, places, what)}; bring {needs}")
    raise MissingFiles(
        f"{name} cannot be generated: bring {needs}; put it in {root}, or name its folder with"
        f" zoo data prepare {name} --from DIR"
    )


def _missing(top: Path | str, places: Sequence[str], what: str) -> MissingFiles:
    return MissingFiles(f"{top}: no {what} there, nor in {', '.join(places)} or lra_release below it")


class Example(NamedTuple):
    """One example of the published files.

    where   file, or file and index, for messages
    key     sha256 of the model's input
    label   its class
    at      the reader's own reference to it, such as an index
    """

    where: str
    key: bytes
    label: int
    at: Any


def in_order(examples: list[Example]) -> list[Example]:
    """Sort examples by their sha256, so that the first examples of a split are a random sample of it."""
    return sorted(examples, key=lambda e: (e.key, e.where))


def divide(train: list[Example], test: list[Example], *, drop: bool) -> tuple[dict[Split, list[Example]], list[str]]:
    """Split a published set that has no validation split; also return a line for each example that is dropped.

    Sorted by sha256, the first tenth of the training examples is val. With `drop`, examples that are in test too are
    removed first, and val is still a tenth of the published number.
    """
    parts: dict[Split, list[Example]] = {"test": in_order(test), "val": [], "train": in_order(train)}
    left_out: list[str] = []
    if drop:
        parts, left_out = disjoint(parts)
    tenth = max(1, len(train) // 10)
    parts["val"], parts["train"] = parts["train"][:tenth], parts["train"][tenth:]
    if drop:
        parts, again = disjoint(parts)
        left_out += again
    return parts, left_out


def disjoint(parts: Mapping[Split, list[Example]]) -> tuple[dict[Split, list[Example]], list[str]]:
    """Drop examples that an earlier split (test, val, train) has too; also return a line for each dropped one."""
    owner: dict[bytes, tuple[Split, str]] = {}
    kept: dict[Split, list[Example]] = {}
    left_out = []
    for split in ORDER:
        kept[split] = []
        for example in parts[split]:
            first = owner.get(example.key)
            if first is None or first[0] == split:
                kept[split].append(example)
                owner.setdefault(example.key, (split, example.where))
            else:
                left_out.append(f"{example.where} ({split}): the same as {first[1]} ({first[0]})")
    return kept, left_out


def count_notes(counts: Mapping[str, int], published: Mapping[str, int], what: str) -> list[str]:
    """Write a line for each split whose number of examples differs from the published one."""
    return [f"{k}: {counts[k]:,} {what}, the published set has {n:,}" for k, n in published.items() if counts[k] != n]


__all__ = [
    "ORDER",
    "Example",
    "check_sum",
    "count_notes",
    "disjoint",
    "divide",
    "find",
    "in_order",
    "listing",
    "members",
    "require",
    "stamp",
]
