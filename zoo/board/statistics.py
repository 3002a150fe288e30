"""Confidence intervals and ranks for a few seeds.

Several seeds: their mean with a 95 % t-interval, which covers the spread of training; for perplexities both are taken
over the logarithms, which are mean losses, and transformed back. A single run: an interval for its finite test set
only, labelled as such everywhere:
    "binomial"  of an accuracy, Wilson's interval (Wilson 1927) for the number of questions. Where a question has
                several answers and the accuracy is over answers, the number of questions still counts: answers to one
                question are not independent. If they depend on each other entirely, this is their interval; if not, the
                interval is wider than necessary, never narrower
    "normal"    of a perplexity, exp(ln perplexity ± 1.96 standard errors of the mean loss), which the record holds
A single run of any other metric, or without a standard error, has no interval and shares its rank with every other row.
A failed run has no score here and never enters as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit  # importing scipy.stats takes ten times as long

from zoo.board.metric import ACCURACY, Metric

CONFIDENCE = 0.95


class Run(NamedTuple):
    """One seed's test score, its number of test examples, and the standard error of its mean loss in nats."""

    score: float
    n: int
    stderr: float | None = None


@dataclass(frozen=True)
class Interval:
    """A 95 % interval: "t" of the mean over seeds, "binomial" or "normal" of one run's finite test set."""

    low: float
    high: float
    kind: Literal["t", "binomial", "normal"]


@dataclass(frozen=True)
class Estimate:
    """A mean score and its interval."""

    mean: float
    interval: Interval | None


def wilson(score: float, n: int) -> Interval:
    """Wilson's interval for a proportion `score` of `n` examples."""
    if n < 1 or not 0 <= score <= 1:
        raise ValueError(f"a proportion of {score} of {n} examples")
    # scipy's takes whole counts only; an accuracy over answers is not a whole number of questions
    z = float(ndtri((1 + CONFIDENCE) / 2))
    centre = (score + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(score * (1 - score) / n + z * z / (4 * n * n))
    # the ends are 0 and 1 exactly when the score is; rounding must not cut the score off
    return Interval(min(max(centre - half, 0.0), score), max(min(centre + half, 1.0), score), "binomial")


def t_interval(scores: Sequence[float], metric: Metric = ACCURACY) -> Interval:
    """Student's interval for the mean of at least two scores, cut to the metric's bounds."""
    n = len(scores)
    if n < 2:
        raise ValueError(f"a t-interval needs two scores, got {n}")
    values = [metric.to_mean(score) for score in scores]
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(n)
    return Interval(metric.from_mean(mean - half), metric.from_mean(mean + half), "t")


def run_interval(run: Run, metric: Metric = ACCURACY) -> Interval | None:
    """The interval of a single run; None where the spread over its test set is unknown."""
    if metric.is_share:
        return wilson(run.score, run.n)
    if run.stderr is None or metric.kind == "number":
        return None
    unit = math.log(2) if metric.kind == "bits" else 1.0
    half = float(ndtri((1 + CONFIDENCE) / 2)) * run.stderr / unit
    mean = metric.to_mean(run.score)
    return Interval(metric.from_mean(mean - half), metric.from_mean(mean + half), "normal")


def estimate(runs: Sequence[Run], metric: Metric = ACCURACY) -> Estimate | None:
    """The estimate from the runs of each seed that has a score; None without any."""
    if not runs:
        return None
    if len(runs) == 1:
        return Estimate(runs[0].score, run_interval(runs[0], metric))
    scores = [run.score for run in runs]
    return Estimate(metric.mean(scores), t_interval(scores, metric))


def has_converged(run: Run, metric: Metric = ACCURACY, *, chance: float | None, majority: float | None) -> bool:
    """Whether the worse end of a run's interval is better than every baseline there is."""
    lines = [line for line in (chance, majority) if line is not None]
    interval = run_interval(run, metric)
    if metric.higher_is_better:
        low = run.score if interval is None else interval.low
        # a share of 0 never counts as learned
        return low > max(lines, default=0.0 if metric.is_share else -math.inf)
    high = run.score if interval is None else interval.high
    return high < min(lines, default=math.inf)


def rank_intervals(lows: Sequence[float], highs: Sequence[float], *, higher_is_better: bool = True) -> list[int]:
    """The rank of each interval: 1 + the number of intervals that lie wholly on its better side.

    NaN for both ends of an interval that is unknown. So a row stands above another only where their intervals are
    disjoint, and all that cannot be distinguished from the best share the first rank.
    """
    low, high = np.asarray(lows, dtype=float), np.asarray(highs, dtype=float)
    better = low[None, :] > high[:, None] if higher_is_better else high[None, :] < low[:, None]
    return [int(rank) for rank in 1 + better.sum(axis=1)]
