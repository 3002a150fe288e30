"""What may be said about a handful of scores. Scores are fractions between 0 and 1, higher is better.

Several seeds: their mean with a 95 % t-interval, which covers the spread of training. A single run: the 95 % Wilson
interval of its test set (Wilson 1927), which covers only the finite test set and is labelled "binomial" everywhere.
A failed run has no score here; it is told in words by whoever shows it, and never enters as 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and what it is about: "t" the mean over seeds, "binomial" one run's finite test set."""

    low: float
    high: float
    kind: Literal["t", "binomial"]


@dataclass(frozen=True)
class Estimate:
    """A score and how sure it is. `n` is the number of seeds ("t") or of test examples ("binomial")."""

    mean: float
    interval: Interval
    n: int


def wilson(score: float, n: int) -> Interval:
    """Wilson's interval for a proportion `score` of `n` examples."""
    if n < 1 or not 0 <= score <= 1:
        raise ValueError(f"a proportion of {score} of {n} examples")
    z = float(ndtri((1 + CONFIDENCE) / 2))
    centre = (score + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(score * (1 - score) / n + z * z / (4 * n * n))
    # the ends are 0 and 1 exactly when the score is; rounding must not cut the score off
    return Interval(min(max(centre - half, 0.0), score), max(min(centre + half, 1.0), score), "binomial")


def t_interval(scores: Sequence[float]) -> Interval:
    """Student's interval for the mean of at least two scores, cut to [0, 1]."""
    n = len(scores)
    if n < 2:
        raise ValueError(f"a t-interval needs two scores, got {n}")
    mean = math.fsum(scores) / n
    deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (n - 1))
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(n)
    return Interval(max(mean - half, 0.0), min(mean + half, 1.0), "t")


def estimate(runs: Sequence[tuple[float, int]]) -> Estimate | None:
    """The estimate from (score, number of test examples) of each seed that has a score; None without any."""
    if not runs:
        return None
    if len(runs) == 1:
        score, n = runs[0]
        return Estimate(score, wilson(score, n), n)
    scores = [score for score, _ in runs]
    return Estimate(math.fsum(scores) / len(scores), t_interval(scores), len(scores))


def converged(score: float, n: int, *, chance: float, majority: float | None) -> bool:
    """Whether a run learned: the lower end of its test score's interval is above both baselines."""
    return wilson(score, n).low > max(chance, majority or 0.0)


@dataclass(frozen=True)
class Rank:
    """A place, and whether it is shared."""

    place: int
    tied: bool


def ranks(estimates: Sequence[Estimate]) -> list[Rank]:
    """The place of each estimate, in the order given: 1 + the number of estimates whose interval lies wholly above.

    So nobody stands above another unless their intervals are apart, and those that nothing tells apart from the
    best share the first place.
    """
    places = [1 + sum(other.interval.low > own.interval.high for other in estimates) for own in estimates]
    return [Rank(place, places.count(place) > 1) for place in places]


def common(rows: Iterable[Iterable[str]]) -> list[str]:
    """The names that every row has, sorted; none when there are no rows."""
    sets = [set(row) for row in rows]
    return sorted(set.intersection(*sets)) if sets else []
