"""The conformance checks as pytest classes. Only these need pytest: `zoo check` runs without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from zoo.testing.architectures import ARCHITECTURE_CHECKS
from zoo.testing.architectures.subject import ArchitectureSubject
from zoo.testing.check import Check, NoData, NotDeclared, Subject
from zoo.testing.tasks import TASK_CHECKS, TaskSubject


class ConformanceSuite:
    """A pytest class with one test per check; base of the suites for architectures and tasks.

    expected_failures  check -> why it cannot pass; an unexpected pass, or a check that does not exist, fails
    slow               whether to run the slow checks (torch.compile, torch.export) as well
    """

    checks: ClassVar[Sequence[Check]] = ()
    expected_failures: ClassVar[Mapping[str, str]] = {}
    slow: ClassVar[bool] = True

    def subject(self) -> Subject:
        """The subject of the checks."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Parametrize the test by the checks."""
        if "check" in metafunc.fixturenames:
            checks = [check for check in self.checks if self.slow or not check.slow]
            metafunc.parametrize("check", checks, ids=lambda check: check.name)

    def test_expected_failures_name_checks(self) -> None:
        unknown = sorted(set(self.expected_failures) - {check.name for check in self.checks})
        assert not unknown, f"expected_failures names checks that do not exist: {', '.join(unknown)}"

    def test_conformance(self, check: Check) -> None:
        import pytest

        expected = self.expected_failures.get(check.name)
        try:
            check(self.subject())
        except (NotDeclared, NoData) as error:
            if expected is None:
                pytest.skip(f"{'not declared' if isinstance(error, NotDeclared) else 'no data'}: {error}")
            outcome = f"did not run ({error})"
        except Exception as error:
            if expected is None:
                raise
            pytest.xfail(f"{expected} ({error})")
        else:
            outcome = "passed"
        assert expected is None, f"{check.name} {outcome}, though it is expected to fail: {expected}"


class ArchitectureSuite(ConformanceSuite):
    """Subclass it and name the architecture, and pytest runs every check against it.

    architecture  a registered name
    overrides     configuration fields other than the defaults, where those are too large for a test
    """

    architecture: ClassVar[str] = ""
    overrides: ClassVar[Mapping[str, Any]] = {}
    checks = ARCHITECTURE_CHECKS

    def subject(self) -> Subject:
        return ArchitectureSubject.find(self.architecture, self.overrides)


class TaskSuite(ConformanceSuite):
    """Subclass it and name the task, and pytest runs every check against it and its data."""

    task: ClassVar[str] = ""
    checks = TASK_CHECKS

    def subject(self) -> Subject:
        return _find_task(self.task)


_find_task = cache(TaskSubject.find)
"""One subject for all tests, so that sample files are written once."""
