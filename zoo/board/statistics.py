"""Confidence intervals and ranges of ranks for a few seeds.

Scores of several seeds: their mean, with Student's 95 % interval. Two or three seeds say little about their own spread,
so the spread is pooled over the rows of a task: variances within rows with at least two seeds, their degrees of freedom
added up. This takes the spread to be the same for all. For perplexities all is done with the logarithms, which are mean
losses, and transformed back. The kind of an interval says where it comes from:
    "t"         of several seeds
    "pooled"    of one seed, with the spread of the other rows
    "binomial"  where no row has two seeds, of one run's finite test set only; of an accuracy: Wilson's interval (Wilson
                1927) for the number of questions. Where a question has several answers and the accuracy is over
                answers, the number of questions still counts: answers to one question are not independent. If they
                depend on each other entirely, this is their interval; if not, it is wider than necessary
    "normal"    likewise of a perplexity: exp(ln perplexity ± 1.96 standard errors of the mean loss, which are recorded)
A single run of any other metric, or without a standard error, has no interval there, and any rank is possible.
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
TWO_SIDED = (1 + CONFIDENCE) / 2


class Run(NamedTuple):
    """One seed's test score, its number of test examples, and the standard error of its mean loss in nats."""

    score: float
    n: int
    stderr: float | None = None


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, and where it comes from."""

    low: float
    high: float
    kind: Literal["t", "pooled", "binomial", "normal"]


@dataclass(frozen=True)
class Estimate:
    """A mean score, its interval, and the standard error of the mean (for perplexities of their logarithm) with its
    degrees of freedom."""

    mean: float
    interval: Interval | None
    error: float = math.inf
    df: float = math.inf


def wilson(score: float, n: int) -> Interval:
    """Wilson's interval for a proportion `score` of `n` examples."""
    if n < 1 or not 0 <= score <= 1:
        raise ValueError(f"a proportion of {score} of {n} examples")
    # scipy's takes whole counts only; an accuracy over answers is not a whole number of questions
    z = float(ndtri(TWO_SIDED))
    centre = (score + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(score * (1 - score) / n + z * z / (4 * n * n))
    # the ends are 0 and 1 exactly when the score is; rounding must not cut the score off
    return Interval(min(max(centre - half, 0.0), score), max(min(centre + half, 1.0), score), "binomial")


def run_interval(run: Run, metric: Metric = ACCURACY) -> Interval | None:
    """The interval of a single run; None where the spread over its test set is unknown."""
    if metric.is_share:
        return wilson(run.score, run.n)
    if run.stderr is None or metric.kind == "number":
        return None
    unit = math.log(2) if metric.kind == "bits" else 1.0
    half = float(ndtri(TWO_SIDED)) * run.stderr / unit
    mean = metric.to_mean(run.score)
    return Interval(metric.from_mean(mean - half), metric.from_mean(mean + half), "normal")


def estimate_rows(rows: Sequence[Sequence[Run]], metric: Metric = ACCURACY) -> list[Estimate | None]:
    """The estimate of each row of one task from its runs, a run for each seed that has a score; None for no runs."""
    values = [np.array([metric.to_mean(run.score) for run in runs]) for runs in rows]
    df = sum(len(row) - 1 for row in values if len(row))
    squares = math.fsum(float(((row - row.mean()) ** 2).sum()) for row in values if len(row))
    deviation = math.sqrt(squares / df) if df else math.nan
    return [_estimate(runs, row, metric, deviation, df) for runs, row in zip(rows, values, strict=True)]


def _estimate(runs: Sequence[Run], values: np.ndarray, metric: Metric, deviation: float, df: int) -> Estimate | None:
    if not runs:
        return None
    if df:
        mean, error = math.fsum(values) / len(values), deviation / math.sqrt(len(values))
        half = _quantile(df, TWO_SIDED) * error
        ends = metric.from_mean(mean - half), metric.from_mean(mean + half)
        interval = Interval(*ends, "t" if len(runs) > 1 else "pooled")
        return Estimate(metric.mean([run.score for run in runs]), interval, error, df)
    (run,) = runs
    alone = run_interval(run, metric)
    if alone is None:
        return Estimate(run.score, None)
    width = metric.to_mean(alone.high) - metric.to_mean(alone.low)
    return Estimate(run.score, alone, width / 2 / float(ndtri(TWO_SIDED)))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The plain mean of independent estimates of one scale, such as normalized scores of several tasks, with its
    interval; None where the error of any is unknown. Degrees of freedom are Welch's and Satterthwaite's (1946)."""
    n = len(estimates)
    mean = math.fsum(each.mean for each in estimates) / n
    variances = [(each.error / n) ** 2 for each in estimates]
    error = math.sqrt(math.fsum(variances))
    if math.isinf(error):
        return Estimate(mean, None)
    spread = math.fsum(each**2 / estimate.df for each, estimate in zip(variances, estimates, strict=True))
    df = error**4 / spread if spread else math.inf
    half = _quantile(df, TWO_SIDED) * error
    return Estimate(mean, Interval(mean - half, mean + half, "normal" if math.isinf(df) else "t"), error, df)


def _quantile(df: float, p: float) -> float:
    """Student's; with infinitely many degrees of freedom the normal one."""
    return float(ndtri(p) if math.isinf(df) else stdtrit(df, p))


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


class Rank(NamedTuple):
    """The rank by the mean as it is written, and the best and worst rank that the data allow."""

    rank: int
    best: int
    worst: int


def rank_rows(
    estimates: Sequence[Estimate], metric: Metric = ACCURACY, paired_errors: np.ndarray | None = None
) -> list[Rank]:
    """The rank of each row of one task: 1 + the number of rows with a better mean; means that are written alike
    (99.96 % and 100.0 %) share a rank, unless the data tell the rows apart.

    paired_errors  (rows, rows) standard error of the difference of two rows where it is known, else NaN: of rows that
                   answered the same questions it is smaller than that of independent ones

    The true rank of a row lies between `best` and `worst` with at least 95 % probability: the row is compared with
    every other by the difference of the means (Student's, two-sided), each at 5 % over the number of comparisons, and
    those that differ stand above or below (Mogstad, Romano, Shaikh & Wilhelm 2024, marginal confidence sets for ranks).
    """
    n = len(estimates)
    sign = 1.0 if metric.higher_is_better else -1.0
    means = np.array([sign * metric.to_mean(each.mean) for each in estimates])
    errors = np.array([each.error for each in estimates])
    differences = means[None, :] - means[:, None]  # [row, other]: how much better the other is
    spreads = np.hypot(errors[None, :], errors[:, None])
    if paired_errors is not None:
        spreads = np.where(np.isnan(paired_errors), spreads, paired_errors)
    tail = (1 - CONFIDENCE) / 2 / max(n - 1, 1)
    needed = _quantile(min((each.df for each in estimates), default=math.inf), 1 - tail) * spreads
    above, below = (differences > needed).sum(1), (-differences > needed).sum(1)
    ranks = _share_ranks(1 + (differences > 0).sum(1), 1 + above, [metric.format(each.mean) for each in estimates])
    return [Rank(int(r), 1 + int(a), n - int(w)) for r, a, w in zip(ranks, above, below, strict=True)]


def _share_ranks(places: np.ndarray, best: np.ndarray, written: Sequence[str]) -> np.ndarray:
    """(rows,) The place by the mean of the first row that is written alike, of each row; its own place where that would
    be better than the best rank that the data allow. So ranks keep the order of the means and stay in their ranges."""
    ranks = places.copy()
    rank, text = 0, ""
    for place in np.unique(places):
        rows = places == place  # of equal means
        first = written[int(rows.argmax())]
        if first != text or best[rows].max() > rank:
            rank, text = place, first
        ranks[rows] = rank
    return ranks
