"""Records -> boards: which runs make a row, which rows are compared, in which order. Pure functions, sorted output.

A board is one protocol, a section of it one version of one task, a row one configuration of one architecture on the
same data. Protocols are never mixed, and `smoke`, which only proves that the pieces fit, is on no board. Rows are
ranked against each other only where that is fair: nothing changed by the user, the architecture's current
configuration under the protocol, the same data; the others stand below the ranked ones and say why.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from zoo.board.statistics import Estimate, Rank, common, converged, estimate, ranks
from zoo.interface.architecture import Reported

OFF_BOARD = ("smoke",)
"""Protocols whose scores mean nothing."""

PUBLISHED = "paper"
"""The one protocol that is meant to repeat what papers did."""

Records = Sequence[Mapping[str, Any]]
ReportedScores = Mapping[str, Sequence[Reported]]
"""Per "distribution:architecture" what the literature reports."""


@dataclass(frozen=True)
class Seed:
    """The run that counts for one seed. `score` is None unless the outcome is "ok"."""

    seed: int
    outcome: str
    detail: str
    score: float | None
    n: int
    converged: bool
    path: str


@dataclass(frozen=True)
class Row:
    """One configuration of one architecture on one task."""

    architecture: str
    title: str
    distribution: str
    mode: str
    objective: str
    config_hash: str
    overrides: Mapping[str, Any]
    data: str
    fingerprint: str
    parameters: int
    off: float | None
    state_size: int | None
    seeds: tuple[Seed, ...]
    estimate: Estimate | None
    chance: float
    majority: float | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    hardware: tuple[str, ...]
    superseded: int
    ended: str
    reported: tuple[Reported, ...] = ()
    published: bool = False
    rank: Rank | None = None
    notes: tuple[str, ...] = ()

    @property
    def converged(self) -> int:
        """How many seeds learned."""
        return sum(seed.converged for seed in self.seeds)

    @property
    def failures(self) -> str:
        """Outcomes other than ok, in words: "diverged", or "2 diverged, 1 timeout"; empty when there are none."""
        counts = Counter(seed.outcome for seed in self.seeds if seed.outcome != "ok")
        if len(self.seeds) == 1:
            return next(iter(counts), "")
        return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))

    @property
    def delta(self) -> float | None:
        """Measured minus (first) reported score, under the protocol that means to repeat the published run; under any
        other the difference of two experiments would look like a reproduction."""
        if not (self.published and self.estimate and self.reported):
            return None
        return self.estimate.mean - self.reported[0].value

    @property
    def name(self) -> str:
        """The architecture's name, with its distribution where that is not ours."""
        return self.architecture if self.distribution == "seqzoo" else f"{self.distribution}:{self.architecture}"


@dataclass(frozen=True)
class Section:
    """One version of one task. Chance and majority are those of the ranked rows' data."""

    task: str
    version: str
    suite: str
    current: bool
    chance: float
    majority: float | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Overall:
    """Scores of the ranked rows over tasks. `average` of a row is over `common` only; None where that is empty."""

    tasks: tuple[str, ...]
    common: tuple[str, ...]
    rows: tuple[OverallRow, ...]


@dataclass(frozen=True)
class OverallRow:
    """One architecture over tasks: its estimate, or its failure in words, or nothing where it was not run."""

    architecture: str
    cells: Mapping[str, Estimate | str]
    average: float | None


@dataclass(frozen=True)
class Board:
    """Everything recorded under one protocol."""

    protocol: str
    sections: tuple[Section, ...]
    overall: Overall
    superseded: int = field(default=0)


def boards(
    records: Records,
    reported: ReportedScores | None = None,
    *,
    protocol: str | None = None,
    tasks: Collection[str] | None = None,
    architectures: Collection[str] | None = None,
) -> list[Board]:
    """The boards of all protocols (or of one), restricted to `tasks` and `architectures` where they are given."""
    chosen = [
        r
        for r in records
        if r["protocol"] not in OFF_BOARD
        and (protocol is None or r["protocol"] == protocol)
        and (tasks is None or r["task"]["name"] in tasks)
        and (architectures is None or r["architecture"]["name"] in architectures)
    ]
    return [_board(name, group, reported or {}) for name, group in _grouped(chosen, lambda r: r["protocol"])]


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    """Items by key, keys sorted."""
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return sorted(groups.items(), key=lambda pair: pair[0])  # type: ignore[arg-type, return-value]


def _board(protocol: str, records: Records, reported: ReportedScores) -> Board:
    found: list[Section] = []
    for _, of_task in _grouped(records, lambda r: r["task"]["name"]):
        versions = _grouped(of_task, lambda r: _natural(r["task"]["version"]))
        for _, group in reversed(versions):
            found.append(_section(group, reported, current=group is versions[-1][1]))
    found.sort(key=lambda s: (not s.current, s.suite, s.task))
    superseded = sum(row.superseded for section in found for row in section.rows)
    return Board(protocol, tuple(found), _overall(found), superseded)


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts "1.10" after "1.9"."""
    parts = re.findall(r"\d+|[^\d]+", text)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _section(records: Records, reported: ReportedScores, *, current: bool) -> Section:
    task = records[0]["task"]
    rows = [_row(group, reported) for _, group in _grouped(records, _row_key)]
    rows = _noted(rows, latest=_latest(rows), data=_main_data(rows))
    ranked = [row for row in rows if row.estimate is not None and not row.notes]
    placed = dict(zip(map(id, ranked), ranks([row.estimate for row in ranked if row.estimate]), strict=True))
    rows = sorted((replace(row, rank=placed.get(id(row))) for row in rows), key=_row_order)
    judge = next((row for row in rows if row.rank), rows[0])
    return Section(task["name"], task["version"], task["suite"], current, judge.chance, judge.majority, tuple(rows))


def _row_key(record: Mapping[str, Any]) -> tuple[str, str, str, str]:
    who = record["architecture"]["name"], record["plugin"]["distribution"]
    return (*who, record["config_hash"], _fingerprint(record))


def _fingerprint(record: Mapping[str, Any]) -> str:
    """Equal for records that were made on the same examples."""
    return json.dumps(record["data"], sort_keys=True)


def _off(record: Mapping[str, Any]) -> float | None:
    """How far the parameters are from those that the width was solved for, relatively; None where it was not."""
    match = record.get("match")
    return record["parameters"] / match["parameters"] - 1 if match and record["parameters"] else None


def _row_order(row: Row) -> tuple[Any, ...]:
    kind = 0 if row.rank else 1 if row.estimate else 2
    score = -row.estimate.mean if row.estimate else 0.0
    return (kind, row.rank.place if row.rank else 0, score, row.name, row.config_hash, row.fingerprint)


def _row(records: Records, reported: ReportedScores) -> Row:
    """One row. Of several runs of a seed the latest ok counts, else the latest; the others are superseded."""
    counting = []
    for _, runs in _grouped(records, lambda r: int(r["seed"])):
        counting.append(max(runs, key=lambda r: (r["outcome"] == "ok", *_when(r))))
    first = max(counting, key=_when)
    ok = [r for r in counting if r["outcome"] == "ok"]
    task = first["task"]["name"]
    told = reported.get(f"{first['plugin']['distribution']}:{first['architecture']['name']}", ())
    speeds = [r["tokens_per_second"] for r in ok if r["tokens_per_second"] is not None]
    peaks = [r["peak_memory_bytes"] for r in ok if r["peak_memory_bytes"] is not None]
    return Row(
        architecture=first["architecture"]["name"],
        title=first["architecture"]["title"],
        distribution=first["plugin"]["distribution"],
        mode=first["mode"],
        objective=first["objective"],
        config_hash=first["config_hash"],
        overrides=first["overrides"],
        data=first["data"]["kind"],
        fingerprint=_fingerprint(first),
        parameters=first["parameters"],
        off=_off(first),
        state_size=first["state_size"],
        seeds=tuple(_seed(r) for r in counting),
        estimate=estimate([(r["metrics"]["test"]["accuracy"], r["metrics"]["test"]["n"]) for r in ok]),
        chance=first["baselines"]["chance"],
        majority=first["baselines"]["majority"],
        tokens_per_second=sum(speeds) / len(speeds) if speeds else None,
        peak_memory_bytes=max(peaks, default=None),
        hardware=tuple(sorted({_machine(r["hardware"]) for r in ok})),
        superseded=len(records) - len(counting),
        ended=first["ended"],
        reported=tuple(r for r in told if r.task == task and r.metric == "accuracy"),
        published=first["protocol"] == PUBLISHED,
    )


def _seed(record: Mapping[str, Any]) -> Seed:
    test = record["metrics"]["test"] if record["metrics"] else None
    return Seed(
        seed=record["seed"],
        outcome=record["outcome"],
        detail=record["detail"],
        score=test["accuracy"] if test else None,
        n=test["n"] if test else 0,
        converged=test is not None and converged(test["accuracy"], test["n"], **record["baselines"]),
        path=record.get("path", ""),
    )


def _when(record: Mapping[str, Any]) -> tuple[str, int, str]:
    """Order in time; the schema has times in UTC, so that they sort as text. Of equals the later file."""
    ended = record["ended"].removesuffix("Z").removesuffix("+00:00")
    repeat = re.search(r"-s\d+-(\d+)\.json$", record.get("path", ""))
    return (ended, int(repeat[1]) if repeat else 1, json.dumps(record, sort_keys=True))


def _machine(hardware: Mapping[str, Any]) -> str:
    gpus = Counter(hardware.get("gpus") or ())
    if gpus:
        return ", ".join(f"{count} × {name}" for name, count in sorted(gpus.items()))
    threads = hardware.get("threads") or hardware.get("cores") or "?"
    return f"{hardware.get('cpu') or 'unknown CPU'}, {threads} thread{'' if threads == 1 else 's'}"


def _latest(rows: Sequence[Row]) -> dict[str, str]:
    """Per architecture the configuration that its last unmodified runs used.

    Protocols and presets may change between versions of zoo, and records stay. Rows that were only interrupted do
    not displace an earlier configuration.
    """
    latest: dict[str, tuple[bool, str, str]] = {}
    for row in rows:
        if not row.overrides:
            ran = any(seed.outcome != "interrupted" for seed in row.seeds)
            latest[row.name] = max(latest.get(row.name, (False, "", "")), (ran, row.ended, row.config_hash))
    return {name: config_hash for name, (_, _, config_hash) in latest.items()}


def _main_data(rows: Sequence[Row]) -> str:
    """The data that most unmodified rows were made on; of equals the latest."""
    plain = [row for row in rows if not row.overrides]
    counts = Counter(row.fingerprint for row in plain)
    return (
        max(plain, key=lambda row: (counts[row.fingerprint], row.ended, row.fingerprint)).fingerprint if plain else ""
    )


def _noted(rows: Sequence[Row], *, latest: Mapping[str, str], data: str) -> list[Row]:
    """The rows, each with the reasons why it is not ranked."""
    noted = []
    for row in rows:
        notes = []
        if row.overrides:
            notes.append("modified: " + ", ".join(f"{k}={_plain(v)}" for k, v in sorted(row.overrides.items())))
        elif row.config_hash != latest[row.name]:
            notes.append("earlier configuration")
        elif row.fingerprint != data:
            notes.append("other data")
        noted.append(replace(row, notes=tuple(notes)))
    return noted


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _overall(sections: Sequence[Section]) -> Overall:
    """Over the current versions of the tasks: the rows without notes, that is, ranked or failed.

    What failed everywhere has nothing to be compared, and does not empty the common tasks of the others.
    """
    cells: defaultdict[str, dict[str, Estimate | str]] = defaultdict(dict)
    current = [section for section in sections if section.current]
    for section in current:
        for row in section.rows:
            if not row.notes:
                cells[row.name][section.task] = row.estimate or row.failures
    scored = ([t for t, cell in row.items() if isinstance(cell, Estimate)] for row in cells.values())
    shared = common(tasks for tasks in scored if tasks)
    rows = [OverallRow(name, row, _average(row, shared)) for name, row in cells.items()]
    rows.sort(key=lambda row: (row.average is None, -(row.average or 0.0), row.architecture))
    return Overall(tuple(section.task for section in current), tuple(shared), tuple(rows))


def _average(cells: Mapping[str, Estimate | str], tasks: Sequence[str]) -> float | None:
    means = [cell.mean for task in tasks if isinstance(cell := cells.get(task), Estimate)]
    return sum(means) / len(means) if means else None


def load_reported(records: Records) -> tuple[dict[str, list[Reported]], list[str]]:
    """What the literature reports for the architectures in `records`, and whose presets could not be read.

    Architectures that are not installed here have nothing to report.
    """
    from zoo.interface.registry import registry

    found: dict[str, list[Reported]] = {}
    faults: list[str] = []
    here = {f"{e.provenance.distribution}:{e.record.name}": e.record for e in registry().architectures.values()}
    for key in sorted({f"{r['plugin']['distribution']}:{r['architecture']['name']}" for r in records}):
        if key in here:
            try:
                found[key] = list(here[key].load_reported())
            except Exception as error:
                # somebody's broken plugin must not take the board down; it is told beside it
                faults.append(f"reported scores of {key}: {' '.join(str(error).split())}")
    return found, faults
