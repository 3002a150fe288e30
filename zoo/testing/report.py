"""Running the suite outside of pytest, and what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.spec.architecture import Architecture
from zoo.spec.registry import registry
from zoo.testing.check import Check, NotDeclared
from zoo.testing.checks import CHECKS
from zoo.testing.checks_task import TASK_CHECKS, TaskCheck
from zoo.testing.subject import Subject
from zoo.testing.task_subject import TaskSubject

Status = Literal["passed", "not_declared", "failed"]


@dataclass(frozen=True)
class Result:
    """One check: why it failed or was not declared, or what it had to do differently."""

    check: str
    status: Status
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Report:
    """What the suite found for one architecture or task."""

    name: str
    results: list[Result] = field(default_factory=list)

    def count(self, status: Status) -> int:
        return sum(r.status == status for r in self.results)

    @property
    def ok(self) -> bool:
        """Something was checked and nothing failed."""
        return self.count("passed") > 0 and self.count("failed") == 0

    @property
    def seconds(self) -> float:
        return sum(r.seconds for r in self.results)

    def summary(self) -> str:
        """`34 checks: 31 passed, 3 not declared, 0 failed`."""
        return (
            f"{len(self.results)} checks: {self.count('passed')} passed, "
            f"{self.count('not_declared')} not declared, {self.count('failed')} failed"
        )

    def to_text(self) -> str:
        """The summary, then each failed check with its reason."""
        failed = [f"  {r.check}: {r.reason}" for r in self.results if r.status == "failed"]
        return "\n".join([self.summary(), *failed])

    def to_json(self) -> dict[str, Any]:
        """Counts, and every check with its status and reason."""
        return {
            "name": self.name,
            "passed": self.count("passed"),
            "not_declared": self.count("not_declared"),
            "failed": self.count("failed"),
            "details": [{"check": r.check, "status": r.status, "reason": r.reason} for r in self.results],
        }


def run_check(check: Check | TaskCheck, subject: Any) -> Result:
    """One check; whatever it raises is its status."""
    subject.notes.clear()
    start = time.perf_counter()
    status: Status = "passed"
    try:
        check(subject)
        reason = "; ".join(subject.notes)
    except NotDeclared as declared:
        status, reason = "not_declared", str(declared)
    except AssertionError as error:
        status, reason = "failed", " ".join(str(error).split()) or "an assertion without a message"
    except Exception as error:  # any error of a plugin's code is that plugin's failure, and the next check's turn
        status, reason = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Result(check.name, status, reason, time.perf_counter() - start)


def run_checks(
    name: str | Architecture | Subject,
    *,
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[Result], None] | None = None,
) -> Report:
    """Run every check against one architecture.

    name       a registered name, a record, or a Subject
    overrides  configuration fields other than the defaults
    progress   called after each check
    """
    if isinstance(name, Architecture):
        subject = Subject(name, overrides=overrides)
    elif isinstance(name, str):
        subject = Subject.find(name, overrides)
    else:
        subject = name
    return _run(CHECKS, subject, progress)


def run_task_checks(name: str, *, progress: Callable[[Result], None] | None = None) -> Report:
    """Run every check of data against one registered task, under its smallest protocol."""
    return _run(TASK_CHECKS, TaskSubject(registry().task(name)), progress)


def _run(checks: Sequence[Check | TaskCheck], subject: Any, progress: Callable[[Result], None] | None) -> Report:
    report = Report(subject.name)
    for check in checks:
        result = run_check(check, subject)
        report.results.append(result)
        if progress is not None:
            progress(result)
    return report
