"""The generic conformance check: a name, the subjects it applies to, and a function that asserts.

A subject is an architecture or a task under test. A `Scope` derives the cases that a check runs on from a subject: one
case per mode of an architecture, say. No case means that the check's capability is not declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

import torch


class Subject(Protocol):
    """What the runner needs to know of an architecture or a task under test.

    notes  deviations of a check from its description, for the report (a width that had to be larger, say)
    """

    notes: list[str]

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def label(self) -> str:
        """Prefix of failure messages that distinguishes the cases of one subject: the mode of an architecture, say."""
        ...


S = TypeVar("S", bound=Subject)


class NotDeclared(Exception):
    """The subject does not declare what this check would test."""


class NoData(Exception):
    """The check needs data files that are not on this machine and cannot be generated."""


@dataclass(frozen=True)
class Scope(Generic[S]):
    """What a check applies to.

    cases   the cases of a subject to run the check on; none when the capability is not declared
    reason  the missing declaration, for the report
    """

    cases: Callable[[S], Iterable[S]]
    reason: str = ""


@dataclass(frozen=True)
class Check(Generic[S]):
    """One requirement of the interface. The function returns, or raises AssertionError with what is wrong."""

    name: str
    scope: Scope[S]
    function: Callable[[S], None]

    def __call__(self, subject: S) -> None:
        """Run the check on every case of `subject`, each from random seed 0.

        Raises NotDeclared where there is no case, and NoData where data files are missing.
        """
        cases = list(self.scope.cases(subject))
        if not cases:
            raise NotDeclared(self.scope.reason)
        for case in cases:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                try:
                    self.function(case)
                except AssertionError as error:
                    if case.label:
                        error.args = (f"{case.label}: {error}",)
                    raise


def check(scope: Scope[S]) -> Callable[[Callable[[S], None]], Check[S]]:
    """Turn a function into a check of the function's name."""
    return lambda function: Check(function.__name__, scope, function)


def checks_in(*modules: ModuleType) -> tuple[Check[Any], ...]:
    """All checks that are defined in `modules`, in the order of their definition."""
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Check))
