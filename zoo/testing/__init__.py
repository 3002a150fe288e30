"""The conformance suite: what `zoo check` runs and what a plugin author subclasses.

    from zoo.testing import ArchitectureSuite

    class TestMyMixer(ArchitectureSuite):
        architecture = "my_mixer"

`run_checks("my_mixer")` gives the same as a `Report`, without pytest. For a task, use `TaskSuite` or `run_checks`.
"""

from zoo.testing.architectures import ARCHITECTURE_CHECKS as ARCHITECTURE_CHECKS
from zoo.testing.architectures.subject import ArchitectureSubject as ArchitectureSubject
from zoo.testing.check import Subject as Subject
from zoo.testing.report import run_check as run_check
from zoo.testing.report import run_checks as run_checks
from zoo.testing.suite import ArchitectureSuite as ArchitectureSuite
from zoo.testing.suite import TaskSuite as TaskSuite
from zoo.testing.tasks import TASK_CHECKS as TASK_CHECKS
from zoo.testing.tasks import TaskSubject as TaskSubject
