"""Run the checks of an architecture or a task, and report their outcomes."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from zoo.spec.errors import UserError, did_you_mean
from zoo.spec.registry import registry
from zoo.testing.architectures import ARCHITECTURE_CHECKS
from zoo.testing.architectures.subject import ArchitectureSubject
from zoo.testing.check import Check, NoData, NotDeclared, Subject
from zoo.testing.tasks import TASK_CHECKS, TaskSubject

Status = Literal["passed", "not_declared", "no_data", "failed", "not_run"]
"""not_declared: the capability is not claimed. no_data: not run, because data files are missing. not_run: after a
failure that ends the checks."""
ROOTS = ("builds_from_defaults", "shapes")
"""Checks whose failure makes every later one fail for the same reason."""


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
        """`34 checks: 31 passed, 3 not declared, 0 without data, 0 failed`, and how many were not run, if any."""
        not_run = self.count("not_run")
        return (
            f"{len(self.results)} checks: {self.count('passed')} passed, {self.count('not_declared')} not declared, "
            f"{self.count('no_data')} without data, {self.count('failed')} failed"
        ) + (f", {not_run} not run" if not_run else "")

    def to_text(self) -> str:
        """The summary, each failed check with its reason (those that fail for one reason together), why others were not
        run, and once each note and each cause of missing data."""
        causes: dict[str, list[str]] = {}
        for r in self.results:
            if r.status == "failed":
                causes.setdefault(r.reason, []).append(f"{r.check}{r.capability and f' ({r.capability})'}")
        failed = [f"  {', '.join(checks)}: {reason}" for reason, checks in causes.items()]
        failed += dict.fromkeys(f"  not run: {r.reason}" for r in self.results if r.status == "not_run")
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
            reason = f"{type(error).__name__}: {reason}{_place(error, subject)}"
        reason = reason or "an assertion without a message"
    return Result(check.name, status, reason, check.capability)


def _place(error: Exception, subject: Subject) -> str:
    """The innermost line of the plugin's own code that an exception passed: " (zoo_name/backbone.py:31)"."""
    target = subject.architecture.backbone if isinstance(subject, ArchitectureSubject) else ""
    target = subject.task.data if isinstance(subject, TaskSubject) else target
    spec = importlib.util.find_spec(target.partition(".")[0].partition(":")[0]) if target else None
    folders = [Path(folder).resolve() for folder in (spec.submodule_search_locations or [])] if spec else []
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        for folder in folders:
            if folder in file.parents:
                return f" ({file.relative_to(folder.parent)}:{frame.lineno})"
    return ""


def run_checks(
    subject: str | Subject,
    overrides: Mapping[str, Any] | None = None,
    *,
    slow: bool = False,
    only: Collection[str] = (),
    stop: bool = False,
) -> Report:
    """Run the checks of one architecture or task; those that take seconds only if `slow` or named.

    subject    a registered name (of an architecture, else of a task), or a subject
    overrides  configuration fields of a registered architecture other than the defaults
    only       names of checks: no others
    stop       end with the first failure; one of ROOTS ends the checks always

    Raises UserError for a name in `only` that is no check.
    """
    if isinstance(subject, str):
        known = registry()
        if subject in known.tasks and subject not in known.architectures:
            subject = TaskSubject.find(subject)
        else:
            subject = ArchitectureSubject.find(subject, overrides)
    checks = TASK_CHECKS if isinstance(subject, TaskSubject) else ARCHITECTURE_CHECKS
    names = [check.name for check in checks]
    for name in only:
        if name not in names:
            raise UserError(f"no check of {subject.name} is called {name!r}{did_you_mean(name, names)}")
    results: list[Result] = []
    ended = ""
    for check in checks:
        if check.name not in only if only else check.slow and not slow:
            continue
        if ended:
            results.append(Result(check.name, "not_run", ended, check.capability))
            continue
        results.append(run_check(check, subject))
        if results[-1].status == "failed" and (stop or check.name in ROOTS):
            ended = f"mend {check.name} first, which every later check needs" if check.name in ROOTS else "-x"
    return Report(subject.name, results)
