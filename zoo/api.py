"""`zoo.bench`: what the command of that name does, from Python. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.run.sweep import Names, results_dir, sweep


def bench(
    arch: Names,
    task: Names,
    *,
    protocol: str = "quick",
    seeds: int | Sequence[int] = 1,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    config: str | Path | None = None,
    results: str | Path | None = None,
    runs: str | Path | None = None,
    max_time: float | None = None,
    force: bool = False,
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train, test, record, and refresh the board.

    arch, task  names, comma-separated strings, "all", or (task) the name of a suite
    protocol    "smoke" | "quick" | "paper"
    seeds       how many, from 0, or which
    overrides   dotted configuration keys, as a mapping or as "key=value" strings
    config      a YAML file of configuration keys
    results     where records go (`ZOO_RESULTS_DIR`, else leaderboard/results); the board is built beside it
    runs        where checkpoints and logs go (`ZOO_RUNS_DIR`, else runs)
    max_time    seconds that one run may take; it is then recorded as "timeout" and goes on with the next call
    force       run again even where a record of the same experiment by the same code exists, from the beginning
    on_record   called with each record as it comes

    Returns the records, one per experiment, each with its file under "path". Raises UserError for mistakes, before
    anything is prepared.
    """
    from zoo.board.build import refresh

    places = results_dir(results)

    def seen(record: dict[str, Any]) -> None:
        refresh(places)
        if on_record is not None:
            on_record(record)

    return sweep(
        arch,
        task,
        protocol=protocol,
        seeds=seeds,
        overrides=overrides,
        config=config,
        results=places,
        runs=runs,
        max_time=max_time,
        force=force,
        on_record=seen,
    )
