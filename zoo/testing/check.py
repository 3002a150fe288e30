"""The generic conformance check: a name, the cases it applies to, and a function that asserts.

A subject is an architecture or a task under test. A scope derives the cases that a check runs on from a subject: one
case per mode of an architecture, say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import torch

F = TypeVar("F", bound=Callable[[Any], None])
Scope: TypeAlias = Callable[[Any], Sequence[Any]]
"""From a subject to at least one case. Raises NotDeclared where there is none, and NoData where files are missing."""


class Subject(Protocol):
    """What the runner needs to know of an architecture or a task under test.

    notes  deviations of a check from its description, for the report (a width that had to be larger, say)
    """

    notes: list[str]

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def label(self) -> str:
        """Prefix of failure messages that distinguishes the cases of one subject: the mode of an architecture, say."""


class NotDeclared(Exception):
    """The subject does not declare what this check would test."""


class NoData(Exception):
    """The check needs data files that are not on this machine and cannot be generated."""


@dataclass(frozen=True)
class Check:
    """One requirement of the interface. The function returns, or raises AssertionError with what is wrong.

    capability  what a failure shows to be wrong, for reports: "mode causal", "step", "padding"; empty for the contract
                that everything keeps
    slow        takes seconds; `zoo check` runs it only with `--slow`
    """

    name: str
    scope: Scope
    function: Callable[[Any], None]
    capability: str = ""
    slow: bool = False

    def __call__(self, subject: Subject) -> None:
        """Run the check on every case of `subject`, each from random seed 0. Raises what `scope` raises."""
        with torch.random.fork_rng(devices=[]), _one_thread():
            for case in self.scope(subject):
                torch.manual_seed(0)
                try:
                    self.function(case)
                except AssertionError as error:
                    if case.label:
                        error.args = (f"{case.label}: {error}",)
                    raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the tensors of checks are so small that more would mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Checks(list[Check]):
    """The checks of architectures, or of tasks, in the order of their definition."""

    def add(self, scope: Scope, name: str = "", *, slow: bool = False) -> Callable[[F], F]:
        """Return a decorator that adds a function as a check, under its own name or another."""

        def register(function: F) -> F:
            self.append(Check(name or function.__name__, scope, function, getattr(scope, "capability", ""), slow))
            return function

        return register
