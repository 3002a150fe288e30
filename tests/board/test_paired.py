"""Rows compared question by question, against values computed elsewhere and by simulation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.records import make
from zoo.board.paired import (
    adjust_holm,
    answered_by,
    compare_answers,
    compare_with,
    measure_agreement,
    measure_paired_errors,
)
from zoo.board.results import compare
from zoo.board.statistics import Rank, Run, estimate_rows, rank_rows
from zoo.board.tables import remarks, section_table
from zoo.cli import main
from zoo.spec.record import Record, pack_bits
from zoo.spec.store import StoredRecord, write


def answers(*rows: str) -> np.ndarray:
    return np.array([[bit == "1" for bit in row] for row in rows])


def test_a_difference_by_hand() -> None:
    # 6 for, 1 against, 3 alike: mean 0.5; exact McNemar: 2 * (1 + 7) / 2^7 = 0.125
    found = compare_answers(answers("1111110011"), answers("0000001011"))
    assert found.mean == pytest.approx(0.5)
    assert found.p == pytest.approx(0.125)
    half = 1.959964 * np.std([1] * 6 + [-1] + [0] * 3, ddof=1) / 10**0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_the_interval_of_one_question_is_everything_and_that_of_two_is_cut_at_1() -> None:
    assert compare_answers(answers("1"), answers("0")) == (1.0, -1.0, 1.0, 1.0)
    found = compare_answers(answers("10"), answers("00"))
    # of 1 and 0 the deviation is sqrt(0.5), its standard error 0.5
    assert (found.low, found.high) == (pytest.approx(0.5 - 1.959964 * 0.5), 1.0)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_exact_binomial_test_of_scipy(wins: int, losses: int) -> None:
    row = answers("1" * wins + "0" * losses + "1")
    other = answers("0" * wins + "1" * losses + "1")
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert compare_answers(row, other).p == pytest.approx(expected)
    back = compare_answers(other, row)
    assert (back.mean, back.p) == (pytest.approx(-compare_answers(row, other).mean), pytest.approx(expected))


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_by_its_definition(p_values: list[float]) -> None:
    adjusted = adjust_holm(p_values)
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    for place, index in enumerate(order):
        steps = [(len(order) - k) * p_values[order[k]] for k in range(place + 1)]
        assert adjusted[index] == pytest.approx(min(1.0, max(steps)))


def test_the_interval_covers_the_true_difference_as_often_as_it_claims() -> None:
    rng, n, covered = np.random.default_rng(0), 400, 0
    for _ in range(2000):
        difficulty = rng.random(n)  # shared: what makes pairs narrower than two intervals
        row, other = difficulty < 0.6, rng.permuted(np.stack([difficulty < 0.5, rng.random(n) < 0.5]), axis=0)[0]
        found = compare_answers(row[None], other[None])
        covered += found.low <= 0.1 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.01)


def test_pairs_of_the_same_questions_are_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(1000)
    found = compare_answers((difficulty < 0.6)[None], (difficulty < 0.55)[None])
    assert found.high - found.low < 0.04  # of two independent shares: 0.087
    assert found.p < 1e-6


def test_a_row_with_other_questions_is_not_compared() -> None:
    rows = {"a": answers("101"), "b": answers("111"), "c": answers("11")}
    assert set(compare_with("a", rows)) == {"b"}
    assert compare_with("z", rows) == {}


def record(arch: str, bits: str, seed: int = 0) -> StoredRecord:
    fields = make(arch, seed=seed, accuracy=bits.count("1") / len(bits), n=len(bits)).model_dump(mode="json")
    fields["match"] = None if arch == "transformer" else {"architecture": "transformer", "parameters": 120_000}
    fields["metrics"]["test"]["right"] = pack_bits(bit == "1" for bit in bits)
    valid = Record.model_validate(fields)
    return StoredRecord(f"{valid.id}.json", valid)


def rank_by_answers(rows: list[np.ndarray]) -> list[Rank]:
    """The ranks of rows (1, n) of one seed each."""
    estimates = [each for each in estimate_rows([[Run(float(row.mean()), row.shape[1])] for row in rows]) if each]
    return rank_rows(estimates, paired_errors=measure_paired_errors(estimates, rows))


def test_rows_that_differ_on_few_questions_have_places_of_their_own() -> None:
    """200 questions; the better row answers 15 more and loses none: unpaired, their intervals overlap."""
    worse, better = np.arange(200)[None] < 100, np.arange(200)[None] < 115
    assert [tuple(rank) for rank in rank_by_answers([worse, better])] == [(2, 2, 2), (1, 1, 1)]
    estimates = [each for each in estimate_rows([[Run(0.5, 200)], [Run(0.575, 200)]]) if each]
    assert [tuple(rank) for rank in rank_rows(estimates)] == [(2, 1, 2), (1, 1, 2)]


def test_ranges_of_ranks_on_the_same_questions_hold_the_true_ranks() -> None:
    """Questions are easy or hard for all rows alike; 1,000 draws of 400 questions."""
    rng, truth = np.random.default_rng(0), np.array([0.0, 0.0, 0.1, 0.2, 0.2])
    ranks = 1 + (truth[None, :] > truth[:, None]).sum(1)
    held, narrower = np.zeros(5), 0
    for _ in range(1000):
        ease = rng.uniform(-0.3, 0.6, 400)
        right = rng.uniform(size=(5, 1, 400)) < np.clip(ease + truth[:, None, None], 0, 1)
        found = rank_by_answers(list(right))
        # equal rows have all the places that they share
        held += [row.best <= rank <= row.worst for row, rank in zip(found, ranks, strict=True)]
        plain = rank_rows([each for each in estimate_rows([[Run(float(r.mean()), 400)] for r in right]) if each])
        narrower += sum(p.worst - p.best for p in plain) > sum(f.worst - f.best for f in found)
    assert held.min() / 1000 >= 0.95
    assert narrower > 100


def test_only_scores_that_count_questions_of_one_run_are_paired() -> None:
    right = np.array([[True, False, True, True]])
    one, answers_count = estimate_rows([[Run(0.75, 4)], [Run(0.9, 4)]])
    assert one is not None
    assert answers_count is not None
    errors = measure_paired_errors([one, answers_count], [right, right])
    assert np.isnan(errors[0, 1])
    assert np.isnan(errors[1, 1])
    seeds = [each for each in estimate_rows([[Run(0.75, 4), Run(0.5, 4)], [Run(0.75, 4)]]) if each]
    assert np.isnan(measure_paired_errors(seeds, [np.repeat(right, 2, 0), right])).all()
    assert np.isnan(measure_paired_errors([one, one], [right, None])[0, 1])


def test_the_board_shows_each_row_beside_the_baseline_of_its_width_on_the_same_questions() -> None:
    stored = [record("transformer", "0000001011"), record("mamba", "1111110011"), record("s5", "0000001011")]
    (section,) = compare(stored).sections()
    table = section_table(section)
    column = table.headers.index("paired difference")
    name = table.headers.index("architecture")
    # two comparisons: Holm doubles the smaller p value
    assert {row[name]: row[column] for row in table.rows} == {
        "mamba": "+50.0 [+6.2, +93.8], p = 0.250",
        "s5": "+0.0 [+0.0, +0.0], p = 1.000",
        "transformer": "",
    }
    assert "Paired difference: to transformer." in remarks(section)


def test_where_the_score_counts_parts_of_answers_a_remark_says_what_is_compared() -> None:
    def half_right(arch: str, right: str) -> StoredRecord:
        stored = record(arch, right).record.model_dump()
        stored["metrics"]["test"]["scores"]["accuracy"] = 0.9
        return StoredRecord(arch, Record.model_validate(stored))

    (section,) = compare([half_right("transformer", "0011"), half_right("mamba", "0111")]).sections()
    assert any(
        line.startswith("Paired difference: to transformer, in questions whose whole answer")
        for line in remarks(section)
    )


def test_seeds_of_a_row_count_by_their_share_and_one_without_answers_hides_them_all() -> None:
    stored = [record("transformer", "0011"), record("s5", "0111"), record("s5", "1011", seed=1)]
    rows = compare(stored).results.set_index("name")
    assert rows.loc["s5", "difference"].mean == pytest.approx(0.25)
    unmatched = Record.model_validate(stored[1].record.model_dump() | {"match": None})
    assert set(compare([stored[0], StoredRecord("x", unmatched)]).results["difference"]) == {None}
    silent = StoredRecord("x", make("s5", seed=2, accuracy=0.5, n=4))
    assert compare([*stored, silent]).results.set_index("name").loc["s5", "difference"] is None


def test_questions_that_nobody_or_everybody_answers_and_agreement_by_hand() -> None:
    rows = {"a": answers("1100", "1010"), "b": answers("1001")}
    assert answered_by(rows, everybody=True) == [0]
    assert answered_by(rows, everybody=False) == []
    assert answered_by({"a": rows["a"]}, everybody=False) == [3]
    table = measure_agreement(rows)
    assert table.loc["a", "a"] == 0.5  # its two seeds agree on the first and the last question
    assert table.loc["a", "b"] == table.loc["b", "a"] == 0.5
    assert np.isnan(table.loc["b", "b"])


def test_the_questions_of_a_task_as_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _, each in (record("transformer", "0011"), record("s5", "0111"), record("s5", "0101", seed=1)):
        write(each, tmp_path)

    def zoo(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", ["zoo", "leaderboard", "--results", str(tmp_path), *args])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert zoo("--questions", "listops") == 0
    shown = capsys.readouterr().out
    assert "Answered by nobody: 1 of 4 questions (0)" in shown
    assert "Answered by everybody: 1 of 4 questions (3)" in shown
    assert zoo("--questions", "listops", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["nobody"], found["everybody"]) == ([0], [3])
    assert found["agreement"]["s5"] == {"s5": 0.75, "transformer": 0.625}
    assert zoo("--questions", "listop") == 2
    assert "did you mean 'listops'" in capsys.readouterr().err
