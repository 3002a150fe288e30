"""Takes over records from another machine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from zoo.board.checks import record_faults
from zoo.spec.cost import read_costs, write_cost
from zoo.spec.errors import UserError
from zoo.spec.store import Problem, dumps, read_all, write


class Merged(NamedTuple):
    """The files that were added, how many records were there already, and what was left out and why."""

    added: list[Path]
    present: int
    refused: list[Problem]


def merge(folder: Path | str, results_dir: Path | str) -> Merged:
    """Add every consistent record of `folder`, of results and of costs beside it, to those of `results_dir`.

    `folder` is a folder of results, or one that holds `results`. Nothing is replaced: another run of the same
    configuration and seed becomes a further file, the same run is there once. Of costs of one configuration on one
    machine the later measurement stays. Raises UserError where there are no records.
    """
    source = Path(folder)
    source = source / "results" if (source / "results").is_dir() else source
    stored, refused = read_all(source)
    costs, not_costs = read_costs(source)
    if not (stored or refused or costs or not_costs):
        raise UserError(f"{folder}: no records there, nor in {Path(folder) / 'results'}")
    refused += not_costs
    texts = {dumps(record) for _, record in read_all(results_dir)[0]}
    added, present = [], 0
    for one in stored:
        record = one.record
        if faults := record_faults(one):
            refused.append(Problem(one.path, "; ".join(faults)))
        elif dumps(record) in texts:
            present += 1
        else:
            added.append(write(record, results_dir))
            texts.add(dumps(record))
    measured = {cost.id: cost.measured for cost in read_costs(results_dir)[0]}
    for cost in costs:
        if cost.measured > measured.get(cost.id, ""):
            added.append(write_cost(cost, results_dir))
        else:
            present += 1
    return Merged(added, present, refused)
