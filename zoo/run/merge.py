"""Takes over records from another machine."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import NamedTuple

from zoo.board.checks import record_faults
from zoo.run.beside import FAULTS, faults_of, time_measured
from zoo.spec.errors import UserError
from zoo.spec.store import BesideRecord, Problem, dumps, read_all, write


class Merged(NamedTuple):
    """The files that were added, how many records were there already, and what was left out and why."""

    added: list[Path]
    present: int
    refused: list[Problem]


def merge(folder: Path | str, results_dir: Path | str) -> Merged:
    """Add every consistent record of `folder`, of results and of what lies beside them, to those of `results_dir`.

    `folder` is a folder of results, or one that holds `results`. Nothing is replaced: another run of the same
    configuration and seed becomes a further file, the same run is there once. Of costs of one configuration on one
    machine, and of what generation costs it, the later measurement stays. Another evaluation, extension or analysis of
    the name of one that is there is left out. Raises UserError where there are no records.
    """
    source = Path(folder)
    within = source / "results"
    if within.is_dir() or any(kind.place(within).is_dir() for kind in FAULTS):  # which may hold no results at all
        source = within
    merged = [_merge_results(source, Path(results_dir))]
    merged += [_merge_kind(kind, source, Path(results_dir)) for kind in FAULTS]
    if not any(one.added or one.present or one.refused for one in merged):
        raise UserError(f"{folder}: no records there, nor in {Path(folder) / 'results'}")
    added, present, refused = zip(*merged, strict=True)
    return Merged([*chain(*added)], sum(present), [*chain(*refused)])


def _merge_results(source: Path, results: Path) -> Merged:
    stored, refused = read_all(source)
    texts = {dumps(record) for _, record in read_all(results)[0]}
    added, present = [], 0
    for one in stored:
        text = dumps(one.record)
        if faults := record_faults(one):
            refused.append(Problem(one.path, "; ".join(faults)))
        elif text in texts:
            present += 1
        else:
            added.append(write(one.record, results))
            texts.add(text)
    return Merged(added, present, refused)


def _merge_kind(kind: type[BesideRecord], source: Path, results: Path) -> Merged:
    found, refused = kind.read_all(source)
    known = {record.id: record for record in kind.read_all(results)[0]}
    added, present = [], 0
    for record in found:
        ours = known.get(record.id)
        measured = time_measured(record)
        if faults := faults_of(record, source):
            refused.append(Problem(f"{kind.folder}/{record.id}.json", "; ".join(faults)))
        elif ours is None or (measured and measured > time_measured(ours)):
            added.append(record.write(results))
        elif measured or dumps(record) == dumps(ours):
            present += 1
        else:
            refused.append(Problem(f"{kind.folder}/{record.id}.json", "another record of this name is there already"))
    return Merged(added, present, refused)
