"""Scores that the literature reports, to be shown beside those of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoo.spec.presets import Reported
from zoo.spec.store import StoredRecord

ReportedScores = Mapping[str, Sequence[Reported]]
"""Scores that the literature reports, by "distribution:architecture"."""


def load_reported(stored: Sequence[StoredRecord]) -> tuple[dict[str, list[Reported]], list[str]]:
    """The scores that the literature reports for the architectures of these records, and errors of loading them.

    Architectures that are not installed here have no reported scores.
    """
    from zoo.spec.registry import registry

    scores: dict[str, list[Reported]] = {}
    errors: list[str] = []
    here = {f"{e.plugin.distribution}:{e.record.name}": e.record for e in registry().architectures.values()}
    for key in sorted({f"{r.plugin.distribution}:{r.architecture.name}" for _, r in stored} & set(here)):
        try:
            scores[key] = list(here[key].load_reported())
        except Exception as error:  # a broken plugin must not take the board down
            errors.append(f"reported scores of {key}: {' '.join(str(error).split())}")
    return scores, errors
