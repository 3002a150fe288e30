"""The conformance checks of tasks, in the order in which they run."""

from zoo.testing.check import checks_in
from zoo.testing.tasks import checks

TASK_CHECKS = checks_in(checks)
