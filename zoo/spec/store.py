"""Records as files: written once, never replaced, read with what is wrong about the files that are not records.

Records of other kinds, such as costs, lie in folders beside those of runs (`BesideRecord`).
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ValidationError

from zoo.spec.config import describe_values, flatten
from zoo.spec.files import sync_folder, write_atomically, write_temporary
from zoo.spec.record import SCHEMA, Record
from zoo.spec.settings import NOT_IDENTITY


def dumps(record: BaseModel) -> str:
    """The text of a record's file, of whatever kind."""
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write(record: Record, results_dir: Path | str) -> Path:
    """Add `record` under `results_dir` and return its file.

    The file is `<id>.json`; a further run of the same identity becomes `<id>-2.json`, `<id>-3.json` …; writing the
    same content again changes nothing. The file appears whole or not at all, and never replaces another, even when
    two processes write at once.
    """
    text = dumps(record)
    first = Path(results_dir) / f"{record.id}.json"
    first.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_temporary(first, text)
    path = first
    further = itertools.count(2)
    try:
        while not _claim(temporary, path):
            if path.is_file() and path.read_bytes() == text.encode():
                break
            path = first.with_name(f"{first.stem}-{next(further)}.json")
        return path
    finally:
        temporary.unlink(missing_ok=True)


def _claim(temporary: Path, path: Path) -> bool:
    """Give the temporary file its final name unless something has it. A link, unlike a rename, never replaces."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # a file system without links: a rename is the next best, after one more look
        if os.path.lexists(path):
            return False
        os.replace(temporary, path)
    sync_folder(path.parent)
    return True


# -- reading -------------------------------------------------------------------------------------------------------


class StoredRecord(NamedTuple):
    """A record and its file, relative to the results directory."""

    path: str
    record: Record

    @property
    def repeat(self) -> int:
        """k of a file "...-k.json", else 1: the order of runs that ended within the same second."""
        repeat = re.search(r"-s\d+-(\d+)\.json$", self.path)
        return int(repeat[1]) if repeat else 1


class Problem(NamedTuple):
    """A file that is not a valid record, and why. `file` is relative to the results directory."""

    file: str
    reason: str


def read_all(results_dir: Path | str) -> tuple[list[StoredRecord], list[Problem]]:
    """Every valid record below `results_dir`, and every other JSON file with what is wrong with it.

    Both sorted by file name. A directory that does not exist holds no records.
    """
    found, problems = _read_files(Path(results_dir), read)
    return [StoredRecord(name, record) for name, record in found], problems


Content = TypeVar("Content", bound=BaseModel)


def _read_files(
    root: Path, read_file: Callable[[Path], Content | str], prefix: str = ""
) -> tuple[list[tuple[str, Content]], list[Problem]]:
    """What every JSON file below `root` holds, by its name, and the others with what `read_file` says is wrong."""
    found: list[tuple[str, Content]] = []
    problems: list[Problem] = []
    for file in sorted(root.rglob("*.json"), key=lambda f: f.relative_to(root).as_posix()):
        if file.is_dir():
            continue
        name = prefix + file.relative_to(root).as_posix()
        content = read_file(file)
        if isinstance(content, str):
            problems.append(Problem(name, content))
        else:
            found.append((name, content))
    return found, problems


def read(file: Path) -> Record | str:
    """The record in `file`, or what is wrong with it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(data, dict):
        return f"expected an object, got {type(data).__name__}"
    version = data.get("schema_version", data.get("schema"))
    if version is None:
        return "not a record of zoo: no schema_version"
    if version != SCHEMA or isinstance(version, bool):
        return f"schema_version: {_short(version)}; this zoo reads {SCHEMA}"
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        first, *more = describe(error)
        return first + (f" (and {len(more)} more)" if more else "")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def describe(error: ValidationError) -> list[str]:
    """A line for each fault: "metrics.test.n: Input should be a valid integer, got '3'"."""
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"] if part != "[key]")
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] not in ("missing", "extra_forbidden", "value_error"):
            message += f", got {_short(fault['input'])}"
        lines.append(f"{where}: {message}" if where else message)
    return lines


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


# -- records beside those of runs ----------------------------------------------------------------------------------


def beside_results(results_dir: Path | str, name: str) -> Path:
    """The folder of other records of these results: leaderboard/results -> leaderboard/NAME, other -> other-NAME."""
    results = Path(results_dir)
    return results.with_name(name if results.name == "results" else f"{results.name}-{name}")


class BesideRecord(BaseModel, ABC):
    """A record that lies beside those of runs: FOLDER/ID.json, with FOLDER beside the results.

    folder  of all records of its kind
    """

    folder: ClassVar[str]

    @property
    @abstractmethod
    def id(self) -> str:
        """The path of its file below the folder, without suffix."""

    @classmethod
    def place(cls, results_dir: Path | str) -> Path:
        """The folder of these records of some results."""
        return beside_results(results_dir, cls.folder)

    def write(self, results_dir: Path | str) -> Path:
        """Put the record where it belongs beside the results, in place of an earlier one, and return its file."""
        path = self.place(results_dir) / f"{self.id}.json"
        write_atomically(path, dumps(self))
        return path

    @classmethod
    def read_all(cls, results_dir: Path | str) -> tuple[list[Self], list[Problem]]:
        """Every valid record of this kind beside the results, and every other JSON file there with what is wrong."""
        root = cls.place(results_dir)
        found, problems = _read_files(root, cls.read, f"{root.name}/")
        return [record for _, record in found], problems

    @classmethod
    def read(cls, file: Path) -> Self | str:
        """The record in `file`, or what is wrong with it."""
        try:
            return cls.parse(file.read_text("utf-8"))
        except ValidationError as error:
            return describe(error)[0]
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The record in the text of a file. Raises ValidationError, or ValueError for what is no JSON."""
        json.loads(text)  # whose message says where the text is no JSON
        return cls.model_validate_json(text)


# -- what records say of one another -------------------------------------------------------------------------------

REPEATABLE = ("ok", "diverged", "out-of-memory")
"""Endings that another run of the same experiment would repeat."""


def sweep_key(record: Record) -> str:
    """Equal for the trials of one sweep, and for the further seeds of its best; "" for other records."""
    if record.sweep is None:
        return ""
    apart = (*record.sweep.trials[0], *NOT_IDENTITY)
    shared = {key: value for key, value in flatten(record.config).items() if key not in apart}
    versions = [record.architecture.version, record.task.version, record.protocol_version]
    names = [record.plugin.distribution, record.architecture.name, record.task.name, record.protocol]
    weights = record.init.weights if record.init else ""
    return json.dumps([names, versions, shared, record.sweep.model_dump(mode="json"), weights], sort_keys=True)


def describe_trial(record: Record) -> str:
    """The settings by which the trials of its sweep differ: "optim.lr=0.01"."""
    return describe_values(record.config, record.sweep.trials[0]) if record.sweep else ""


def in_order(stored: Iterable[StoredRecord]) -> list[Record]:
    """Records in the order in which they ended."""
    return [each.record for each in sorted(stored, key=lambda each: (each.record.ended, each.repeat))]


def edges_of_sweep(record: Record) -> tuple[str, ...]:
    """The settings of a trial beyond which its sweep tried nothing: "highest optim.lr that was tried, 0.01"."""
    if record.sweep is None:
        return ()
    values, edges = flatten(record.config), []
    for key in record.sweep.trials[0]:
        tried = [trial[key] for trial in record.sweep.trials]
        numbers = [value for value in tried if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) == len(tried) and min(numbers) < max(numbers):
            ends = {"highest": max(numbers), "lowest": min(numbers)}
            edges += [f"{word} {key} that was tried, {end}" for word, end in ends.items() if values[key] == end]
    return tuple(edges)


def ended_trials(records: Sequence[Record]) -> list[Record]:
    """Of records of one sweep, those of its trials that have ended for good."""
    return [
        record
        for record in records
        if record.sweep is not None and record.seed == record.sweep.seed and record.status in (*REPEATABLE, "failed")
    ]


def best_trial(records: Sequence[Record]) -> Record | None:
    """Of records of one sweep the trial that is best on validation: by the ranked score, of equal scores (several that
    answer everything) by the loss, of equal losses the first that the sweep names.

    None while trials are missing, and where none has a score.
    """
    ended = {_trial_number(record): record for record in ended_trials(records)}
    if len(ended) < max((len(record.sweep.trials) for record in records if record.sweep), default=1):
        return None
    scored = {k: score for k, record in ended.items() if (score := _validation_score(record)) is not None}
    return ended[max(scored, key=lambda k: (scored[k], -k))] if scored else None


def _trial_number(record: Record) -> int:
    values = flatten(record.config)
    assert record.sweep is not None
    return next(k for k, trial in enumerate(record.sweep.trials) if all(values[key] == v for key, v in trial.items()))


def _validation_score(record: Record) -> tuple[float, float] | None:
    """The score by which trials are compared, greater is better: the ranked one, where it is not of the test split
    alone, and the negative loss."""
    if record.metrics is None:
        return None
    score, val = record.metrics.val.scores.get(record.metric.name), record.metrics.val
    loss = -math.inf if val.loss is None else -val.loss
    if score is None:
        return None if val.loss is None else (loss, loss)
    return (score if record.metric.higher_is_better else -score), loss
