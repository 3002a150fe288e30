"""Dividing and sampling examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

import numpy as np

from zoo.data.module import Split

HOLD_OUT_ORDER: tuple[Split, ...] = ("test", "val", "train")
"""An example that an earlier split of these has is left out of the later one: test data stay whole."""


class Identified(Protocol):
    """An example with the sha256 of its contents and its place in the user's files, for messages."""

    @property
    def key(self) -> bytes: ...

    @property
    def where(self) -> str: ...


T = TypeVar("T", bound=Identified)


def drop_duplicates(
    splits: Mapping[Split, Iterable[T]], *, within: bool = False
) -> tuple[dict[Split, list[T]], list[str]]:
    """Drop duplicates between splits; return the rest, and a line for each dropped example.

    An example stays in the first of test, val, train that has it. `within`: drop duplicates within a split, too.
    """
    first: dict[bytes, tuple[Split, str]] = {}
    kept: dict[Split, list[T]] = {split: [] for split in HOLD_OUT_ORDER}
    left_out = []
    for split in HOLD_OUT_ORDER:
        for example in splits[split]:
            owner, where = first.setdefault(example.key, (split, example.where))
            if owner == split and (where == example.where or not within):
                kept[split].append(example)
            else:
                left_out.append(f"{example.where} ({split}): the same as {where} ({owner})")
    return kept, left_out


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `weights`, the remainder among the first ones."""
    counts = [total * weight // sum(weights) for weight in weights]
    for i in range(total - sum(counts)):
        counts[i] += 1
    return counts


def evenly_spaced(size: int, limit: int) -> list[int]:
    """Return at most `limit` indices below `size`, evenly spaced."""
    return np.unique(np.linspace(0, size - 1, min(size, limit)).astype(np.int64)).tolist()


def hashed_number(n: int, *parts: object) -> int:
    """Return a number below n that depends on nothing but the parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little") % n


def published_kind(counts: Mapping[Any, int], published: Mapping[str, int]) -> str:
    """What a record calls data with so many examples: "part" where a split has fewer than the published one."""
    return "part" if any(counts[split] < n for split, n in published.items()) else "published"
