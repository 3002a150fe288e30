"""Metrics: how their values are averaged, bounded and written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from zoo.spec.record import BOUNDS, MetricKind, metric_kind

NOT_FINITE = "not finite"
"""Shown instead of a score that is null in the record of a run that ended well."""


@dataclass(frozen=True)
class Metric:
    """A metric: its name, and whether higher values are better."""

    name: str
    higher_is_better: bool = True

    @property
    def kind(self) -> MetricKind:
        """share, perplexity, bits or number; see `zoo.spec.record.metric_kind`."""
        return metric_kind(self.name)

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction."""
        return self.kind == "share"

    @property
    def title(self) -> str:
        """The name in words: "word perplexity"."""
        return self.name.replace("_", " ")

    def to_mean(self, value: float) -> float:
        """The quantity that is averaged: the logarithm of a perplexity, any other value itself."""
        return math.log(value) if self.kind == "perplexity" else value

    def from_mean(self, mean: float) -> float:
        """The inverse of `to_mean`, cut to the metric's bounds."""
        low, high = BOUNDS[self.kind]
        if self.kind == "perplexity":
            mean = math.exp(mean) if mean < 709 else math.inf  # e^709 is the largest float
        return min(max(mean, low), high)

    def mean(self, values: Sequence[float], weights: Sequence[float] | None = None) -> float:
        """The (weighted) mean of values, for a perplexity the geometric one; NaN where any value is NaN."""
        weights = [1.0] * len(values) if weights is None else weights
        if any(math.isnan(value) for value in values):
            return math.nan
        total = math.fsum(w * self.to_mean(v) for w, v in zip(weights, values, strict=True))
        return self.from_mean(total / math.fsum(weights))

    def error(self, value: float) -> float:
        """What is missing to a perfect score: 1 - a share, or the mean loss of a perplexity; NaN for any other number,
        which has no perfect score."""
        perfect = {"share": 1.0, "perplexity": 0.0, "bits": 0.0, "number": math.nan}[self.kind]
        return abs(self.to_mean(max(value, BOUNDS[self.kind][0])) - perfect)

    # -- formatting ------------------------------------------------------------------------------------------------

    def format(self, value: float | None) -> str:
        """0.1752 -> "17.5 %"; 23.4567 -> "23.46"; None or NaN -> "not finite"."""
        text = self.format_bare(value)
        return f"{text} %" if self.is_share and text != NOT_FINITE else text

    def format_bare(self, value: float | None) -> str:
        """`format` without the unit."""
        if value is None or math.isnan(value):
            return NOT_FINITE
        if self.is_share:
            return f"{100 * value:.1f}"
        digits = 3 if self.kind == "bits" else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
        return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.2e}"

    def format_range(self, low: float, high: float) -> str:
        """ "[39.0, 43.4]"; empty where there is no interval."""
        return "" if math.isnan(low) else f"[{self.format_bare(low)}, {self.format_bare(high)}]"

    def format_with(self, value: float, low: float, high: float) -> str:
        """A score and its interval: "41.0 % [39.0, 43.4]"."""
        return f"{self.format(value)} {self.format_range(low, high)}".strip()

    def format_difference(self, value: float) -> str:
        """A difference with its sign; of shares in percentage points."""
        return f"{100 * value:+.1f}" if self.is_share else f"{value:+.2f}"


ACCURACY = Metric("accuracy")


def sorted_names(names: Iterable[str]) -> list[str]:
    """Names of metrics: shares, then perplexities, bits, and other numbers."""
    kinds = get_args(MetricKind)
    return sorted(set(names), key=lambda name: (kinds.index(metric_kind(name)), name))
