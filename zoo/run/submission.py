"""Records that others send: what a change adds, alters or removes among the records, and a verdict for each file.

A record must say what this checkout makes of it: from its architecture, task, protocol and `overrides` the experiment
is resolved anew, and everything that follows from these (configuration, hash, matched width, mode, metric, baseline of
chance) must be what the record says; so must the number of parameters, of the model built on the meta device. Scores
cannot be made anew without training; they must agree with one another (zoo/board/checks.py), and so must the numbers of
records beside those of runs (zoo/run/beside.py).
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from zoo.board.checks import record_faults
from zoo.run.beside import FAULTS, time_measured
from zoo.run.compose import Experiment
from zoo.run.match import count_parameters
from zoo.run.request import resolve_pair
from zoo.spec.config import flatten
from zoo.spec.errors import UserError, ZooError
from zoo.spec.evaluation import Extensions
from zoo.spec.record import Record
from zoo.spec.registry import registry
from zoo.spec.settings import NOT_IDENTITY
from zoo.spec.store import BesideRecord, StoredRecord, describe, read, read_all

MAX_BYTES = 1_000_000
"""A larger file is no record of ours."""
MAX_FAULTS = 8
"""Of one file; what is wrong with its configuration shows in many places."""
ALTERED = "altered: records are never changed; a further run is a further file"


class Verdict(NamedTuple):
    """What is wrong with a changed file, in a line each (nothing: it is accepted), and what a person should know."""

    file: str
    faults: list[str]
    remarks: list[str]


def check_changes(results_dir: Path | str, base: str) -> list[Verdict]:
    """A verdict for every file among the records, of runs and beside them, that differs from the git revision `base`
    (its common ancestor with HEAD), committed or not.

    Raises UserError where there is no repository or no such revision.
    """
    results = Path(results_dir).resolve()
    folders = {kind.place(results): kind for kind in FAULTS}
    root = Path(_git(_existing(results), "rev-parse", "--show-toplevel").strip())
    ancestor = _git(root, "merge-base", "--end-of-options", base, "HEAD").strip()
    where = [str(folder) for folder in (results, *folders)]
    listed = _git(root, "diff", "--no-renames", "--name-status", "-z", ancestor, "--", *where).split("\0")[:-1]
    changes = dict(zip(listed[1::2], listed[::2], strict=True))
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *where)
    changes |= dict.fromkeys(untracked.split("\0")[:-1], "A")
    known = _fingerprints(results, {root / name for name in changes})
    verdicts = []
    for name in sorted(changes):
        path, change = root / name, changes[name]
        beside = next((folder for folder in folders if path.is_relative_to(folder)), None)
        if beside is None:
            verdicts.append(_check_result(name, path, path.relative_to(results).as_posix(), change, known))
        else:
            before = _git(root, "show", f"{ancestor}:{name}") if change == "M" else ""
            verdicts.append(
                _check_beside(name, path, path.relative_to(beside).as_posix(), change, folders[beside], before)
            )
    return verdicts


def _existing(folder: Path) -> Path:
    """The nearest folder that there is: a change may have removed all."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _git(folder: Path, *args: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, check=False, timeout=120)
    except FileNotFoundError:
        raise UserError("--base compares with a git revision, and there is no git here") from None
    if done.returncode:
        raise UserError(f"--base: git {args[0]}: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout.decode("utf-8", "surrogateescape")


def _file_faults(path: Path, change: str, *, replaceable: bool) -> list[str]:
    """What is wrong with the file, whatever it says."""
    if change == "D" or not (path.exists() or path.is_symlink()):
        return ["removed: records stay"]
    if change not in ("A", "M"):
        return [f"changed its type ({change})"]
    if change == "M" and not replaceable:
        return [ALTERED]
    if path.is_symlink() or not path.is_file():
        return ["a link, not a file"]
    if path.suffix != ".json":
        return ["not a record: only .json files lie here"]
    size = path.stat().st_size
    return [f"{size:,} bytes; a record has less than {MAX_BYTES:,}"] if size > MAX_BYTES else []


def _check_beside(name: str, path: Path, inside: str, change: str, kind: type[BesideRecord], before: str) -> Verdict:
    if path.suffix == ".svg" and path.with_suffix(".json").is_file() and change != "D":
        return Verdict(name, [], ["a picture of the record beside it, which nothing checks"])
    faults = _file_faults(path, change, replaceable=True)
    if not faults:
        text = path.read_text("utf-8", errors="replace")
        try:
            record = kind.parse(text)
        except ValidationError as error:
            faults = describe(error)
        except (ValueError, RecursionError) as error:
            faults = [f"not JSON: {error}"]
        else:
            faults = [] if inside == f"{record.id}.json" else [f"path: expected {record.id}.json"]
            faults += _text_faults(text)
            faults += [*_late_faults(record), *FAULTS[kind](record), *_replacing_faults(record, before)]
    return Verdict(name, faults[:MAX_FAULTS], [])


def _replacing_faults(record: Any, before: str) -> Iterator[str]:
    """What must stay of a file that was there before."""
    if not before:
        return
    try:
        old = type(record).model_validate_json(before)
    except ValidationError:
        return  # what was no record may be mended
    if isinstance(record, Extensions):
        if any(each not in record.root for each in old.root):
            yield "altered: records are never changed or removed; a run's file may gain some"
    elif measured := time_measured(record):
        if measured <= time_measured(old):
            yield f"measured: not after the measurement that it replaces ({time_measured(old)})"
    elif record.schema_version <= old.schema_version:
        yield ALTERED


def _text_faults(text: str) -> Iterator[str]:
    if text != json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n":
        yield "text: not as zoo writes it (a key twice, other spaces or another order)"


def _late_faults(record: Any) -> Iterator[str]:
    """No run and no measurement ends in the future."""
    parts = record.root if isinstance(record, Extensions) else [record]
    field = "measured" if time_measured(record) else "ended"
    for time in (getattr(part, field) for part in parts):
        if dt.datetime.fromisoformat(time) > dt.datetime.now(dt.UTC) + dt.timedelta(days=1):
            yield f"{field}: {time}, in the future"


def _check_result(name: str, path: Path, inside: str, change: str, known: dict[str, str]) -> Verdict:
    faults = _file_faults(path, change, replaceable=False)
    if faults:
        return Verdict(name, faults, [])
    record = read(path)
    if isinstance(record, str):
        return Verdict(name, [record], [])
    text = path.read_text("utf-8")
    faults += _text_faults(text)
    faults += record_faults(StoredRecord(inside, record))
    faults += [fault for fault in rebuild_faults(record) if fault.partition(":")[0] not in _fields(faults)]
    faults += _plausibility_faults(record)
    twin = known.setdefault(_fingerprint(record), record.id) if record.metrics else record.id
    if twin != record.id:
        faults.append(f"metrics: to the last digit those of {twin}")
    return Verdict(name, faults[:MAX_FAULTS], list(_remarks(record)))


def _fields(faults: list[str]) -> set[str]:
    return {fault.partition(":")[0] for fault in faults}


def _fingerprints(results: Path, changed: set[Path]) -> dict[str, str]:
    """The id of each record that was there before, by what it measured."""
    stored = read_all(results)[0]
    return {_fingerprint(one): one.id for path, one in stored if one.metrics and results / path not in changed}


def _fingerprint(record: Record) -> str:
    shown = record.model_dump(mode="json", include={"metrics": True, "history": {"__all__": {"loss", "metric"}}})
    return json.dumps(shown, sort_keys=True)


def rebuild_faults(record: Record) -> list[str]:
    """Where a record differs from what its architecture, task, protocol and overrides make here."""
    plugin = record.plugin.distribution
    name = registry().registered_as(plugin, record.architecture.name)
    if name is None:
        return [f"plugin: {plugin} {record.plugin.version} with {record.architecture.name} is not installed here"]
    task = registry().tasks.get(record.task.name)
    if task is None:
        own = "; data of one's own cannot be repeated by others" if record.data.kind == "own" else ""
        return [f"task: {record.task.name} is not installed here{own}"]
    overrides = {key: value for key, value in record.overrides.items() if key not in (*NOT_IDENTITY, "init")}
    try:
        experiment = resolve_pair(name, record.task.name, record.protocol, [("the record's overrides", overrides)])
    except ZooError as error:
        return [f"overrides: {' '.join(str(error).split())}"]
    if record.sweep:
        experiment = replace(experiment, sweep=record.sweep.model_dump(mode="json"))
    if record.init:
        experiment = experiment.begun_with(record.init.model_dump())
    expected = _expected(experiment)
    return [
        f"{key}: {_short(given)}, here {_short(expected[key])}"
        for key, given in _comparable(record.model_dump(mode="json")).items()
        if key in expected and expected[key] != given
    ] + list(_parameter_faults(experiment, record))


def _expected(experiment: Experiment) -> dict[str, Any]:
    """What the request gives, by dotted field of the record."""
    from zoo.run.recording import identity

    metric, higher = experiment.metric
    fields = identity(experiment) | {
        "overrides": dict(experiment.overrides),
        "config_hash": experiment.hash,
        "match": experiment.matched,
        "mode": experiment.mode,
        "objective": experiment.objective,
        "stateful": experiment.stateful if experiment.kind.running_text else None,
        "metric": {"name": metric, "higher_is_better": higher},
        "baselines": {"chance": experiment.chance},
    }
    return _comparable(fields)


def _comparable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted key, without versions and sources of the packages, and settings that change no number."""
    apart = {"plugin.version", "plugin.source_hash", *(f"config.{key}" for key in NOT_IDENTITY)}
    values = dict(fields)
    whole = {name: json.loads(json.dumps(values.pop(name))) for name in ("overrides", "match")}
    return whole | {k: v for k, v in flatten(json.loads(json.dumps(values))).items() if k not in apart}


def _parameter_faults(experiment: Experiment, record: Record) -> Iterator[str]:
    import torch

    if not record.parameters and record.status != "ok":
        return  # the model could not be built
    with torch.device("meta"):
        parameters = count_parameters(experiment)
    if parameters != record.parameters:
        yield f"parameters: {record.parameters:,}, the model has {parameters:,}"


def _plausibility_faults(record: Record) -> Iterator[str]:
    """What no honest run can say."""
    yield from _late_faults(record)
    train = record.config.get("train")
    budget = train.get("max_samples") if isinstance(train, dict) else None
    if record.status == "ok" and isinstance(budget, int) and record.samples < budget:
        yield f"samples: {record.samples:,}, of the {budget:,} that it was to be trained on"
    tested, offered = record.metrics and record.metrics.test.n, record.data.counts.get("test")
    if tested and offered and tested < offered and record.task.kind != "language_modeling":
        yield f"metrics.test.n: {tested:,}, of {offered:,} test examples"
    if record.sweep and record.seed == record.sweep.seed:
        values = flatten(record.config)
        if not any(all(values.get(k) == v for k, v in trial.items()) for trial in record.sweep.trials):
            yield "sweep: the run is none of its trials"


def _remarks(record: Record) -> Iterator[str]:
    if record.git.dirty:
        yield "made by a checkout with changes"
    if record.git.commit is None:
        yield f"made by an installed package, seqzoo {record.versions.get('seqzoo', '?')}"
    if any(word.startswith(("/", "~")) or ":\\" in word for word in record.command.split()):
        yield "command: names folders of the machine that ran it, and will be public"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
