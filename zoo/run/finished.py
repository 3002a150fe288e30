"""What a run's folder tells of an earlier call, without torch: whether the run has ended well already."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.run.compose import Job
from zoo.spec.config import flatten
from zoo.spec.record import Record
from zoo.spec.settings import NO_EFFECT
from zoo.spec.store import StoredRecord, read

NOTE = "run.json"
"""The code and configuration that last ran in a folder, and the record where the run ended well."""


def run_folder(job: Job) -> Path:
    """The folder `runs/PROTOCOL/TASK/ARCHITECTURE/HASH-sSEED` of a job."""
    return Path(job.runs) / job.experiment.id


def read_note(folder: Path) -> dict[str, Any]:
    """What an earlier call noted; nothing when there was none, or it was cut off."""
    try:
        return json.loads((folder / NOTE).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def is_same_run(job: Job, note: Mapping[str, Any]) -> bool:
    """Whether a note is of this experiment by this code, computed in this way (device, forms of the ops)."""
    if note.get("code") != job.experiment.code_hash:
        return False
    before, today = flatten(note["config"]), flatten(job.experiment.config)
    return all(before.get(key) == value for key, value in today.items() if key not in NO_EFFECT)


def find_finished(job: Job) -> StoredRecord | None:
    """The record of this experiment, made here by this code, if it ended well and may stand; said on stderr.

    The run's own folder decides: a record that came with a checkout was made elsewhere. None with `force`.
    """
    note = read_note(run_folder(job))
    if job.force or not is_same_run(job, note) or "record" not in note:
        return None
    path = Path(note["record"])
    if not path.is_file() or Path(job.results).resolve() not in path.resolve().parents:
        return None
    record = read(path)
    if not isinstance(record, Record):
        return None
    print(f"zoo: {job.experiment.name} is done already ({path}); --force runs it again", file=sys.stderr)
    return StoredRecord(str(path), record)
