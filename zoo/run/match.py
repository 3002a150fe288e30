"""The width at which an architecture has as many parameters as a baseline: what makes a protocol's models comparable.

Whole models are counted (embedding, positions, backbone, head), as records count them. Torch is imported only here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.spec.errors import ConfigError

TOLERANCE = 0.05
"""How far from the baseline's parameter count a model may be and still be called matched."""
REACH = 4
"""Widths from a quarter to four times the baseline's are tried."""
FAR = 0.2
"""Beyond this, narrowing or widening would only cripple the model without making it comparable."""
ROUND = (8, 4, 2, 1)
"""Multiples that are preferred, in this order, as long as the count stays within the tolerance."""


@dataclass(frozen=True)
class Match:
    """What solving for the width found. `parameters` are those of the width, `wanted` the baseline's."""

    width: int
    parameters: int
    wanted: int

    @property
    def off(self) -> float:
        """Relative difference to the baseline."""
        return self.parameters / self.wanted - 1

    @property
    def matched(self) -> bool:
        return abs(self.off) <= TOLERANCE


def solve(count: Callable[[int], int], wanted: int, start: int) -> Match:
    """The roundest width within TOLERANCE of `wanted` parameters; where none is, the nearest there is, unless even
    that is far away: then `start`, the width that the protocol gives.

    count   width -> parameters; raises ConfigError for a width that cannot be built. Taken to grow with the width
    start   the baseline's width
    """
    counts: dict[int, int | None] = {}

    def counted(width: int) -> int | None:
        if width not in counts:
            try:
                counts[width] = count(width)
            except ConfigError:
                counts[width] = None
        return counts[width]

    low, high = max(1, start // REACH), start * REACH
    for multiple in ROUND:
        _bisect(counted, wanted, -(-low // multiple), high // multiple, multiple)
        found = {width: n for width, n in counts.items() if n is not None}
        close = [w for w, n in found.items() if w % multiple == 0 and abs(n / wanted - 1) <= TOLERANCE]
        if close:
            best = min(close, key=lambda w: (abs(found[w] - wanted), w))
            return Match(best, found[best], wanted)
    if not found:
        # nothing can be built: the ordinary check of the protocol's width says why
        return Match(start, count(start), wanted)
    nearest = min(found, key=lambda w: (abs(found[w] - wanted), w))
    if abs(found[nearest] / wanted - 1) > FAR:
        own = counted(start)
        if own is not None:
            return Match(start, own, wanted)
    return Match(nearest, found[nearest], wanted)


def _bisect(counted: Callable[[int], int | None], wanted: int, low: int, high: int, multiple: int) -> None:
    """Count the widths around the crossing of `wanted` among the multiples of `multiple` that can be built."""
    while low <= high:
        middle = (low + high) // 2
        # widths that cannot be built (a number of heads that does not divide them) are stepped over
        probe = next((k for k in range(middle, high + 1) if counted(k * multiple) is not None), None)
        if probe is None:
            high = middle - 1
            continue
        n = counted(probe * multiple)
        assert n is not None
        if n < wanted:
            low = probe + 1
        else:
            high = middle - 1
