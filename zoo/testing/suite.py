"""The conformance suites as pytest classes. Needs pytest, which `zoo check` does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from zoo.spec.registry import registry
from zoo.testing.check import Check, NotDeclared
from zoo.testing.checks import CHECKS
from zoo.testing.checks_task import TASK_CHECKS, TaskCheck
from zoo.testing.subject import Subject
from zoo.testing.task_subject import TaskSubject


class ArchitectureSuite:
    """Subclass it, name the architecture, and pytest runs every check against it.

    architecture       a registered name
    overrides          configuration fields other than the defaults, where those are too large to be tried out
    expected_failures  check -> why it cannot pass; an unexpected pass, or a check that does not exist, fails
    """

    architecture: ClassVar[str] = ""
    overrides: ClassVar[Mapping[str, Any]] = {}
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def subject(self) -> Subject:
        """What the checks are given."""
        return Subject.find(self.architecture, self.overrides)

    def test_expected_failures_name_checks(self) -> None:
        unknown = sorted(set(self.expected_failures) - {c.name for c in CHECKS})
        assert not unknown, f"expected_failures names checks that do not exist: {', '.join(unknown)}"

    @pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.name)
    def test_conformance(self, check: Check) -> None:
        why = self.expected_failures.get(check.name)
        try:
            check(self.subject())
        except NotDeclared as declared:
            if why is not None:
                pytest.fail(f"{check.name} is expected to fail ({why}), but is not declared: {declared}")
            pytest.skip(f"not declared: {declared}")
        except Exception as error:
            if why is None:
                raise
            pytest.xfail(f"{why} ({error})")
        if why is not None:
            pytest.fail(f"{check.name} passed, though it is expected to fail: {why}")


class TaskSuite:
    """The same for a task: subclass it, name the task, and pytest runs every check of its data."""

    task: ClassVar[str] = ""

    @pytest.fixture(scope="class")
    def subject(self) -> TaskSubject:
        """The task, its data prepared once."""
        return TaskSubject(registry().task(self.task))

    @pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda c: c.name)
    def test_data(self, check: TaskCheck, subject: TaskSubject) -> None:
        try:
            check(subject)
        except NotDeclared as declared:
            pytest.skip(str(declared))
