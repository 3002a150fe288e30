"""Records that could not be written: kept beside their run with the reason, taken in after mending. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from zoo.spec.files import write_atomically
from zoo.spec.record import Record
from zoo.spec.store import describe, write

REJECTED = "record.rejected.json"


class Repair(NamedTuple):
    """What came of one rejected record: the file that it was written to, or why it is still none."""

    file: Path
    record: Path | None
    reasons: Sequence[str] = ()


def reject(folder: Path, fields: Mapping[str, Any], reasons: Sequence[str]) -> Path:
    """Keep the fields of a record in its run's folder, with the reasons why it is none; return the file."""
    path = folder / REJECTED
    write_atomically(path, json.dumps({"reasons": list(reasons), "record": fields}, indent=1, default=str))
    return path


def repair(runs: Path, results: Path) -> list[Repair]:
    """Take in every rejected record below `runs` that is valid now, and write the reasons anew into the others.

    The file of one that was taken in is deleted, and the run counts as done.
    """
    done = []
    for file in sorted(runs.rglob(REJECTED)):
        try:
            fields = json.loads(file.read_text("utf-8"))["record"]
            record = Record.model_validate(fields)
        except ValidationError as error:
            reasons = describe(error)
            reject(file.parent, fields, reasons)
            done.append(Repair(file, None, reasons))
            continue
        except (ValueError, KeyError, TypeError) as error:
            done.append(Repair(file, None, [f"not a rejected record: {error}"]))
            continue
        path = write(record, results)
        if record.status == "ok":
            note = file.with_name("run.json")
            known = json.loads(note.read_text("utf-8")) if note.is_file() else {}
            write_atomically(note, json.dumps(known | {"record": str(path.resolve())}, indent=1))
        file.unlink()
        done.append(Repair(file, path))
    return done
