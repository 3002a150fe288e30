"""What kind of number a metric is, told by its name: how it is averaged, bounded and written.

share        accuracy, word_end_accuracy, exact …: a fraction between 0 and 1, written in percent
perplexity   perplexity, word_perplexity …: the exponential of a mean loss, so that it is averaged as its logarithm
bits         bits_per_byte: a mean loss, in bits
number       any other
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["share", "perplexity", "bits", "number"]

NOT_FINITE = "not finite"
"""What is said of a score that is null in a record."""

COUNTS = ("n", "answers", "loss", "stderr", "groups")
"""What stands among the scores of a split without being one."""


@dataclass(frozen=True)
class Scale:
    """A metric: its name, and whether more of it is better."""

    name: str
    higher: bool = True

    @property
    def kind(self) -> Kind:
        """Which of the four kinds; the schema of a record bounds them by the same names."""
        if re.search(r"(^|_)(accuracy|exact)$", self.name):
            return "share"
        if re.search(r"(^|_)perplexity$", self.name):
            return "perplexity"
        return "bits" if self.name.startswith("bits_per_") else "number"

    @property
    def share(self) -> bool:
        """Whether it is a fraction, which alone may be averaged over tasks."""
        return self.kind == "share"

    @property
    def title(self) -> str:
        """For people: "word perplexity"."""
        return self.name.replace("_", " ")

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value there can be."""
        return {
            "share": (0.0, 1.0),
            "perplexity": (1.0, math.inf),
            "bits": (0.0, math.inf),
            "number": (-math.inf, math.inf),
        }[self.kind]

    def to_mean(self, value: float) -> float:
        """What is averaged: the logarithm of a perplexity, any other value itself."""
        return math.log(value) if self.kind == "perplexity" else value

    def from_mean(self, mean: float) -> float:
        """The value whose `to_mean` this is, within the bounds."""
        low, high = self.bounds
        if self.kind == "perplexity":
            # e^709 is the largest there is
            mean = math.exp(mean) if mean < 709 else math.inf
        return min(max(mean, low), high)

    def mean(self, values: Sequence[float], weights: Sequence[float] | None = None) -> float:
        """Mean of values, of a perplexity the geometric one."""
        weights = [1.0] * len(values) if weights is None else weights
        total = math.fsum(w * self.to_mean(v) for w, v in zip(weights, values, strict=True))
        return self.from_mean(total / math.fsum(weights))

    # -- for people ------------------------------------------------------------------------------------------------

    def text(self, value: float | None) -> str:
        """0.1752 -> "17.5 %"; 23.4567 -> "23.46"."""
        return f"{self.bare(value)} %" if self.share and value is not None else self.bare(value)

    def bare(self, value: float | None) -> str:
        """`text` without the unit."""
        if value is None:
            return NOT_FINITE
        if self.share:
            return f"{100 * value:.1f}"
        digits = 3 if self.kind == "bits" else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
        return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.2e}"

    def range(self, low: float, high: float) -> str:
        """ "[39.0, 43.4]" """
        return f"[{self.bare(low)}, {self.bare(high)}]"

    def difference(self, value: float) -> str:
        """With its sign; of shares in percentage points."""
        return f"{100 * value:+.1f}" if self.share else f"{value:+.2f}"


ACCURACY = Scale("accuracy")


def scale_of(record: Mapping[str, Any]) -> Scale:
    """The metric by which a record is ranked."""
    return Scale(record["metric"]["name"], record["metric"]["higher_is_better"])


def other_scores(names: Iterable[str], ranked_name: str) -> list[str]:
    """The scores of a split besides the ranked one: shares, then perplexities, then the rest."""
    order = ("share", "perplexity", "bits", "number")
    others = {name for name in names if name not in COUNTS and name != ranked_name}
    return sorted(others, key=lambda name: (order.index(Scale(name).kind), name))
