"""Write prepared data in the layout of the published files, for other people's code."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from zoo.data.cached import CachedData
from zoo.data.module import SPLITS, Split, TaskData
from zoo.interface.errors import UserError


def shares(sizes: Mapping[Split, int], limit: int | None) -> dict[Split, int]:
    """At most `limit` examples in all, shared between the splits by their sizes, at least one each."""
    total = sum(sizes.values())
    if limit is None or limit >= total:
        return dict(sizes)
    if limit < len(sizes):
        raise UserError(f"--limit {limit}: expected at least {len(sizes)}, one example of each split")
    small = {split: max(1, limit * sizes[split] // total) for split in ("val", "test") if split in sizes}
    return {split: small.get(split, limit - sum(small.values())) for split in sizes}


def limited(data: TaskData, limit: int | None) -> TaskData:
    """The same data with no more examples than an export of `limit` needs, unless all are prepared already."""
    if limit is None or not isinstance(data, CachedData) or data.prepared():
        return data
    sizes: dict[Split, int] = {split: getattr(data.options, f"{split}_size") for split in SPLITS}
    return type(data)(replace(data.options, **{f"{s}_size": n for s, n in shares(sizes, limit).items()}), data.root)


def export(data: TaskData, to: Path, *, limit: int | None = None, force: bool = False) -> dict[str, int]:
    """Write a prepared task's examples into the folder `to`, all or `limit` of them; returns how many per split.

    `to` appears whole or not at all. Raises UserError when it is there and not empty; with `force` it is replaced,
    but only if it holds nothing but an earlier export.
    """
    if not isinstance(data, CachedData) or type(data).write_published is CachedData.write_published:
        raise UserError("this task has no published layout to export to")
    counts = shares({split: len(data.stored(split)) for split in SPLITS}, limit)
    to = to.expanduser().absolute()
    present = sorted(p.name for p in to.iterdir()) if to.is_dir() else [to.name] if to.exists() else []
    if present and not force:
        raise UserError(f"{to} is not empty; choose another folder or add --force")
    with _whole(to) as folder:
        names = data.write_published(folder, counts)
        foreign = set(present) - set(names)
        if foreign:
            raise UserError(f"{to} holds what is no export ({', '.join(sorted(foreign)[:3])}); not replaced")
    return {split: counts[split] for split in SPLITS}


@contextlib.contextmanager
def _whole(to: Path) -> Iterator[Path]:
    """A temporary folder beside `to` that takes its place when all went well."""
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (to.with_name(f".{to.name}.{what}-{os.getpid()}") for what in ("new", "old"))
    temporary.mkdir()
    try:
        yield temporary
        if to.exists():
            os.rename(to, old)
        os.rename(temporary, to)
        if old.exists():
            shutil.rmtree(old)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
