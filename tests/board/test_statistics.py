"""Intervals, convergence and ranks against values computed elsewhere."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from zoo.board.metric import ACCURACY, Metric, sorted_names
from zoo.board.statistics import Estimate, Interval, Run, estimate_rows, has_converged, rank_rows, run_interval, wilson

fractions = st.floats(0, 1)


def test_wilson_by_hand() -> None:
    # 10 of 20, z = 1.959964: centre 0.5, half-width z / (1 + z²/20) * sqrt(0.0125 + z²/1600) = 0.2007021
    result = wilson(0.5, 20)
    assert (result.low, result.high) == pytest.approx((0.2992980, 0.7007020), abs=1e-6)
    # 0 of 10: from 0 to z²/(10 + z²)
    assert wilson(0.0, 10).low == 0.0
    assert wilson(0.0, 10).high == pytest.approx(0.2775328, abs=1e-6)
    assert wilson(1.0, 10).high == 1.0


@settings(deadline=None)  # scipy is slow on a busy machine
@given(st.integers(1, 50_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(case: tuple[int, int]) -> None:
    k, n = case
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    result = wilson(k / n, n)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert result.low <= k / n <= result.high


def test_a_proportion_lies_between_0_and_1_of_at_least_one() -> None:
    with pytest.raises(ValueError, match="proportion"):
        wilson(1.5, 10)
    with pytest.raises(ValueError, match="proportion"):
        wilson(0.5, 0)


def test_converged_means_above_both_baselines_beyond_doubt() -> None:
    # 22 % of 1000: the interval begins at 19.6 %
    assert has_converged(Run(0.22, 1000), chance=0.1, majority=0.175)
    assert not has_converged(Run(0.19, 1000), chance=0.1, majority=0.175)
    assert has_converged(Run(0.19, 1000), chance=0.1, majority=None)
    assert not has_converged(Run(0.22, 100), chance=0.1, majority=0.175)
    assert not has_converged(Run(0.52, 1000), chance=0.5, majority=0.4)


def test_means_do_not_depend_on_the_order() -> None:
    scores = [0.1, 0.7, 0.3, 0.2]
    (forth,) = estimate_rows([[Run(s, 10) for s in scores]])
    (back,) = estimate_rows([[Run(s, 10) for s in reversed(scores)]])
    assert forth is not None
    assert back is not None
    assert forth.mean == back.mean
    assert forth.error == pytest.approx(back.error)
    assert math.isclose(forth.mean, 0.325)


# -- seeds, pooled over the rows of a task --------------------------------------------------------------------------


def estimates(rows: list[list[float]], metric: Metric = ACCURACY) -> list[Estimate]:
    found = estimate_rows([[Run(score, 1000) for score in row] for row in rows], metric)
    assert None not in found
    return found


def interval(estimate: Estimate) -> Interval:
    assert estimate.interval is not None
    return estimate.interval


def test_the_interval_of_one_row_by_hand() -> None:
    # mean 0.4, deviation 0.1, t(2) = 4.302653 from the usual table: half-width 4.302653 * 0.1 / sqrt(3) = 0.248414
    (row,) = estimates([[0.3, 0.4, 0.5]])
    assert (interval(row).low, interval(row).high) == pytest.approx((0.151586, 0.648414), abs=1e-6)
    assert (row.mean, interval(row).kind, row.df) == (pytest.approx(0.4), "t", 2)


def test_the_spread_over_seeds_is_pooled_over_the_rows_by_hand() -> None:
    # squares about the means: 0.02, 0.0002 and nothing, with 2, 1 and 0 degrees of freedom: deviation
    # sqrt(0.0202 / 3) = 0.0820569; t(3) = 3.182446
    rows = estimates([[0.3, 0.4, 0.5], [0.60, 0.62], [0.7]])
    halves = [0.0820569 * 3.182446 / math.sqrt(n) for n in (3, 2, 1)]
    for row, half in zip(rows, halves, strict=True):
        assert interval(row).low == pytest.approx(row.mean - half, abs=1e-6)
        assert interval(row).high == pytest.approx(min(row.mean + half, 1.0), abs=1e-6)
    assert [interval(row).kind for row in rows] == ["t", "t", "pooled"]
    assert {row.df for row in rows} == {3}


def test_where_no_row_has_two_seeds_the_interval_is_of_the_test_set() -> None:
    rows = estimate_rows([[Run(0.5, 20)], [], [Run(0.25, 20)]])
    assert rows[1] is None
    assert [row and interval(row).kind for row in rows] == ["binomial", None, "binomial"]
    assert rows[0] is not None
    assert interval(rows[0]) == wilson(0.5, 20)
    # Wilson's half-width over z
    assert rows[0].error == pytest.approx(0.2007021 / 1.959964, abs=1e-6)


@settings(deadline=None)  # scipy is slow on a busy machine
@given(st.lists(st.lists(fractions, min_size=1, max_size=4), min_size=2, max_size=6))
def test_intervals_are_those_of_an_analysis_of_variance(rows: list[list[float]]) -> None:
    df = sum(len(row) - 1 for row in rows)
    if df == 0:
        return
    within = sum(np.var(row) * len(row) for row in rows) / df
    for row, found in zip(rows, estimates(rows), strict=True):
        low, high = stats.t.interval(0.95, df, np.mean(row), math.sqrt(within / len(row)) or 1e-300)
        assert interval(found).low == pytest.approx(max(low, 0), abs=1e-7)
        assert interval(found).high == pytest.approx(min(high, 1), abs=1e-7)


@settings(deadline=None)
@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=8))
def test_the_interval_of_perplexities_is_that_of_their_logarithms(scores: list[float]) -> None:
    (found,) = estimates([scores], PERPLEXITY)
    logs = [math.log(score) for score in scores]
    mean, error = sum(logs) / len(logs), stats.sem(logs)
    assert math.log(found.mean) == pytest.approx(mean, abs=1e-9)
    low, high = stats.t.interval(0.95, len(logs) - 1, mean, error) if error > 0 else (mean, mean)
    # cut where there is no such perplexity, or no such number
    assert math.log(interval(found).low) == pytest.approx(max(low, 0), abs=1e-6)
    assert interval(found).high == math.inf or math.log(interval(found).high) == pytest.approx(high, abs=1e-6)
    assert 1 <= interval(found).low <= found.mean * (1 + 1e-9)


TRUTH = np.linspace(0.3, 0.6, 10)


def draw(rng: np.random.Generator, seeds: list[int], deviation: float = 0.03) -> list[Estimate]:
    """Estimates of rows whose true scores are TRUTH, each with this many seeds."""
    return estimates([list(rng.normal(mean, deviation, n)) for mean, n in zip(TRUTH, seeds, strict=True)])


@pytest.mark.parametrize("seeds", [[2] * 10, [3] * 10, [5] * 10, [1] * 7 + [2] * 3, [1, 2, 3, 5, 1, 2, 3, 5, 1, 2]])
def test_intervals_and_rank_ranges_cover_the_truth_as_often_as_they_claim(seeds: list[int]) -> None:
    rng = np.random.default_rng(0)
    covered = np.zeros(len(TRUTH))
    placed = np.zeros(len(TRUTH))
    ranks = len(TRUTH) - np.arange(len(TRUTH))
    for _ in range(2000):
        rows = draw(rng, seeds)
        covered += [interval(row).low <= mean <= interval(row).high for row, mean in zip(rows, TRUTH, strict=True)]
        placed += [row.best <= rank <= row.worst for row, rank in zip(rank_rows(rows), ranks, strict=True)]
    # over rows and draws: of dependent rows a standard error of at most 0.5 %
    assert covered.mean() / 2000 == pytest.approx(0.95, abs=0.01)
    assert placed.min() / 2000 >= 0.95


@pytest.mark.parametrize("higher", [True, False])
def test_a_rank_follows_the_means_and_lies_within_its_range(higher: bool) -> None:
    metric, rng = Metric("f1", higher), np.random.default_rng(1)
    for _ in range(50):
        rows = estimates(
            [list(rng.normal(rng.choice([0.1, 0.4, 0.6]), 0.02, rng.integers(2, 4))) for _ in range(6)], metric
        )
        ranks = rank_rows(rows, metric)
        means = [row.mean if higher else -row.mean for row in rows]
        for (mean, rank, row), (other, above, better) in itertools.product(
            zip(means, ranks, rows, strict=True), repeat=2
        ):
            if other > mean:  # written alike they share a rank, but where the data tell them apart
                alike = metric.format(row.mean) == metric.format(better.mean) and rank.best <= above.rank
                assert (above.rank == rank.rank) if alike else (above.rank < rank.rank)
        assert all(1 <= rank.best <= rank.rank <= rank.worst <= 6 for rank in ranks)


def test_scores_that_are_written_alike_share_a_rank_unless_the_data_tell_them_apart() -> None:
    means = (0.9996, 0.9998, 0.9996, 0.9, 1.0)  # 100.0 % four times
    wide, sharp = ([Estimate(mean, None, error) for mean in means] for error in (0.01, 1e-6))
    assert [rank.rank for rank in rank_rows(wide)] == [1, 1, 1, 5, 1]
    assert [(rank.rank, rank.best) for rank in rank_rows(sharp)] == [(3, 3), (2, 2), (3, 3), (5, 5), (1, 1)]


def test_rows_far_apart_have_one_place_and_rows_alike_have_all() -> None:
    apart = rank_rows(estimates([[0.1, 0.11], [0.5, 0.51], [0.9, 0.91]]))
    assert [(row.rank, row.best, row.worst) for row in apart] == [(3, 3, 3), (2, 2, 2), (1, 1, 1)]
    alike = rank_rows(estimates([[0.48, 0.52], [0.47, 0.51], [0.5, 0.5]]))
    assert {(row.best, row.worst) for row in alike} == {(1, 3)}
    assert [row.rank for row in alike] == [1, 3, 1]
    assert rank_rows([]) == []
    assert [tuple(row) for row in rank_rows(estimates([[0.4, 0.5]]))] == [(1, 1, 1)]


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("df", [6, math.inf])
def test_rows_stand_apart_from_the_quantile_for_their_number_on(n: int, df: float) -> None:
    # two-sided at 5 % over the n - 1 rows that a row is compared with; standard errors of 0.03 and 0.04 make 0.05
    needed = stats.t.ppf(1 - 0.05 / 2 / (n - 1), df) * 0.05
    for gap, places in ((needed * 1.001, {(1, 1), (2, n)}), (needed * 0.999, {(1, n)})):
        rows = [Estimate(0.3, None, 0.03, df)] * (n - 1) + [Estimate(0.3 + gap, None, 0.04, df)]
        assert {(row.best, row.worst) for row in rank_rows(rows)} == places


def test_what_has_no_interval_may_have_any_place() -> None:
    rows = estimate_rows([[Run(0.9, 1)], [Run(0.5, 1)], [Run(0.1, 1)]], Metric("f1"))
    assert [row and row.interval for row in rows] == [None, None, None]
    assert [tuple(rank) for rank in rank_rows([row for row in rows if row])] == [(1, 1, 3), (2, 1, 3), (3, 1, 3)]


# -- metrics that are no shares ------------------------------------------------------------------------------------

PERPLEXITY = Metric("word_perplexity", higher_is_better=False)
BITS = Metric("bits_per_byte", higher_is_better=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("accuracy", "share"),
        ("word_end_accuracy", "share"),
        ("exact", "share"),
        ("perplexity", "perplexity"),
        ("byte_perplexity", "perplexity"),
        ("bits_per_byte", "bits"),
        ("inaccuracy", "number"),
    ],
)
def test_a_name_says_what_kind_of_number_it_is(name: str, kind: str) -> None:
    assert Metric(name).kind == kind


def test_a_single_perplexity_by_hand() -> None:
    # 1.959964 standard errors of 0.05 nats about ln 20
    result = run_interval(Run(20.0, 100, 0.05), PERPLEXITY)
    assert result is not None
    assert (result.low, result.high) == pytest.approx((20 * math.exp(-0.0979982), 20 * math.exp(0.0979982)), abs=1e-5)
    assert result.kind == "normal"
    # the same in bits: 0.05 nats are 0.0721348 bits
    bits = run_interval(Run(1.0, 100, 0.05), BITS)
    assert bits is not None
    assert (bits.low, bits.high) == pytest.approx((1 - 0.141382, 1 + 0.141382), abs=1e-6)
    assert run_interval(Run(20.0, 100), PERPLEXITY) is None
    assert run_interval(Run(0.3, 100, 0.05), Metric("f1")) is None


def test_a_weighted_mean_is_that_of_the_losses_and_nan_if_any_value_is() -> None:
    assert PERPLEXITY.mean([2.0, 8.0], [1, 3]) == pytest.approx(2**2.5)
    assert Metric("accuracy").mean([0.2, 0.6], [1, 3]) == pytest.approx(0.5)
    assert Metric("accuracy").mean([0.2, 0.6]) == pytest.approx(0.4)
    assert math.isnan(PERPLEXITY.mean([2.0, math.nan]))
    # bounds of what a mean may be, and of what a float may
    assert PERPLEXITY.from_mean(708.9) == math.exp(708.9)
    assert [PERPLEXITY.from_mean(mean) for mean in (-1.0, 709.5)] == [1.0, math.inf]
    assert [Metric("accuracy").from_mean(mean) for mean in (-0.1, 1.1)] == [0.0, 1.0]


def test_scores_are_named_shares_first() -> None:
    names = ["loss", "bits_per_byte", "b_perplexity", "exact", "a_perplexity", "accuracy", "exact"]
    expected = ["accuracy", "exact", "a_perplexity", "b_perplexity", "bits_per_byte", "loss"]
    assert sorted_names(names) == expected


@pytest.mark.parametrize("higher", [True, False])
def test_a_score_that_equals_a_baseline_has_not_converged(higher: bool) -> None:
    number, better = Metric("f1", higher), 0.01 if higher else -0.01
    for lines in ({"chance": 0.3, "majority": None}, {"chance": None, "majority": 0.3}):
        assert not has_converged(Run(0.3, 100), number, **lines)
        assert has_converged(Run(0.3 + better, 100), number, **lines)
    assert has_converged(Run(-1.0, 100), number, chance=None, majority=None)


def test_converged_where_less_is_better() -> None:
    lines = {"chance": 256.0, "majority": 30.0}
    assert has_converged(Run(20.0, 100, 0.05), PERPLEXITY, **lines)
    # 29 is less than 30, but not beyond doubt
    assert not has_converged(Run(29.0, 100, 0.05), PERPLEXITY, **lines)
    assert has_converged(Run(29.0, 100), PERPLEXITY, **lines)
    assert has_converged(Run(1e9, 100), PERPLEXITY, chance=None, majority=None)
    assert not has_converged(Run(0.0, 100), chance=None, majority=None)
    assert has_converged(Run(0.1, 100), chance=None, majority=None)


def test_numbers_for_people() -> None:
    share, other = Metric("accuracy"), Metric("perplexity", higher_is_better=False)
    assert [share.format(0.1752), share.format_bare(1.0), share.format(None)] == ["17.5 %", "100.0", "not finite"]
    result = [other.format(value) for value in (1.0, 23.456, 456.78, 12_345.6, 3.2e7)]
    assert result == ["1.00", "23.46", "456.8", "12,346", "3.20e+07"]
    edges = [other.format(value) for value in (99.99, 100.0, 999.9, 1_000.0, 999_999.0, 1e6, -3.0)]
    assert edges == ["99.99", "100.0", "999.9", "1,000", "999,999", "1.00e+06", "-3.00"]
    assert [metric.format_difference(-0.2549) for metric in (share, other)] == ["-25.5", "-0.25"]
    assert [metric.format_range(math.nan, 1.0) for metric in (share, other)] == ["", ""]
    assert BITS.format(1.23456) == "1.235"
    assert other.format_range(math.exp(2), math.inf) == "[7.39, inf]"
