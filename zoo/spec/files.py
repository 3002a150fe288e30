"""Default folders of results, runs and data, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo.spec.errors import UserError


def default_results_dir() -> Path:
    """Where records go unless a folder is given: `ZOO_RESULTS_DIR`, else ./leaderboard/results."""
    return Path(os.environ.get("ZOO_RESULTS_DIR") or Path("leaderboard") / "results")


def default_runs_dir() -> Path:
    """Where checkpoints and logs go unless a folder is given: `ZOO_RUNS_DIR`, else ./runs."""
    return Path(os.environ.get("ZOO_RUNS_DIR") or "runs")


def data_dir() -> Path:
    """Return `ZOO_DATA_DIR`, else `seqzoo` under the platform's cache directory. It is not created."""
    return _directory_from("ZOO_DATA_DIR") or _platform_dir()


def cache_dir(root: Path) -> Path:
    """Return where data prepared from the data directory `root` are stored: `ZOO_CACHE_DIR`, else `root`, or, where
    that is read-only, `seqzoo` under the platform's cache directory."""
    return _directory_from("ZOO_CACHE_DIR") or downloads_dir(root)


def downloads_dir(root: Path) -> Path:
    """Return where downloaded files are stored: the data directory `root`, or, where that is read-only,
    `ZOO_CACHE_DIR`, else `seqzoo` under the platform's cache directory."""
    # Path.exists raises where a folder on the way may not be entered
    existing = next(folder for folder in (root, *root.parents) if os.path.exists(folder))
    if os.access(existing, os.W_OK):
        return root
    return _directory_from("ZOO_CACHE_DIR") or _platform_dir()


def _platform_dir() -> Path:
    import platformdirs  # not for commands that only list

    folder = Path(platformdirs.user_cache_dir("seqzoo"))
    if not folder.is_absolute():  # "~" stays where there is neither HOME nor an entry for the user
        raise UserError("this user has no home directory to store data in: name a folder with ZOO_DATA_DIR")
    return folder


def _directory_from(variable: str) -> Path | None:
    value = os.environ.get(variable, "")
    return user_path(value) if value.strip() else None


def user_path(path: Path | str) -> Path:
    """The absolute path that a person means: as it stands, but for a leading ~."""
    return Path(os.path.expanduser(path)).absolute()  # Path.expanduser raises where there is no such home


def write_atomically(path: Path | str, text: str) -> None:
    """Put `text` at `path`, replacing what is there: whole or not at all, whenever the process or machine dies."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with placed_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_temporary(path: Path, text: str) -> Path:
    """A new file beside `path` that holds `text`, flushed to the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextlib.contextmanager
def placed_atomically(path: Path) -> Iterator[Path]:
    """Give the name of a new file beside `path`; what is written there replaces `path`, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("r+b") as file:  # Windows flushes what may be written to
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def placed_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path`; what is written there replaces `path`, all of it or, with an exception, none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
        folder = Path(temporary) / path.name
        folder.mkdir()
        yield folder
        if path.exists():
            path.rename(Path(temporary) / ".replaced")
        folder.rename(path)


def check_target(option: str, path: Path, *, force: bool) -> None:
    """Raise UserError before any work where a file cannot be written to `path`, or exists and is not to be replaced."""
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")
    if path.exists() and not force:
        raise UserError(f"{option} {path}: exists already; --force replaces it")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{option} {path}: no such folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{option} {path}: {folder} cannot be written to")


def check_writable(option: str, folder: Path) -> None:
    """Raise UserError now, not after hours of training, where nothing can be written into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--{option} {folder}: cannot be written to: {error.strerror or error}") from error


def check_can_hold(option: str, folder: Path) -> None:
    """Raise UserError where no file can be written below a folder, which need not exist and is not made."""
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"{option} {folder}: cannot be written to{'' if place.is_dir() else f': {place} is a file'}")


def sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
