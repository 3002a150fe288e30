"""Records -> boards: which rows are compared, in which order. Pure functions, sorted output.

A board is one protocol, a section of it one version of one task, a row one configuration of one architecture on the
same data. Protocols are never mixed, and `smoke`, which only proves that the pieces fit, is on no board. Rows are
ranked against each other only where that is fair: nothing changed by the user, the architecture's current
configuration under the protocol, the same data, the same metric; the others stand below the ranked ones and say why.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.board.rows import Records, ReportedScores, Row, grouped, row_key, row_of
from zoo.board.scale import Scale
from zoo.board.statistics import Estimate, common, ranks
from zoo.spec.architecture import Reported

OFF_BOARD = ("smoke",)
"""Protocols whose scores mean nothing."""


@dataclass(frozen=True)
class Section:
    """One version of one task. Chance and majority are those of the ranked rows' data, `scale` is their metric."""

    task: str
    version: str
    suite: str
    current: bool
    scale: Scale
    chance: float | None
    majority: float | None
    rows: tuple[Row, ...]

    @property
    def beyond(self) -> bool:
        """Whether there are questions beyond what training had."""
        return any(row.defined or row.offered for row in self.rows)


@dataclass(frozen=True)
class Overall:
    """Scores of the ranked rows over the tasks of a suite. `average` of a row is over `common` only, which are tasks of
    accuracies: no perplexity is averaged with anything; None where `common` is empty."""

    suite: str
    tasks: tuple[str, ...]
    scales: Mapping[str, Scale]
    common: tuple[str, ...]
    rows: tuple[OverallRow, ...]


@dataclass(frozen=True)
class OverallRow:
    """One architecture over tasks: its estimate, or its failure in words, or nothing where it was not run; and the
    objective where there is more than one."""

    architecture: str
    cells: Mapping[str, Estimate | str]
    objectives: Mapping[str, str]
    average: float | None


@dataclass(frozen=True)
class Board:
    """Everything recorded under one protocol."""

    protocol: str
    sections: tuple[Section, ...]
    overalls: tuple[Overall, ...]
    superseded: int = 0


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
    return [_board(name, group, reported or {}) for name, group in grouped(chosen, lambda r: r["protocol"])]


def _board(protocol: str, records: Records, reported: ReportedScores) -> Board:
    found: list[Section] = []
    for _, of_task in grouped(records, lambda r: r["task"]["name"]):
        versions = grouped(of_task, lambda r: _natural(r["task"]["version"]))
        for _, group in reversed(versions):
            found.append(_section(group, reported, current=group is versions[-1][1]))
    found.sort(key=lambda s: (not s.current, s.suite, s.task))
    superseded = sum(row.superseded for section in found for row in section.rows)
    current = grouped([section for section in found if section.current], lambda s: s.suite)
    overalls = tuple(_overall(suite, sections) for suite, sections in current)
    return Board(protocol, tuple(found), overalls, superseded)


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts "1.10" after "1.9"."""
    parts = re.findall(r"\d+|[^\d]+", text)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _section(records: Records, reported: ReportedScores, *, current: bool) -> Section:
    task = records[0]["task"]
    rows = [row_of(group, reported) for _, group in grouped(records, row_key)]
    judge = _judge(rows)
    rows = _noted(rows, latest=_latest(rows), judge=judge)
    ranked = [row for row in rows if row.estimate is not None and not row.notes]
    estimates = [row.estimate for row in ranked if row.estimate]
    placed = dict(zip(map(id, ranked), ranks(estimates, higher=judge.scale.higher), strict=True))
    rows = sorted((replace(row, rank=placed.get(id(row))) for row in rows), key=_row_order)
    return Section(
        task=task["name"],
        version=task["version"],
        suite=task["suite"],
        current=current,
        scale=judge.scale,
        chance=judge.chance,
        majority=judge.majority,
        rows=tuple(rows),
    )


def _row_order(row: Row) -> tuple[Any, ...]:
    kind = 0 if row.rank else 1 if row.estimate else 2
    score = row.estimate.mean if row.estimate else 0.0
    score = -score if row.scale.higher else score
    return (kind, row.rank.place if row.rank else 0, score, row.name, row.config_hash, row.fingerprint)


def _latest(rows: Sequence[Row]) -> dict[str, str]:
    """Per architecture the configuration that its last unmodified runs used.

    Protocols and presets may change between versions of zoo, and records stay. Rows that were only interrupted do
    not displace an earlier configuration.
    """
    latest: dict[str, tuple[bool, str, str]] = {}
    for row in rows:
        if not row.overrides:
            ran = any(seed.status != "interrupted" for seed in row.seeds)
            latest[row.name] = max(latest.get(row.name, (False, "", "")), (ran, row.ended, row.config_hash))
    return {name: config_hash for name, (_, _, config_hash) in latest.items()}


def _judge(rows: Sequence[Row]) -> Row:
    """The row whose data and metric the others are to share: those of most unmodified rows; of equals the latest."""
    plain = [row for row in rows if not row.overrides] or list(rows)
    counts = Counter((row.fingerprint, row.scale) for row in plain)
    return max(plain, key=lambda row: (counts[row.fingerprint, row.scale], row.ended, row.fingerprint))


def _noted(rows: Sequence[Row], *, latest: Mapping[str, str], judge: Row) -> list[Row]:
    """The rows, each with the reasons why it is not ranked."""
    noted = []
    for row in rows:
        notes = []
        if row.overrides:
            notes.append("modified: " + ", ".join(f"{k}={_plain(v)}" for k, v in sorted(row.overrides.items())))
        elif row.config_hash != latest[row.name]:
            notes.append("earlier configuration")
        elif row.fingerprint != judge.fingerprint:
            notes.append("other data")
        if row.scale != judge.scale:
            notes.append(f"other metric: {row.scale.title}")
        noted.append(replace(row, notes=tuple(notes)))
    return noted


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _overall(suite: str, sections: Sequence[Section]) -> Overall:
    """Over the current versions of the tasks of a suite: the rows without notes, that is, ranked or failed.

    What failed everywhere has nothing to be compared, and does not empty the common tasks of the others.
    """
    cells: defaultdict[str, dict[str, Estimate | str]] = defaultdict(dict)
    objectives: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for section in sections:
        for row in section.rows:
            if not row.notes:
                cells[row.name][section.task] = row.estimate or row.failures
                if row.asked:
                    objectives[row.name][section.task] = row.asked
    shares = {section.task for section in sections if section.scale.share}
    scored = ([t for t, cell in row.items() if isinstance(cell, Estimate) and t in shares] for row in cells.values())
    shared = common(tasks for tasks in scored if tasks)
    rows = [OverallRow(name, row, objectives[name], _average(row, shared)) for name, row in cells.items()]
    rows.sort(key=lambda row: (row.average is None, -(row.average or 0.0), row.architecture))
    scales = {section.task: section.scale for section in sections}
    return Overall(suite, tuple(scales), scales, tuple(shared), tuple(rows))


def _average(cells: Mapping[str, Estimate | str], tasks: Sequence[str]) -> float | None:
    means = [cell.mean for task in tasks if isinstance(cell := cells.get(task), Estimate)]
    return sum(means) / len(means) if means else None


def load_reported(records: Records) -> tuple[dict[str, list[Reported]], list[str]]:
    """What the literature reports for the architectures in `records`, and whose presets could not be read.

    Architectures that are not installed here have nothing to report.
    """
    from zoo.spec.registry import registry

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
