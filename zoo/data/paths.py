"""Where data lie."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import platformdirs
from filelock import FileLock

from zoo.spec.errors import DataError

PLACES = "places.json"
"""In the cache: task -> where `zoo data prepare TASK --from DIR` found the user's files."""


def data_dir() -> Path:
    """`ZOO_DATA_DIR`, else `seqzoo` under the platform's cache directory. Not created."""
    return _named("ZOO_DATA_DIR") or Path(platformdirs.user_cache_dir("seqzoo"))


def cache_dir(root: Path) -> Path:
    """Where what is prepared from the data directory `root` goes: `ZOO_CACHE_DIR`, else `root` itself, or, where that
    must not be written to (published files on a read-only disk), `seqzoo` under the platform's cache directory."""
    named = _named("ZOO_CACHE_DIR")
    return named if named is not None else downloads_dir(root)


def downloads_dir(root: Path) -> Path:
    """Where downloaded files go: the data directory `root`, or, where that must not be written to, `ZOO_CACHE_DIR`,
    else `seqzoo` under the platform's cache directory."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if os.access(there, os.W_OK):
        return root
    return _named("ZOO_CACHE_DIR") or Path(platformdirs.user_cache_dir("seqzoo"))


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable, "").strip()
    return Path(value).expanduser().absolute() if value else None


def remember(root: Path, task: str, place: Path) -> None:
    """Let later commands find a task's files where `--from` found them."""
    from zoo.data.cache import write_atomically

    cache = cache_dir(root)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{PLACES}.lock"):
        write_atomically(cache / PLACES, json.dumps(_places(root) | {task: str(place.absolute())}, indent=1))


def remembered(root: Path, task: str) -> Path | None:
    """Where `--from` found a task's files before, if anywhere."""
    found = _places(root).get(task)
    return Path(found) if found else None


def _places(root: Path) -> dict[str, str]:
    path = cache_dir(root) / PLACES
    with contextlib.suppress(FileNotFoundError):
        try:
            return {str(k): str(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
        except (ValueError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}); delete it and name the files again with --from") from error
    return {}
