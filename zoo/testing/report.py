"""Run the checks of an architecture or a task, and report their outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from zoo.spec.registry import registry
from zoo.testing.architectures import ARCHITECTURE_CHECKS
from zoo.testing.architectures.subject import ArchitectureSubject
from zoo.testing.check import Check, NoData, NotDeclared, Subject
from zoo.testing.tasks import TASK_CHECKS, TaskSubject

Status = Literal["passed", "not_declared", "no_data", "failed"]
"""not_declared: the capability is not claimed. no_data: not run, because data files are missing."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    capability  what the check tests; empty for the contract that everything keeps
    reason      why it failed or did not run, or a note on how it ran
    """

    check: str
    status: Status
    reason: str = ""
    capability: str = ""


@dataclass(frozen=True)
class Report:
    """The results of all checks of one architecture or task."""

    name: str
    results: list[Result]

    def count(self, status: Status) -> int:
        """Number of checks with this outcome."""
        return sum(result.status == status for result in self.results)

    @property
    def ok(self) -> bool:
        """Whether some checks passed and none failed."""
        return self.count("passed") > 0 and self.count("failed") == 0

    def summary(self) -> str:
        """`34 checks: 31 passed, 3 not declared, 0 without data, 0 failed`."""
        return (
            f"{len(self.results)} checks: {self.count('passed')} passed, {self.count('not_declared')} not declared, "
            f"{self.count('no_data')} without data, {self.count('failed')} failed"
        )

    def to_text(self) -> str:
        """The summary, each failed check with its reason, and once each note and each cause of missing data."""
        failed = [
            f"  {r.check}{r.capability and f' ({r.capability})'}: {r.reason}"
            for r in self.results
            if r.status == "failed"
        ]
        missing = [f"  no data: {r.reason}" for r in self.results if r.status == "no_data"]
        notes = [f"  note: {r.reason}" for r in self.results if r.status == "passed" and r.reason]
        return "\n".join([self.summary(), *failed, *dict.fromkeys([*missing, *notes])])

    def to_json(self) -> dict[str, Any]:
        """The number of checks per outcome, and every check with its outcome and reason."""
        counts = {status: self.count(status) for status in get_args(Status)}
        return {"name": self.name, **counts, "details": [asdict(result) for result in self.results]}


def run_check(check: Check, subject: Subject) -> Result:
    """Run one check. Exceptions become outcomes."""
    subject.notes.clear()
    status: Status = "passed"
    try:
        check(subject)
        reason = "; ".join(dict.fromkeys(subject.notes))
    except NotDeclared as error:
        status, reason = "not_declared", str(error)
    except NoData as error:
        status, reason = "no_data", str(error)
    except Exception as error:  # whatever a plugin's code raises must not end the other checks
        status, reason = "failed", " ".join(str(error).split())
        if not isinstance(error, AssertionError):
            reason = f"{type(error).__name__}: {reason}"
        reason = reason or "an assertion without a message"
    return Result(check.name, status, reason, check.capability)


def run_checks(subject: str | Subject, overrides: Mapping[str, Any] | None = None, *, slow: bool = False) -> Report:
    """Run every check of one architecture or task; those that take seconds only if `slow`.

    subject    a registered name (of an architecture, else of a task), or a subject
    overrides  configuration fields of a registered architecture other than the defaults
    """
    if isinstance(subject, str):
        known = registry()
        if subject in known.tasks and subject not in known.architectures:
            subject = TaskSubject.find(subject)
        else:
            subject = ArchitectureSubject.find(subject, overrides)
    checks = TASK_CHECKS if isinstance(subject, TaskSubject) else ARCHITECTURE_CHECKS
    return Report(subject.name, [run_check(check, subject) for check in checks if slow or not check.slow])
