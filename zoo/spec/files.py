"""Default folders of results and runs, and files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def default_results_dir() -> Path:
    """Where records go unless a folder is given: `ZOO_RESULTS_DIR`, else ./leaderboard/results."""
    return Path(os.environ.get("ZOO_RESULTS_DIR") or Path("leaderboard") / "results")


def default_runs_dir() -> Path:
    """Where checkpoints and logs go unless a folder is given: `ZOO_RUNS_DIR`, else ./runs."""
    return Path(os.environ.get("ZOO_RUNS_DIR") or "runs")


def user_path(path: Path | str) -> Path:
    """The absolute path that a person means: as it stands, but for a leading ~."""
    return Path(os.path.expanduser(path)).absolute()  # Path.expanduser raises where there is no such home


def write_atomically(path: Path | str, text: str) -> None:
    """Put `text` at `path`, replacing what is there: whole or not at all, whenever the process or machine dies."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(path, text)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


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


def sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
