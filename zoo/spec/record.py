"""The record of one run: how it is made, checked, written and read. No torch here.

Its shape is `record.schema.json` beside this file. Records are append-only: nothing here changes or replaces one.

Fields fall into three groups:
    identity   protocol, task, architecture, config_hash (which covers configuration and task version) and seed: `id`
    results    what the run must give again on the same machine by the same code: `comparable`
    the rest   times, memory, hardware, git state and command: true of this one run only (`CIRCUMSTANCES`)
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zoo.spec.errors import ZooError

SCHEMA = 1
"""The schema version that this zoo writes and reads."""

Status = Literal["ok", "out-of-memory", "diverged", "timeout", "interrupted", "failed"]

CIRCUMSTANCES = (
    "seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "hardware",
    "git",
    "command",
    "started",
    "ended",
    "path",
)
"""Fields that two runs of the same experiment by the same code may differ in."""

NOT_FINITE = re.compile(r"loss|stderr|(\w+_)?perplexity|bits_per_\w+")
"""Names of scores that may be null in a record, because they were NaN or infinite."""

MARKS = ("schema", "architecture", "task", "status")
"""A JSON object without any of these was never a record."""


class Problem(NamedTuple):
    """A file that is no sound record, and why. `file` is relative to the results directory."""

    file: str
    reason: str


def default_results_dir() -> Path:
    """Where records are when nobody says otherwise: `ZOO_RESULTS_DIR`, else ./leaderboard/results."""
    return Path(os.environ.get("ZOO_RESULTS_DIR") or Path("leaderboard") / "results")


def new(
    *,
    architecture: Mapping[str, str],
    plugin: Mapping[str, str],
    task: Mapping[str, str],
    data: Mapping[str, Any],
    protocol: str,
    overrides: Mapping[str, Any],
    config: Mapping[str, Any],
    config_hash: str,
    seed: int,
    mode: str,
    objective: str,
    segment_plan: Mapping[str, Any] | None,
    parameters: int,
    match: Mapping[str, Any] | None,
    state_size: int | None,
    status: Status | str,
    detail: str,
    metrics: Mapping[str, Any] | None,
    baselines: Mapping[str, float | None],
    history: Sequence[Mapping[str, Any]],
    samples: int,
    tokens: int,
    seconds: Mapping[str, float],
    tokens_per_second: float | None,
    peak_memory_bytes: int | None,
    flops: int | None,
    backend: Mapping[str, str],
    hardware: Mapping[str, Any],
    versions: Mapping[str, str],
    git: Mapping[str, Any],
    command: str,
    started: str,
    ended: str,
    metric: Mapping[str, Any] | None = None,
    carried: bool | None = None,
) -> dict[str, Any]:
    """A record as plain JSON values, exactly as reading the written file gives it back.

    architecture  {name, title, family};   plugin {distribution, version, entry_point, source_hash}
    task          {name, version, suite}, "kind" too for lm and recall;  data   {kind, version, seed | files, counts}
    overrides     dotted key -> value that the user changed;  config: the resolved tree
    metrics       {"val": {accuracy, loss, n}, "test": …}, accuracies as fractions; None unless the status is "ok".
                  Any other score by its name; "answers" tokens asked for; "stderr" the standard error of the mean loss
                  per unit of the ranked metric, in nats; "groups" the same of parts of the split;
    metric        {"name", "higher_is_better"} of the score of test that is ranked; None = accuracy
    carried       of running text: whether a state was carried from piece to piece; else None
    match         {"architecture", "parameters"} of the baseline that the width was solved for, or None
    baselines     {"chance", "majority"}, scores in the ranked metric that need no learning; None where there are none
    history        [{step, samples, seconds, split, loss, metric}]
    seconds       {"train", "eval"};  started, ended: ISO 8601 in UTC

    JSON has no NaN: a loss, perplexity or point of a curve that is not finite becomes null. Anything else that JSON
    cannot hold raises TypeError or ValueError. Whether the shape is right is told by `validate`, and enforced by
    `write`.
    """
    fields: dict[str, Any] = dict(locals())
    for later in ("metric", "carried"):
        # what came after the first records were published is not there where it says nothing
        if fields[later] is None:
            del fields[later]
    fields["history"] = [_finite(point, "loss", "metric") for point in history]
    if metrics is not None:
        fields["metrics"] = {split: _finite_scores(scores) for split, scores in metrics.items()}
    record = {"schema": SCHEMA, "id": ""} | fields
    record["id"] = identity(record)
    return json.loads(json.dumps(record, allow_nan=False))


def _finite(point: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """`point` with None for those of `keys` that are NaN or infinite."""
    bad = {key: None for key in keys if isinstance(point.get(key), float) and not math.isfinite(point[key])}
    return {**point, **bad}


def _finite_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """A split's scores, those of its groups included, with None for what is not finite and may be so."""
    found = _finite(scores, *(name for name in scores if NOT_FINITE.fullmatch(name)))
    return found | {"groups": [_finite_scores(group) for group in scores["groups"]]} if "groups" in scores else found


def ranked(record: Mapping[str, Any]) -> tuple[str, bool]:
    """The name of the score by which runs of the record's task are ranked, and whether higher is better."""
    metric = record.get("metric") or {"name": "accuracy", "higher_is_better": True}
    return metric["name"], metric["higher_is_better"]


def identity(record: Mapping[str, Any]) -> str:
    """PROTOCOL/TASK/ARCHITECTURE/HASH-sSEED, also the path of its file below the results directory."""
    where = f"{record['protocol']}/{record['task']['name']}/{record['architecture']['name']}"
    return f"{where}/{record['config_hash']}-s{record['seed']}"


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its `CIRCUMSTANCES` and the times in its history.

    Two runs of one experiment by the same code on the same machine agree in this, bit for bit on a CPU, whether
    they were killed and resumed or not.
    """
    kept = {key: value for key, value in record.items() if key not in CIRCUMSTANCES}
    kept["history"] = [{k: v for k, v in point.items() if k != "seconds"} for point in record["history"]]
    return kept


# -- checking ------------------------------------------------------------------------------------------------------


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record."""
    return json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema())


def validate(record: Any) -> list[str]:
    """Everything in which `record` departs from the schema, one line each; empty when it is sound.

    The bookkeeping key `path`, which `read_all` and `find` add, is no part of a record and is not looked at.
    """
    if not isinstance(record, dict):
        return [f"expected an object, found {type(record).__name__}"]
    if not any(mark in record for mark in MARKS):
        return ["not a record of zoo"]
    if record.get("schema") != SCHEMA:
        return [f"schema: {_short(record.get('schema'))}; this zoo reads {SCHEMA}"]
    body = {key: value for key, value in record.items() if key != "path"}
    errors = sorted(_validator().iter_errors(body), key=lambda e: [str(p) for p in e.absolute_path])
    return [_tell(error) for error in errors] or _missing(body)


def _missing(record: Mapping[str, Any]) -> list[str]:
    """The ranked score, where a record of sound shape does not have it: what JSON Schema cannot say."""
    name, _ = ranked(record)
    splits = [split for split in ("test", "length_generalization") if split in (record["metrics"] or {})]
    return [f"metrics.{split}: has no {name!r}" for split in splits if name not in record["metrics"][split]]


def _tell(error: Any) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    if where == "metrics" and error.validator == "type" and "else" in error.absolute_schema_path:
        return "metrics: expected null, because the status is not ok"
    if error.validator in ("oneOf", "anyOf") and error.context:
        deepest = max(error.context, key=lambda e: len(e.absolute_path))
        if len(deepest.absolute_path) > len(error.absolute_path):
            return _tell(deepest)
    message = error.message
    if len(message) > 200:
        message = f"{_short(error.instance)} fails {error.validator!r}"
    return f"{where}: {message}" if where else message


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


# -- writing -------------------------------------------------------------------------------------------------------


def dumps(record: Mapping[str, Any]) -> str:
    """The text of a record's file."""
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write(record: Mapping[str, Any], results_dir: Path | str) -> Path:
    """Add `record` under `results_dir` and return its file.

    The file is `<id>.json`; a further run of the same identity becomes `<id>-2.json`, `<id>-3.json` …; writing the
    same content again changes nothing. The file appears whole or not at all, and never replaces another, even when
    two processes write at once. Raises ZooError when the record does not fit the schema.
    """
    faults = validate(record) if "path" not in record else ["path: no part of a record"]
    if not faults and record["id"] != identity(record):
        faults = [f"id: {record['id']!r}, expected {identity(record)!r}"]
    if faults:
        raise ZooError("the record is not sound: " + "; ".join(faults[:5]))
    text = dumps(record)
    first = Path(results_dir) / f"{record['id']}.json"
    first.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(first, text)
    try:
        k = 1
        while True:
            path = first if k == 1 else first.with_name(f"{first.stem}-{k}.json")
            if os.path.lexists(path):
                if path.is_file() and path.read_bytes() == text.encode():
                    return path
            elif _claim(temporary, path):
                return path
            else:
                continue  # somebody else was faster: look at what they wrote
            k += 1
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path | str, text: str) -> None:
    """Put `text` at `path`, replacing what is there: whole or not at all, whenever the process or machine dies."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, text)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _temporary(path: Path, text: str) -> Path:
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
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- reading -------------------------------------------------------------------------------------------------------


def read_all(results_dir: Path | str) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Every sound record below `results_dir`, and every JSON file that is none, with the reason.

    Both in the order of their file names. Each record has its file, relative to `results_dir`, under `path`. A
    directory that is not there holds no records.
    """
    root = Path(results_dir)
    records: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for file in sorted(root.rglob("*.json"), key=lambda f: f.relative_to(root).as_posix()):
        if file.is_dir():
            continue
        name = file.relative_to(root).as_posix()
        found = read(file)
        if isinstance(found, str):
            problems.append(Problem(name, found))
        else:
            records.append(found | {"path": name})
    return records, problems


def read(file: Path) -> dict[str, Any] | str:
    """The record in `file`, or what is wrong with it."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        return f"not UTF-8 text (byte {error.start})"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} (line {error.lineno})"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    faults = validate(record)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return faults[0] + more
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
