"""Where data are stored, and how a user's files are located. `data_dir` and `cache_dir` are from `spec.files`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from shlex import quote

from zoo.data.files import file_lock, is_archive, oserror_as_data_error, write_atomically
from zoo.data.progress import notice
from zoo.spec.errors import DataError
from zoo.spec.files import cache_dir, user_path
from zoo.spec.files import data_dir as data_dir

LOCATIONS = "places.json"
"""In the cache: task -> folder that `zoo data prepare TASK --from DIR` named."""
RELEASES = ("", "lra_release", "lra_release/lra_release", "lra")
"""Folders of published releases below a data directory, in which a task's own folder is looked for, too."""


def save_location(root: Path, task: str, folder: Path) -> None:
    """Record the folder of a task's files, so that later commands find it without `--from`."""
    directory = cache_dir(root)
    with oserror_as_data_error(directory, ours=True):
        directory.mkdir(parents=True, exist_ok=True)
        with file_lock(directory / f"{LOCATIONS}.lock", f"waiting for {directory / LOCATIONS}"):
            locations = _read_locations(root) | {task: str(folder.absolute())}
            write_atomically(directory / LOCATIONS, json.dumps(locations, indent=1))


def saved_location(root: Path, task: str) -> Path | None:
    """Return the recorded folder of a task's files, if there is one."""
    folder = _read_locations(root).get(task)
    return Path(folder) if folder else None


def _read_locations(root: Path) -> dict[str, str]:
    path = cache_dir(root) / LOCATIONS
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
    except OSError:
        return {}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and name the files again with --from") from error


def find_files(path: str, root: Path, task: str, names: Sequence[str], accept: Callable[[Path], bool]) -> Path | None:
    """Find the folder or file with a task's files; None where there is none.

    path    searched alone where it is not empty, and also one level deeper; else the data directory `root` and the
            saved location of `task` are searched
    names   where below these folders (or a release in them) the files may be, such as "corpus-v1"
    accept  whether a candidate holds the files
    """
    tops = [user_path(path)] if path else [root, saved_location(root, task)]
    for top in filter(None, tops):
        below = [f"{release}/{name}".strip("/") for release in RELEASES for name in ("", *names)]
        # the data directory itself is never one task's folder; a folder that somebody named may be
        candidates = [top / name if name else top for name in below if name or top is not root]
        for candidate in candidates:
            with oserror_as_data_error(candidate):
                if os.path.exists(candidate) and accept(candidate):
                    return candidate
        if top is not root and os.path.isdir(top):
            deeper = sorted({c for name in names for c in top.glob(f"*/{name}") if accept(c)}, key=_size_and_name)
            if len(deeper) > 1:
                others = ", ".join(map(str, deeper[:-1]))
                _notice_once(f"{task}: taking the largest, {deeper[-1]}; there are also {others}")
            if deeper:
                return deeper[-1]
    return None


def advice_for_file(path: str) -> str:
    """What to do with a file that is no place of a task's files; empty where `path` is a folder or nothing."""
    place = user_path(path)
    if not os.path.isfile(place):
        return "" if os.path.isdir(place) else "; there is no such file or folder"
    archive, name = is_archive(place), quote(str(place))
    unpack = f"tar -xf {name}" if archive else {".gz": f"gunzip -k {name}", ".zip": f"unzip {name}"}.get(place.suffix)
    if unpack:
        return f"; it is packed: unpack it with {unpack} and name the folder"
    return f"; it is a file: name its folder, {quote(str(place.parent))}"


@cache
def _notice_once(text: str) -> None:
    notice(text)


def _size_and_name(place: Path) -> tuple[int, str]:
    """Bytes of a candidate's files, of its metadata where it has some."""
    folder = place / "metadata" if (place / "metadata").is_dir() else place
    files = [place] if place.is_file() else folder.iterdir()
    return sum(p.stat().st_size for p in files), str(place)
