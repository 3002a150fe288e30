"""Intervals, convergence and ranks against values computed elsewhere."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from zoo.board.metric import Metric, sorted_names
from zoo.board.statistics import Run, estimate, has_converged, rank_intervals, run_interval, t_interval, wilson

fractions = st.floats(0, 1)


def test_t_interval_by_hand() -> None:
    # mean 0.4, deviation 0.1, t(2) = 4.302653 from the usual table: half-width 4.302653 * 0.1 / sqrt(3) = 0.248414
    result = t_interval([0.3, 0.4, 0.5])
    assert (result.low, result.high) == pytest.approx((0.151586, 0.648414), abs=1e-6)
    assert result.kind == "t"


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


@settings(deadline=None)  # scipy is slow on a busy machine
@given(st.lists(fractions, min_size=2, max_size=10))
def test_t_interval_is_that_of_scipy_within_the_unit_interval(scores: list[float]) -> None:
    result = t_interval(scores)
    mean, error = sum(scores) / len(scores), stats.sem(scores)
    low, high = stats.t.interval(0.95, len(scores) - 1, mean, error) if error > 0 else (mean, mean)
    assert result.low == pytest.approx(max(low, 0), abs=1e-9)
    assert result.high == pytest.approx(min(high, 1), abs=1e-9)


def test_one_score_has_no_t_interval() -> None:
    with pytest.raises(ValueError, match="two scores"):
        t_interval([0.5])
    with pytest.raises(ValueError, match="proportion"):
        wilson(1.5, 10)
    with pytest.raises(ValueError, match="proportion"):
        wilson(0.5, 0)


def test_a_single_run_is_labelled_as_such_and_none_is_not_zero() -> None:
    assert estimate([]) is None
    single = estimate([Run(0.5, 20)])
    assert single is not None
    assert single.interval is not None
    assert (single.mean, single.interval.kind) == (0.5, "binomial")
    several = estimate([Run(0.3, 20), Run(0.4, 20), Run(0.5, 20)])
    assert several is not None
    assert several.interval is not None
    assert (several.mean, several.interval.kind) == (pytest.approx(0.4), "t")


def test_converged_means_above_both_baselines_beyond_doubt() -> None:
    # 22 % of 1000: the interval begins at 19.6 %
    assert has_converged(Run(0.22, 1000), chance=0.1, majority=0.175)
    assert not has_converged(Run(0.19, 1000), chance=0.1, majority=0.175)
    assert has_converged(Run(0.19, 1000), chance=0.1, majority=None)
    assert not has_converged(Run(0.22, 100), chance=0.1, majority=0.175)
    assert not has_converged(Run(0.52, 1000), chance=0.5, majority=0.4)


Ends = tuple[float, float]


def rank(intervals: list[Ends], **kwargs: bool) -> list[int]:
    return rank_intervals([low for low, _ in intervals], [high for _, high in intervals], **kwargs)


def test_rows_that_overlap_share_a_rank() -> None:
    best, second, between, worst = (0.8, 0.9), (0.6, 0.7), (0.65, 0.82), (0.1, 0.3)
    assert rank([worst, best, second, between]) == [4, 1, 2, 1]


def test_intervals_that_touch_overlap() -> None:
    assert rank([(0.2, 0.4), (0.4, 0.6)]) == [1, 1]


intervals = st.tuples(fractions, fractions).map(lambda ends: (min(ends), max(ends)))


@given(st.lists(intervals, max_size=12))
def test_ranks_in_general(rows: list[Ends]) -> None:
    places = rank(rows)
    assert not rows or min(places) == 1
    assert all(1 <= place <= len(rows) for place in places)
    for a, rank_a in zip(rows, places, strict=True):
        for b, rank_b in zip(rows, places, strict=True):
            if a[0] > b[1]:
                assert rank_a < rank_b
    # with intervals of one width the order of the means is never turned round
    same = [(low - 0.05, low + 0.05) for low, _ in rows]
    order = sorted(zip(same, rank(same), strict=True), reverse=True)
    assert all(a <= b for (_, a), (_, b) in pairwise(order))


def test_means_do_not_depend_on_the_order() -> None:
    scores = [0.1, 0.7, 0.3, 0.2]
    forth = estimate([Run(s, 10) for s in scores])
    back = estimate([Run(s, 10) for s in reversed(scores)])
    assert forth == back
    assert forth is not None
    assert math.isclose(forth.mean, 0.325)


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


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=8))
def test_the_interval_of_perplexities_is_that_of_their_logarithms(scores: list[float]) -> None:
    result = estimate([Run(score, 10) for score in scores], PERPLEXITY)
    assert result is not None
    assert result.interval is not None
    logs = [math.log(score) for score in scores]
    mean, error = sum(logs) / len(logs), stats.sem(logs)
    assert math.log(result.mean) == pytest.approx(mean, abs=1e-9)
    low, high = stats.t.interval(0.95, len(logs) - 1, mean, error) if error > 0 else (mean, mean)
    # cut where there is no such perplexity, or no such number
    assert math.log(result.interval.low) == pytest.approx(max(low, 0), abs=1e-6)
    assert result.interval.high == math.inf or math.log(result.interval.high) == pytest.approx(high, abs=1e-6)
    assert 1 <= result.interval.low <= result.mean * (1 + 1e-9)


@given(st.lists(intervals, max_size=12))
def test_ranks_where_lower_is_better_mirror_the_others(rows: list[Ends]) -> None:
    assert rank(rows, higher_is_better=False) == rank([(-high, -low) for low, high in rows])


def test_what_has_no_interval_ties_with_everybody() -> None:
    assert rank([(0.8, 0.9), (math.nan, math.nan), (0.1, 0.3)]) == [1, 1, 2]


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
    assert [metric.format_difference(-0.0149) for metric in (share, other)] == ["-1.5", "-0.01"]
    assert [metric.format_range(math.nan, 1.0) for metric in (share, other)] == ["", ""]
    assert BITS.format(1.23456) == "1.235"
    assert other.format_range(math.exp(2), math.inf) == "[7.39, inf]"
