"""What a check is, and the comparisons that checks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.nn.state import describe, leaves
from zoo.spec.architecture import Capabilities

if TYPE_CHECKING:
    from zoo.testing.subject import Subject

LEAK = 1e-12
"""Relative float64 gradient that may reach where none is due: rounding in an FFT, nothing else."""
SAME = 1e-10
"""Relative float64 difference of one algorithm run on the same numbers in another arrangement (padding, rows)."""
AGREE = 1e-8
"""Relative float64 difference of two algorithms for one thing (recurrence and convolution, chunks and whole)."""


class NotDeclared(Exception):
    """The architecture does not promise what this check would test."""


@dataclass(frozen=True)
class Check:
    """One promise of the interface. Called with a Subject: returns, or raises AssertionError with what is wrong.

    needs  the capability that turns the check on, as a predicate; None = every architecture
    what   the declaration that is missing where it is off
    """

    name: str
    function: Callable[[Subject], None]
    needs: Callable[[Capabilities], bool] | None = None
    what: str = ""

    @property
    def title(self) -> str:
        """First line of the check's docstring."""
        return (self.function.__doc__ or self.name).strip().splitlines()[0]

    def __call__(self, subject: Subject) -> None:
        if self.needs is not None and not self.needs(subject.capabilities):
            raise NotDeclared(self.what)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.function(subject)


def check(needs: Callable[[Capabilities], bool] | None = None, what: str = "") -> Callable[..., Check]:
    """Make a Check, named like the function, of it."""

    def wrap(function: Callable[[Subject], None]) -> Check:
        return Check(function.__name__, function, needs, what)

    return wrap


def has_state(capabilities: Capabilities) -> bool:
    """Carries a state in causal mode ("memory" architectures in every mode)."""
    return capabilities.state != "none"


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest number of `theirs`; inf where the shapes differ or a NaN is."""
    if ours.shape != theirs.shape:
        return float("inf")
    if not theirs.numel():
        return 0.0
    gap = (ours - theirs).abs().max().item()
    scale = theirs.abs().max().item()
    if gap != gap or scale != scale:
        return float("inf")
    return gap / max(scale, 1e-30) if gap else 0.0


def require_same(ours: Tensor, theirs: Tensor, tolerance: float, message: str) -> None:
    """AssertionError with `message` and the numbers when the two differ by more than `tolerance`."""
    assert ours.shape == theirs.shape, f"{message}: shape {tuple(ours.shape)} against {tuple(theirs.shape)}"
    found = difference(ours.detach(), theirs.detach())
    assert found <= tolerance, f"{message}: relative difference {found:.3g}, allowed {tolerance:g}"


def require_same_state(ours: object, theirs: object, tolerance: float, message: str) -> None:
    """Like `require_same`, leaf by leaf."""
    a, b = leaves(ours), leaves(theirs)
    assert [x.shape for x in a] == [x.shape for x in b], f"{message}: {describe(ours)} against {describe(theirs)}"
    for x, y in zip(a, b, strict=True):
        if x.is_floating_point() or x.is_complex():
            require_same(x, y, tolerance, message)
        else:
            assert torch.equal(x, y), f"{message}: a leaf of masks or counters differs"


def require_finite(tensor: Tensor, message: str) -> None:
    """AssertionError naming how many numbers are not finite."""
    bad = (~torch.isfinite(tensor)).sum().item()
    assert not bad, f"{message}: {bad} of {tensor.numel()} numbers are not finite"
