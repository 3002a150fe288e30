"""Comparison of rows on the same test questions, which a record answers one by one (`SplitMetrics.right`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import bdtr, ndtri

from zoo.board.statistics import TWO_SIDED, Estimate


class Difference(NamedTuple):
    """How many more of the same questions a row answers than another, as a share, with a 95 % interval, and McNemar's p
    value that they answer equally many, two-sided."""

    mean: float
    low: float
    high: float
    p: float


def compare_answers(row: np.ndarray, other: np.ndarray) -> Difference:
    """Compare two rows on n questions.

    row, other  (seeds, n) bool, whether each seed answered each question right

    Of several seeds a question counts by the share of the seeds that answered it. The interval is the normal one for
    the mean of the n differences: it covers the choice of questions, not that of seeds. McNemar's test (1947) in its
    exact form looks only at questions on which the rows differ: as many for as against is the null hypothesis.
    """
    differences = row.mean(0) - other.mean(0)
    n, mean = len(differences), float(differences.mean())
    half = float(ndtri(TWO_SIDED)) * float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    p = min(1.0, 2.0 * float(bdtr(min(wins, losses), wins + losses, 0.5)))
    return Difference(mean, max(mean - half, -1.0), min(mean + half, 1.0), p)


def measure_paired_errors(estimates: Sequence[Estimate], answers: Sequence[np.ndarray | None]) -> np.ndarray:
    """Standard errors of the differences of rows on the same questions, for `rank_rows`: (rows, rows).

    answers  (seeds, n) bool for each row; None where they are unknown

    Only between rows whose interval is that of one run's test set, and whose score is the share of the questions that
    it answers; NaN elsewhere. Of several seeds it is the spread over seeds that counts, not that over questions.
    """
    errors = np.full((len(estimates), len(estimates)), math.nan)
    by_length: dict[int, list[int]] = {}
    for i, (estimate, right) in enumerate(zip(estimates, answers, strict=True)):
        alone = estimate.interval is not None and estimate.interval.kind == "binomial"
        if alone and right is not None and math.isclose(right.mean(), estimate.mean, abs_tol=1e-9):
            by_length.setdefault(right.shape[1], []).append(i)
    for n, rows in by_length.items():
        if n < 2:
            continue
        covariance = np.atleast_2d(np.cov(np.stack([np.asarray(answers[i])[0] for i in rows]).astype(np.float64)))
        variance = np.diag(covariance)
        squares = (variance[:, None] + variance[None, :] - 2 * covariance) / n
        errors[np.ix_(rows, rows)] = np.sqrt(np.maximum(squares, 0.0))
    return errors


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment (1979) of p values for their number."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for k, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare_with(reference: str, answers: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """The difference of every other row to the reference on the questions of one task; p values are Holm's.

    answers  (seeds, n) bool by row; empty without the reference
    """
    if reference not in answers:
        return {}
    against = answers[reference]
    rows = [name for name in answers if name != reference and answers[name].shape[1] == against.shape[1]]
    found = [compare_answers(answers[name], against) for name in rows]
    p_values = adjust_holm([each.p for each in found])
    return {name: each._replace(p=p) for name, each, p in zip(rows, found, p_values, strict=True)}


def answered_by(answers: Mapping[str, np.ndarray], *, everybody: bool) -> list[int]:
    """The questions, by number from 0, that every seed of every row answers right, or that none does."""
    right = np.concatenate(list(answers.values()))
    return np.flatnonzero(right.all(0) if everybody else ~right.any(0)).tolist()


def measure_agreement(answers: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Share of the questions that two rows answer alike, both right or both wrong: the mean over pairs of their seeds.
    On the diagonal over pairs of different seeds of the row; NaN for a single one."""
    table = pd.DataFrame(index=list(answers), columns=list(answers), dtype="float64")
    for a, first in answers.items():
        for b, second in answers.items():
            alike = (first[:, None] == second[None]).mean(-1)
            if a == b:
                k = len(alike)
                table.loc[a, b] = (alike.sum() - k) / (k * (k - 1)) if k > 1 else math.nan
            else:
                table.loc[a, b] = alike.mean()
    return table
