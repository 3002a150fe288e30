"""The conformance suite: what `zoo check` runs and what a plugin author subclasses.

    from zoo.testing import ArchitectureSuite

    class TestMyMixer(ArchitectureSuite):
        architecture = "my_mixer"

`run_checks("my_mixer")` gives the same as a `Report`, without pytest. For a task: `TaskSuite`, `run_task_checks`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "ArchitectureSuite": "zoo.testing.suite",
    "CHECKS": "zoo.testing.checks",
    "Check": "zoo.testing.check",
    "NotDeclared": "zoo.testing.check",
    "Report": "zoo.testing.report",
    "Subject": "zoo.testing.subject",
    "TASK_CHECKS": "zoo.testing.checks_task",
    "TaskSuite": "zoo.testing.suite",
    "run_checks": "zoo.testing.report",
    "run_task_checks": "zoo.testing.report",
}

if TYPE_CHECKING:
    from zoo.testing.check import Check as Check
    from zoo.testing.check import NotDeclared as NotDeclared
    from zoo.testing.checks import CHECKS as CHECKS
    from zoo.testing.checks_task import TASK_CHECKS as TASK_CHECKS
    from zoo.testing.report import Report as Report
    from zoo.testing.report import run_checks as run_checks
    from zoo.testing.report import run_task_checks as run_task_checks
    from zoo.testing.subject import Subject as Subject
    from zoo.testing.suite import ArchitectureSuite as ArchitectureSuite
    from zoo.testing.suite import TaskSuite as TaskSuite

__all__ = sorted(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zoo.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
