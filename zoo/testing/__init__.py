"""The conformance suite: what `zoo check` runs and what a plugin author subclasses.

    from zoo.testing import ArchitectureSuite

    class TestMyMixer(ArchitectureSuite):
        architecture = "my_mixer"

`run_checks("my_mixer")` gives the same as a `Report`, without pytest. For a task, use `TaskSuite` or `run_checks`.
"""

from zoo.testing.architectures import ARCHITECTURE_CHECKS
from zoo.testing.architectures.subject import ArchitectureSubject
from zoo.testing.check import Check, NoData, NotDeclared, Scope, Subject
from zoo.testing.report import Report, Result, run_check, run_checks
from zoo.testing.suite import ArchitectureSuite, TaskSuite
from zoo.testing.tasks import TASK_CHECKS
from zoo.testing.tasks.subject import TaskSubject

__all__ = [
    "ARCHITECTURE_CHECKS",
    "TASK_CHECKS",
    "ArchitectureSubject",
    "ArchitectureSuite",
    "Check",
    "NoData",
    "NotDeclared",
    "Report",
    "Result",
    "Scope",
    "Subject",
    "TaskSubject",
    "TaskSuite",
    "run_check",
    "run_checks",
]
