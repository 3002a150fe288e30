"""A run's own folder: checkpoints and logs, what an earlier call left there, and who may work in it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from pydantic import ValidationError

from zoo.run.compose import Job
from zoo.run.finished import NOTE, is_same_run, read_note, run_folder
from zoo.run.trained import BEST, CHECKPOINTS, CONFIG, WEIGHTS, keep_model
from zoo.spec.errors import UserError, ZooError
from zoo.spec.files import write_atomically
from zoo.spec.record import Record
from zoo.spec.rejected import reject
from zoo.spec.store import StoredRecord, describe, write


def rank() -> int:
    """Number of this process in a distributed run, as its launcher sets it."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


class RunDir:
    """The folder of one job.

    run.json   what an earlier call left (zoo/run/finished.py)
    last.ckpt  after each validation interval;  best.ckpt  the weights that were best on validation
    model.safetensors, config.json  in place of these, after a run that ended well (zoo/run/trained.py)
    checkpoints  the weights after each validation interval, under `train.keep_checkpoints`
    """

    def __init__(self, job: Job) -> None:
        experiment = job.experiment
        self.job, self.experiment = job, experiment
        self.path = run_folder(job)
        self.path.mkdir(parents=True, exist_ok=True)
        self.last, self.best = self.path / "last.ckpt", self.path / BEST

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Allow one process at a time; further ranks of a distributed run share the lock of the first."""
        if rank() > 0:
            yield
            return
        lock = filelock.FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=5)
        except filelock.Timeout:
            raise UserError(
                f"{self.experiment.name} is being run by another process (lock {self.path / 'lock'})"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def start(self) -> Attempt:
        """Begin a run, or go on with the one that an earlier call of the same command left."""
        earlier, code = read_note(self.path), self.experiment.code_hash
        if rank() > 0:
            # the first rank has been here and written the note
            return Attempt(earlier["attempt"], earlier["started"], self.last if self.last.exists() else None)
        same = is_same_run(self.job, earlier) and not self.job.force
        if not same:
            if earlier and not self.job.force:
                what = "settings of how it is computed have" if earlier.get("code") == code else "the code has"
                print(f"zoo: {what} changed since {self.path} was begun; starting afresh", file=sys.stderr)
            kept = (self.path / CHECKPOINTS).glob("*")
            for path in (self.last, self.best, self.path / CONFIG, self.path / WEIGHTS, *kept):
                path.unlink(missing_ok=True)
        attempt = Attempt(
            number=earlier.get("attempt", 0) + 1,
            started=earlier["started"] if same and self.last.exists() else now(),
            checkpoint=self.last if self.last.exists() else None,
        )
        self._write_note(
            {"code": code, "attempt": attempt.number, "started": attempt.started, "config": self.experiment.config}
        )
        return attempt

    def write_record(self, fields: Mapping[str, Any], codec: Mapping[str, Any]) -> StoredRecord:
        """Write the record under the results folder; after a run that ended well, keep its model and note the record.

        codec  of the run's data

        Raises ZooError where there is no such record, or it cannot be written: it is then kept in the run's folder.
        """
        try:
            kept = fields["status"] == "ok" and self._keep_model(fields, codec)
            record = Record.model_validate(fields)
            path = write(record, self.job.results)
        except (ValidationError, OSError) as error:
            reasons = describe(error) if isinstance(error, ValidationError) else [str(error)]
            file = reject(self.path, fields, reasons)
            how = f"zoo leaderboard repair --runs {self.job.runs} --results {self.job.results}"
            head = f"{self.experiment.name}: the record was not accepted, and is kept in {file}; mend it, and"
            raise ZooError("\n  ".join([f"{head} {how} takes it in:", *reasons])) from error
        if record.status == "ok":
            self._write_note(read_note(self.path) | {"record": str(path.resolve())})
            self.last.unlink(missing_ok=True)
        if kept:
            self.best.unlink(missing_ok=True)
        return StoredRecord(str(path), record)

    def _keep_model(self, fields: Mapping[str, Any], codec: Mapping[str, Any]) -> bool:
        """Whether the model could be kept. Where it could not, on a full disk, say, the record still comes first."""
        try:
            keep_model(self.path, self.experiment, fields, codec)
        except OSError as error:
            print(f"zoo: {self.experiment.name}: the model could not be kept: {error}", file=sys.stderr)
            return False
        return True

    def _write_note(self, note: dict[str, Any]) -> None:
        write_atomically(self.path / NOTE, json.dumps(note, indent=1))


@dataclass(frozen=True)
class Attempt:
    """One call that works on a run: its number, when the run was started, and the checkpoint to resume from."""

    number: int
    started: str
    checkpoint: Path | None
