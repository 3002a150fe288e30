"""A run's own folder: what earlier calls left there, who may work in it, and whether the run was finished."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from zoo.run import provenance as environment
from zoo.run.compose import Experiment
from zoo.run.settings import NO_EFFECT
from zoo.spec import store as records
from zoo.spec.errors import UserError
from zoo.spec.layers import flatten


@dataclass(frozen=True)
class Places:
    """Where a run puts things: records for the board, and checkpoints and logs."""

    results: Path
    runs: Path

    def folder(self, experiment: Experiment) -> Path:
        """Checkpoints and logs of one (configuration, seed)."""
        name = f"{experiment.hash}-s{experiment.seed}"
        arch, task = experiment.architecture.record.name, experiment.task.record.name
        return self.runs / experiment.protocol / task / arch / name


def finished(experiment: Experiment, places: Places) -> dict[str, Any] | None:
    """The record of this very experiment, made here by this very code, if it ended well.

    What decides is the run's own folder: a record that came with a checkout was made elsewhere.
    """
    note = read_note(places.folder(experiment))
    if not _same(note, experiment) or "record" not in note:
        return None
    path = Path(note["record"])
    if not path.is_file() or places.results.resolve() not in path.resolve().parents:
        return None
    record = records.read(path)
    return None if isinstance(record, str) else record.model_dump(mode="json") | {"path": str(path)}


def read_note(folder: Path) -> dict[str, Any]:
    """What an earlier call noted in the run's folder; nothing when it was none, or was cut off."""
    try:
        return json.loads((folder / "run.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _same(note: dict[str, Any], experiment: Experiment) -> bool:
    """Whether the note is of this experiment by this code, computed in this way (device, forms of the ops)."""
    if note.get("code") != code_hash(experiment):
        return False
    before, today = flatten(note["config"]), flatten(experiment.values)
    return all(before.get(key) == value for key, value in today.items() if key not in NO_EFFECT)


def code_hash(experiment: Experiment) -> str:
    """Hash of the frame's, the plugin's and the task's sources."""
    arch, task = experiment.architecture.record, experiment.task.record
    return environment.source_hash("zoo", arch.backbone, arch.config, task.data)


def rank() -> int:
    """Number of this process in a distributed run, as its launcher tells."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


@contextlib.contextmanager
def only_here(experiment: Experiment, folder: Path) -> Iterator[None]:
    """One process at a time in a run's folder; further ranks of a distributed run are guests of the first."""
    if rank() > 0:
        yield
        return
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(timeout=5)
    except filelock.Timeout:
        raise UserError(f"{experiment.name} is being run by another process (lock {folder / 'lock'})") from None
    try:
        yield
    finally:
        lock.release()


@dataclass
class Attempt:
    """What earlier calls left in the run's folder, and whether it may be gone on with."""

    folder: Path
    number: int
    started: str
    checkpoint: Path | None

    @classmethod
    def begin(cls, experiment: Experiment, folder: Path, *, force: bool) -> Attempt:
        note = folder / "run.json"
        code = code_hash(experiment)
        earlier = read_note(folder)
        if rank() > 0:
            # the first rank has been here, and started this one
            checkpoint = folder / "last.ckpt"
            return cls(folder, earlier["attempt"], earlier["started"], checkpoint if checkpoint.exists() else None)
        same = _same(earlier, experiment) and not force
        if not same:
            if earlier and not force:
                what = "settings of how it is computed have" if earlier.get("code") == code else "the code has"
                print(f"zoo: {what} changed since {folder} was begun; starting afresh", file=sys.stderr)
            for name in ("last.ckpt", "best.ckpt"):
                (folder / name).unlink(missing_ok=True)
        last = folder / "last.ckpt"
        attempt = cls(
            folder=folder,
            number=earlier.get("attempt", 0) + 1,
            started=earlier["started"] if same and last.exists() else now(),
            checkpoint=last if last.exists() else None,
        )
        state = {"code": code, "attempt": attempt.number, "started": attempt.started, "config": experiment.values}
        records.write_atomically(note, json.dumps(state, indent=1))
        return attempt


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
