"""The table over the tasks of a suite: what is ranked, by what, and what stands in the other cells."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from tests.board.samples import board_of, mqar, needle, question_records, sections, stored
from tests.records import language, make
from zoo.board.export import to_json
from zoo.board.markdown import markdown
from zoo.board.metric import Metric
from zoo.board.overall import Overall, largest_block, overall_lines, overall_table, overalls
from zoo.board.statistics import Estimate, Run, average, estimate_rows, rank_rows
from zoo.board.tables import Table
from zoo.board.terminal import print_board
from zoo.spec.record import Record

LANGUAGE = {"suite": "language", "baselines": {"chance": math.exp(8), "majority": None}}
PUBLISHED = {"kind": "published", "version": "1", "files": {"a.tsv": "ab" * 32}, "counts": {"test": 1000}}


def overall_of(records: list[Record], **kwargs: Any) -> Overall:
    (overall,) = overalls(sections(records, **kwargs))
    return overall


def read(table: Table) -> dict[str, dict[str, str]]:
    """The rows of a table by architecture."""
    rows = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    return {row["architecture"]: row for row in rows}


def suite_records() -> list[Record]:
    """Five architectures on three tasks; three have all scores that the ranking is over."""
    return [
        make("alpha", "listops", accuracy=0.45, majority=0.2),
        make("alpha", "text", accuracy=0.7, chance=0.5, majority=0.4),
        make("alpha", "pathx", status="out-of-memory"),
        make("beta", "listops", accuracy=0.6, majority=0.2),
        make("beta", "text", accuracy=0.8, chance=0.5, majority=0.4),
        make("beta", "pathx", accuracy=0.9, chance=0.5, majority=0.5),
        make("gamma", "listops", accuracy=0.19, majority=0.2),
        make("gamma", "text", accuracy=0.95, chance=0.5, majority=0.4),
        make("gamma", "pathx", seed=0, status="timeout"),
        make("gamma", "pathx", seed=1, status="diverged"),
        make("delta", "text", accuracy=0.99, chance=0.5, majority=0.4),
        make("epsilon", "listops", status="failed"),
    ]


# -- what is ranked ------------------------------------------------------------------------------------------------


def test_rows_are_ranked_by_the_mean_of_scores_between_the_best_baseline_and_perfection() -> None:
    rows = read(overall_table(overall_of(suite_records())))
    # listops has the baseline 20 %, text 50 %: alpha (0.3125 + 0.4) / 2, beta (0.5 + 0.6) / 2,
    # gamma (-0.0125 + 0.9) / 2
    assert {name: (row["rank"], row["normalized score"]) for name, row in rows.items()} == {
        "beta": ("1", "55.0 %"),
        "gamma": ("2", "44.4 %"),
        "alpha": ("3", "35.6 %"),
        "delta": ("–", ""),
        "epsilon": ("–", ""),
    }
    # and the convention of LRA, the plain mean
    assert [row["mean score"] for row in rows.values()] == ["70.0 %", "57.0 %", "57.5 %", "", ""]


def test_every_cell_says_what_it_is() -> None:
    rows = read(overall_table(overall_of(suite_records())))
    assert [[row[task] for task in ("listops", "text", "pathx")] for row in rows.values()] == [
        ["60.0 %", "80.0 %", "90.0 %"],
        ["19.0 %", "95.0 %", "1 diverged, 1 timeout"],
        ["45.0 %", "70.0 %", "out-of-memory"],
        ["no record", "99.0 %", "no record"],
        ["failed", "no record", "no record"],
    ]


def test_the_line_says_what_is_counted_what_is_not_and_why() -> None:
    assert overall_lines(overall_of(suite_records())) == [
        "Ranked by the mean normalized score over listops and text: (score − baseline) / (100 % − baseline), with the "
        "best baseline of the task.",
        "Not counted: pathx (scores of 1 of 5 rows).",
        "Not ranked: 1 row without a score on listops, 1 row without a score on listops and text.",
        "No record: not run, or the architecture has no form for the task.",
    ]
    whole = [make(arch, task, accuracy=0.5) for arch in ("alpha", "beta") for task in ("image", "listops", "text")]
    assert overall_lines(overall_of(whole)) == [
        "Ranked by the mean normalized score over image, listops and text: (score − baseline) / (100 % − baseline), "
        "with the best baseline of the task."
    ]
    more = [make(arch, "image", accuracy=0.5) for arch in ("gamma", "delta")]
    assert overall_lines(overall_of(whole + more))[1] == "Not ranked: 2 rows without a score on listops and text."


def test_equal_rows_share_a_rank() -> None:
    records = [make(a, t, accuracy=0.5) for a in ("beta", "alpha", "gamma") for t in ("listops", "text")]
    rows = read(overall_table(overall_of([*records[:-1], make("gamma", "text", accuracy=0.4)])))
    assert [(name, row["rank"]) for name, row in rows.items()] == [("alpha", "1="), ("beta", "1="), ("gamma", "3")]


def test_perplexities_take_part_by_their_mean_loss() -> None:
    records = [
        language("alpha", nats=4.0, **LANGUAGE),
        language("beta", nats=6.0, **LANGUAGE),
        make("alpha", "lambada", accuracy=0.28, majority=0.1, suite="language"),
        make("beta", "lambada", accuracy=0.46, majority=0.1, suite="language"),
    ]
    overall = overall_of(records)
    rows = read(overall_table(overall))
    # alpha (1 - 4 / 8 + 0.2) / 2, beta (1 - 6 / 8 + 0.4) / 2
    assert {name: row["normalized score"] for name, row in rows.items()} == {"alpha": "35.0 %", "beta": "32.5 %"}
    assert rows["alpha"]["wikitext\n(word perplexity)"] == "54.60"
    assert "mean score" not in rows["alpha"]
    assert overall_lines(overall) == [
        "Ranked by the mean normalized score over lambada and wikitext: (score − baseline) / (100 % − baseline), with "
        "the best baseline of the task; of a perplexity 1 − ln perplexity / ln baseline."
    ]


def test_a_suite_of_perplexities_alone_is_ranked() -> None:
    of = {"alpha": (4.0, 2.0), "beta": (2.0, 6.0)}
    records = [
        language(arch, task, nats=n, **LANGUAGE)
        for arch, nats in of.items()
        for task, n in zip(("pg19", "wikitext"), nats, strict=True)
    ]
    rows = read(overall_table(overall_of(records)))
    assert [(name, row["rank"], row["normalized score"]) for name, row in rows.items()] == [
        ("alpha", "1", "62.5 %"),
        ("beta", "2", "50.0 %"),
    ]


def test_what_has_no_baseline_or_no_perfect_score_is_shown_and_not_counted() -> None:
    f1 = {"metric": {"name": "f1", "higher_is_better": True}}
    metrics = {
        "val": {"scores": {"f1": 3.0}, "loss": 1.0, "n": 20},
        "test": {"scores": {"f1": 3.0}, "loss": 1.0, "n": 1000},
    }
    records = [
        record
        for arch in ("alpha", "beta")
        for record in (
            make(arch, "listops"),
            language(arch, suite="lra"),
            make(arch, "f1", metrics=metrics, **f1),
            make(arch, "constant", majority=1.0),
        )
    ]
    overall = overall_of(records)
    assert overall.common == ["listops"]
    assert overall_lines(overall)[1:] == [
        "Not counted: constant (no baseline), f1 (no baseline) and wikitext (no baseline)."
    ]
    assert [row["f1\n(f1)"] for row in read(overall_table(overall)).values()] == ["3.00", "3.00"]


def test_scores_on_a_part_of_the_published_data_are_shown_and_not_counted() -> None:
    part = PUBLISHED | {"kind": "part"}
    records = [make(arch, task) for arch in ("alpha", "beta") for task in ("listops", "text")]
    overall = overall_of([*records, *(make(arch, "image", data=part) for arch in ("alpha", "beta"))])
    assert overall.common == ["listops", "text"]
    assert "Not counted: image (part of the published data)." in overall_lines(overall)
    assert read(overall_table(overall))["alpha"]["image"] == "50.0 %"


def test_architectures_that_share_no_task_are_not_ranked() -> None:
    overall = overall_of([make("alpha", "listops"), make("beta", "image"), make("gamma", "text", status="failed")])
    assert overall.common == []
    table = overall_table(overall)
    assert table.headers == ["rank", "architecture", "image", "listops", "text"]
    assert [row[:2] for row in table.rows] == [["–", "alpha"], ["–", "beta"], ["–", "gamma"]]
    assert overall_lines(overall) == [
        "Not ranked: no two architectures have a normalized score on the same task.",
        "No record: not run, or the architecture has no form for the task.",
    ]


def test_a_single_architecture_is_averaged_over_all_its_tasks() -> None:
    overall = overall_of(suite_records(), architectures={"beta"})
    assert overall.common == ["listops", "pathx", "text"]
    assert read(overall_table(overall))["beta"]["rank"] == "1"


def test_suites_of_one_task_have_no_such_table() -> None:
    assert [overall.suite for overall in overalls(sections(question_records()))] == ["lambada", "recall"]
    # only the newest version of a task counts
    older = [make("alpha", version="9"), make("beta", version="10")]
    assert overalls(sections(older)) == []
    assert list(overall_of([*older, make("beta", "text")]).rows.index) == ["beta"]


def block_by_trying(scored: dict[str, frozenset[str]]) -> int:
    tasks = sorted(set().union(*scored.values()))
    least = min(2, sum(map(bool, scored.values())))
    sizes = [0]
    for k in range(1, len(tasks) + 1):
        for chosen in itertools.combinations(tasks, k):
            n = sum(own.issuperset(chosen) for own in scored.values())
            sizes += [n * k] if n >= least else []
    return max(sizes)


@pytest.mark.parametrize("seed", range(20))
def test_the_ranking_is_over_the_largest_block_of_scores_without_a_gap(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        scored = {f"a{k}": frozenset(t for t in "pqrstu" if rng.random() < rng.choice([0.3, 0.9])) for k in range(7)}
        tasks, names = largest_block(scored)
        assert all(scored[name].issuperset(tasks) == (name in names) for name in scored if tasks)
        assert len(tasks) * len(names) == block_by_trying(scored)
    assert largest_block({"a": frozenset(), "b": frozenset()}) == ([], [])


def test_of_equally_large_blocks_that_of_more_architectures_is_ranked() -> None:
    wide = {name: frozenset("p") for name in "cdef"}
    assert largest_block({"a": frozenset("pqr"), "b": frozenset("pqr"), **wide}) == (["p"], list("abcdef"))


# -- cells of rows that are not compared ---------------------------------------------------------------------------


def trial(lr: float, arch: str, task: str = "text", **changes: Any) -> Record:
    sweep = {"seed": 0, "trials": [{"optim.lr": 0.1}, {"optim.lr": 0.2}]}
    config = {"optim": {"lr": lr}}
    return make(arch, task, config=config, config_hash=f"{ord(arch):x}{int(10 * lr)}" * 4, sweep=sweep, **changes)


def test_a_run_that_is_not_compared_is_not_called_missing() -> None:
    rest = [make(arch, "listops") for arch in "abcdefgh"]
    changed = {"overrides": {"model.d_model": 256}, "config_hash": "ff" * 6}
    records = [
        *(make(arch, "text") for arch in ("a", "b")),
        make("b", "text", accuracy=0.9, **changed),
        make("c", "text", **changed),
        make("c", "text", data=PUBLISHED, majority=0.2, ended="2026-03-01T00:00:00Z", config_hash="dd" * 6),
        make("d", "text", status="failed", **changed),
        trial(0.1, "e"),
        *(trial(0.1, "f", accuracy=0.6), trial(0.2, "f", accuracy=0.6)),
        *(trial(0.1, "g", status="out-of-memory"), trial(0.2, "g", status="diverged")),
        make("h", "text", status="interrupted"),
    ]
    overall = overall_of(rest + records)
    assert "Sweep unfinished: trials are missing, so that none is chosen yet." in overall_lines(overall)
    rows = read(overall_table(overall))
    assert {name: row["text"] for name, row in rows.items()} == {
        "a": "50.0 %",
        "b": "50.0 %",
        "c": "modified, other data",
        "d": "modified",
        "e": "sweep unfinished",
        "f": "60.0 %",
        "g": "diverged, out-of-memory",
        "h": "interrupted",
    }
    (text,) = (one for one in sections(records) if one.task == "text")
    notes = {row["name"]: row["notes"] for _, row in text.rows.iterrows() if row["name"] in "eg"}
    assert notes["e"] == ["trial optim.lr=0.1: not all trials have ended"]
    assert notes["g"][0].endswith(": no trial has a score")


def test_an_architecture_names_all_its_objectives() -> None:
    records = [mqar("alpha", 0.9, 0.5), needle("alpha", 0.9, 0.5, objective="seq2seq", mode="seq2seq")]
    assert read(overall_table(overall_of(records)))["alpha"]["objective"] == "next token, encoder-decoder"


# -- statistics ----------------------------------------------------------------------------------------------------


def test_the_error_of_a_mean_over_tasks_by_hand() -> None:
    # that of a difference, as in Welch's test; two samples of 4 and 3
    first, second = [0.3, 0.35, 0.42, 0.31], [0.6, 0.8, 0.71]
    parts = [Estimate(float(np.mean(x)), None, float(stats.sem(x)), len(x) - 1) for x in (first, second)]
    found, welch = average(parts), stats.ttest_ind(first, second, equal_var=False)
    assert found.mean == pytest.approx((np.mean(first) + np.mean(second)) / 2)
    assert found.df == pytest.approx(welch.df)
    assert found.error == pytest.approx(math.hypot(parts[0].error, parts[1].error) / 2)
    assert found.interval is not None
    half = stats.t.ppf(0.975, welch.df) * found.error
    assert (found.interval.low, found.interval.high) == pytest.approx((found.mean - half, found.mean + half))
    (known,) = (average([Estimate(0.5, None, 0.1)]),)
    assert known.interval is not None
    assert known.interval.high == pytest.approx(0.5 + 1.959964 * 0.1)
    assert average([Estimate(0.5, None), parts[0]]) == Estimate((0.5 + parts[0].mean) / 2, None)
    assert average([Estimate(0.5, None, 0.0, 3)]).error == 0.0


def test_ranges_of_the_overall_rank_cover_the_truth_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(0)
    deviations, seeds = (0.01, 0.03, 0.02), (1, 2, 3, 2, 1)
    truth = np.array([[0.5, 0.6, 0.7]] * 5) + np.linspace(0, 0.04, 5)[:, None]
    covered, placed = np.zeros(5), np.zeros(5)
    for _ in range(2000):
        tasks = []
        for task, deviation in enumerate(deviations):
            drawn = [rng.normal(mean, deviation, n) for mean, n in zip(truth[:, task], seeds, strict=True)]
            tasks.append(estimate_rows([[Run(score, 1000) for score in row] for row in drawn], Metric("f1")))
        rows = [average([each for each in row if each]) for row in zip(*tasks, strict=True)]
        intervals = [row.interval for row in rows]
        means = truth.mean(1)
        covered += [one is not None and one.low <= m <= one.high for one, m in zip(intervals, means, strict=True)]
        placed += [one.best <= 5 - k <= one.worst for k, one in enumerate(rank_rows(rows))]
    assert covered.mean() / 2000 == pytest.approx(0.95, abs=0.01)
    assert placed.min() / 2000 >= 0.95


def test_the_table_shows_interval_and_range_from_the_spread_over_seeds() -> None:
    scores = {"alpha": (0.90, 0.92), "beta": (0.50, 0.52), "gamma": (0.51, 0.52)}
    records = [
        make(arch, task, seed=seed, accuracy=accuracy, majority=None, chance=0.2)
        for arch, own in scores.items()
        for task in ("listops", "text")
        for seed, accuracy in enumerate(own)
    ]
    rows = read(overall_table(overall_of(records)))
    assert {name: row["rank range"] for name, row in rows.items()} == {"alpha": "1", "gamma": "2–3", "beta": "2–3"}
    # pooled variance of a task (2 × 0.0002 + 0.00005) / 3, of its mean over two seeds half of that; two tasks, df 6
    error = math.sqrt(0.00045 / 3 / 2 / 2)
    half = 100 * stats.t.ppf(0.975, 6) * error / 0.8  # of the 80 % between baseline and perfection
    mean = 100 * (0.91 - 0.2) / 0.8
    assert rows["alpha"]["95 % interval"] == f"[{mean - half:.1f}, {mean + half:.1f}]"


def test_a_score_whose_error_is_unknown_leaves_every_rank_possible() -> None:
    records = [
        record
        for arch, nats in (("alpha", 2.0), ("beta", 6.0))
        for record in (
            language(arch, nats=nats, stderr=None, **LANGUAGE),
            make(arch, "lambada", accuracy=0.5, majority=0.1, suite="language"),
        )
    ]
    overall = overall_of(records)
    assert [(row["rank"], row["rank range"]) for row in read(overall_table(overall)).values()] == [
        ("1", "1–2"),
        ("2", "1–2"),
    ]
    assert "95 % interval" not in overall_table(overall).headers
    assert overall.rows["low"].isna().all()
    assert overall.rows["high"].isna().all()


# -- where it is shown ---------------------------------------------------------------------------------------------


def test_terminal_markdown_and_json_show_the_same_table() -> None:
    records = suite_records()
    overall = overall_of(records)
    text = markdown(board_of(records))
    out = io.StringIO()
    print_board(stored(records), console=Console(file=out, width=240))
    for row in overall_table(overall).rows:
        words = [cell for cell in row if cell]
        lines = {"markdown": text.split("\n"), "terminal": out.getvalue().split("\n")}
        for where, shown in lines.items():
            split = [[c for c in line.replace("|", "  ").strip().split("  ") if c.strip()] for line in shown]
            assert words in [[cell.strip() for cell in line] for line in split], where
    for line in overall_lines(overall):
        assert line in text
        assert line in out.getvalue()
    (shown,) = json.loads(json.dumps(to_json(board_of(records))))["boards"]
    (found,) = shown["overall"]
    assert (found["suite"], found["tasks"]) == ("lra", ["listops", "pathx", "text"])
    assert found["common_tasks"] == ["listops", "text"]
    first, *_, last = found["rows"]
    assert (first["architecture"], first["rank"], first["best_rank"], first["tied"]) == ("beta", 1, 1, False)
    assert (first["normalized"], first["average"]) == (pytest.approx(0.55), pytest.approx(0.7))
    assert first["low"] < first["normalized"] < first["high"]
    assert first["scores"] == {"listops": 0.6, "text": 0.8, "pathx": 0.9}
    assert [last[key] for key in ("architecture", "rank", "tied", "normalized")] == ["epsilon", None, None, None]
    assert last["scores"] == {"listops": "failed", "text": "no record", "pathx": "no record"}


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_keeps_rank_and_normalized_score_then_tasks(width: int) -> None:
    out = io.StringIO()
    print_board(stored(suite_records()), console=Console(file=out, width=width))
    text = out.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.split("\n"))
    shown = text[text.index("lra: overall") :]
    assert "55.0 %" in shown
    assert ("60.0 %" in shown) == (width == 80)
    assert "no room for: 95 % interval, mean score" in shown
