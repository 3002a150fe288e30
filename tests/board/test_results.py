"""Which runs count, which rows are compared, and the notes of those that are not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from tests.board.samples import board_of, section, sections, stored
from tests.records import changed, make, recall
from zoo.board.export import results_table
from zoo.board.frame import groups_frame, records_frame
from zoo.board.headings import options_line, section_heading, training_line
from zoo.board.markdown import markdown
from zoo.board.results import Section, make_board
from zoo.board.summary import ranked_sections
from zoo.board.tables import remarks
from zoo.spec.presets import Reported
from zoo.spec.record import Record
from zoo.spec.store import StoredRecord, best_trial, edges_of_sweep


def places(result: Section) -> dict[str, int | None]:
    return {row["name"]: None if pd.isna(row["rank"]) else row["rank"] for _, row in result.rows.iterrows()}


def by_name(result: Section, name: str) -> pd.Series:
    return result.rows[result.rows["name"] == name].iloc[0]


def test_the_frame_has_one_typed_row_per_record() -> None:
    frame = records_frame(stored([make(), make("beta", status="diverged")]))
    assert list(frame["outcome"]) == ["", "diverged"]
    assert [str(frame[name].dtype) for name in ("score", "state_size", "seed", "converged")] == [
        "float64",
        "Int64",
        "int64",
        "bool",
    ]
    empty = records_frame([])
    assert len(empty) == 0
    assert list(empty.dtypes) == list(frame.dtypes)
    assert groups_frame([]).empty


@pytest.mark.parametrize(
    ("hardware", "machine"),
    [
        ({"cpu": "x", "gpus": ["B", "A", "B"]}, "1 × A, 2 × B"),
        ({"cpu": "x", "threads": 1, "cores": 8, "gpus": []}, "x, 1 thread"),
        ({"cpu": "x", "cores": 8}, "x, 8 threads"),
        ({}, "unknown CPU, ? threads"),
    ],
)
def test_a_machine_is_its_gpus_or_the_threads_of_its_cpu(hardware: dict[str, Any], machine: str) -> None:
    assert list(records_frame(stored([make(hardware=hardware)]))["machine"]) == [machine]


def test_the_deviation_from_the_baselines_size_is_relative_to_it() -> None:
    matched = make(parameters=110, match={"architecture": "alpha", "parameters": 100})
    frame = records_frame(stored([matched, make(), make(parameters=0, match=matched.match)]))
    assert frame["parameters_off"].fillna(9).tolist() == pytest.approx([0.1, 9, 9])


def test_protocols_are_never_mixed_and_smoke_is_on_no_board() -> None:
    records = [make("alpha", protocol="paper", accuracy=0.9), make("beta"), make("gamma", protocol="smoke")]
    assert [(s.protocol, list(s.rows["name"])) for s in sections(records)] == [
        ("paper", ["alpha"]),
        ("quick", ["beta"]),
    ]
    assert sections(records, protocol="smoke") == []
    assert [s.protocol for s in sections(records, protocol="quick")] == ["quick"]


def test_seeds_make_one_row() -> None:
    row = section([make(seed=s, accuracy=a) for s, a in ((2, 0.5), (0, 0.3), (1, 0.4))]).rows.iloc[0]
    assert row["each_seed"] == {0: 0.3, 1: 0.4, 2: 0.5}
    assert list(row["each_seed"]) == [0, 1, 2]
    assert row["score"] == pytest.approx(0.4)
    assert row["interval"] == "t"
    assert (row["converged"], row["failures"]) == (3, "")


def test_the_latest_ok_run_of_a_seed_counts() -> None:
    day = "2026-01-0{}T00:00:00+00:00".format
    records = [
        make(accuracy=0.1, ended=day(3)),
        make(accuracy=0.6, ended=day(5)),
        make(accuracy=0.2, ended=day(4)),
        make(status="failed", ended=day(9)),
        make(seed=1, status="timeout", ended=day(3)),
        make(seed=1, status="diverged", ended=day(4)),
    ]
    for _ in range(5):
        random.Random(0).shuffle(records)
        row = section(records).rows.iloc[0]
        assert row["each_seed"] == {0: 0.6, 1: "diverged"}
        assert row["superseded"] == 4


def test_a_repeat_within_the_same_second_counts_by_its_file() -> None:
    first, tenth = StoredRecord("a-s0.json", make(accuracy=0.3)), StoredRecord("a-s0-10.json", make(accuracy=0.4))
    second = StoredRecord("a-s0-2.json", make(accuracy=0.5))
    assert make_board([tenth, first, second]).results["each_seed"][0] == {0: 0.4}


def test_failures_are_words_and_never_numbers() -> None:
    records = [
        *(make("alpha", seed=s, status="out-of-memory") for s in range(2)),
        make("alpha", seed=2, status="timeout"),
        make("beta", status="diverged"),
        make("gamma", seed=0, accuracy=0.6),
        make("gamma", seed=1, status="diverged"),
        *(make("delta", seed=s, status="diverged") for s in range(2)),
    ]
    result = section(records)
    alpha, beta, gamma = (by_name(result, name) for name in ("alpha", "beta", "gamma"))
    assert alpha["failures"] == "2 out-of-memory, 1 timeout"
    assert beta["failures"] == by_name(result, "delta")["failures"] == "diverged"
    assert pd.isna(alpha["score"])
    assert pd.isna(beta["score"])
    assert places(result) == {"gamma": 1, "alpha": None, "beta": None, "delta": None}
    assert (gamma["score"], gamma["failures"], gamma["converged"], gamma["seeds"]) == (0.6, "1 diverged", 1, 2)
    assert list(result.rows["name"]) == ["gamma", "alpha", "beta", "delta"]


def test_a_run_that_did_not_learn_has_a_score_but_has_not_converged() -> None:
    row = section([make(accuracy=0.18)]).rows.iloc[0]
    assert (row["score"], row["converged"]) == (0.18, 0)


def test_modified_rows_stand_below_and_rank_against_nobody() -> None:
    records = [
        make("alpha", accuracy=0.4),
        make("alpha", accuracy=0.9, overrides={"model.d_model": 256, "arch.kind": "x"}, config_hash="ff" * 6),
        make("beta", accuracy=0.6),
    ]
    result = section(records)
    assert list(result.rows["name"]) == ["beta", "alpha", "alpha"]
    assert list(result.rows["rank"][:2]) == [1, 2]
    assert pd.isna(result.rows["rank"].iloc[2])
    assert result.rows["notes"].iloc[2] == ["modified: arch.kind=x, model.d_model=256"]


@pytest.mark.parametrize("tried", [("a", "b"), ([1], [2]), (True, False), (1, None), (3, 3)])
def test_only_numbers_have_ends(tried: tuple[Any, Any]) -> None:
    trials = [{"arch.kind": value} for value in tried]
    record = make(config={"arch": {"kind": tried[0]}}, sweep={"seed": 0, "trials": trials})
    assert edges_of_sweep(record) == ()


def test_of_a_sweep_the_best_trial_is_shown_and_the_others_are_counted() -> None:
    sweep = {"seed": 0, "trials": [{"optim.lr": lr} for lr in (0.1, 0.2, 0.3)]}
    trials = [
        recall(
            "alpha",
            test={(("length", 64),): 0.5 + lr},
            config={"optim": {"lr": lr}},
            config_hash=f"{10 * lr:.0f}" * 12,
            sweep=sweep,
        )
        for lr in (0.1, 0.2, 0.3)
    ]
    unfinished = section(trials[:2])
    assert (len(unfinished.rows), unfinished.lost_trials) == (2, 0)
    board = board_of(trials)
    (whole,) = board.sections()
    assert list(whole.rows["tuned"]) == ["best of 3: optim.lr=0.1"]
    assert whole.groups["row"].isin(whole.rows.index).all()
    assert remarks(whole)[-1] == "Of each sweep the best trial is shown; others, in results.csv: 2."
    assert not any("sweep" in line for line in remarks(unfinished))
    assert len(results_table(board)) == 3
    assert len(board.groups) == 3
    assert training_line(whole).endswith("; 1 of 1 rows are best at the lowest optim.lr that was tried, 0.1")
    assert "tried" not in training_line(unfinished)
    assert [edges_of_sweep(trial)[:1] for trial in trials] == [
        ("lowest optim.lr that was tried, 0.1",),
        (),
        ("highest optim.lr that was tried, 0.3",),
    ]


def test_of_trials_with_equal_scores_the_one_with_the_lowest_validation_loss_is_best() -> None:
    rates = (0.1, 0.2, 0.3)
    sweep = {"seed": 0, "trials": [{"optim.lr": lr} for lr in rates]}

    def best(vals: Sequence[tuple[float, float | None]]) -> Record | None:
        trials = [
            make("alpha", config={"optim": {"lr": lr}}, config_hash=f"{10 * lr:.0f}" * 12, sweep=sweep) for lr in rates
        ]
        return best_trial(
            [
                Record.model_validate(
                    changed(trial, "metrics", "val", value={"scores": {"accuracy": score}, "loss": loss, "n": 20})
                )
                for trial, (score, loss) in zip(trials, vals, strict=True)
            ]
        )

    for vals, lr in [
        (((1.0, 0.2), (1.0, 0.1), (0.9, 0.01)), 0.2),
        (((1.0, None), (1.0, 2.0), (1.0, 2.0)), 0.2),
        (((1.0, None), (0.9, 0.1), (0.9, 0.1)), 0.1),
    ]:
        winner = best(vals)
        assert winner is not None
        assert winner.config["optim"]["lr"] == lr


def test_an_earlier_configuration_does_not_rank_against_the_current_one() -> None:
    old = make(
        "alpha", accuracy=0.9, config_hash="aa" * 6, ended="2026-01-01T00:00:00Z", started="2026-01-01T00:00:00Z"
    )
    new = make("alpha", accuracy=0.5, config_hash="bb" * 6, ended="2026-02-01T00:00:00Z")
    cut = make("alpha", status="interrupted", config_hash="cc" * 6, ended="2026-03-01T00:00:00Z")
    result = section([old, new, cut, make("beta", accuracy=0.7)])
    rows = [row for _, row in result.rows.iterrows()]
    assert {(r["name"], r["config_hash"][:2]): (not pd.isna(r["rank"]), r["notes"]) for r in rows} == {
        ("beta", "01"): (True, []),
        ("alpha", "bb"): (True, []),
        ("alpha", "aa"): (False, ["earlier configuration"]),
        ("alpha", "cc"): (False, ["earlier configuration"]),
    }


def test_only_scores_on_the_same_data_are_ranked() -> None:
    published = {"kind": "published", "version": "1", "files": {"a.tsv": "ab" * 32}, "counts": {"test": 1000}}
    records = [make("alpha"), make("beta"), make("gamma", data=published, majority=0.2, config_hash="dd" * 6)]
    result = section(records)
    assert places(result) == {"alpha": 1, "beta": 1, "gamma": None}
    assert by_name(result, "gamma")["notes"] == ["other data"]
    assert (result.chance, result.majority) == (0.1, 0.175)
    assert places(section([records[2]])) == {"gamma": 1}
    # other examples of the same text to train on
    other = published | {"counts": {"train": 7, "val": 3, "test": 1000}}
    assert places(section([records[2], make("delta", data=other, config_hash="ee" * 6)])) == {"delta": 1, "gamma": 1}


def test_rows_on_a_part_of_the_published_data_stand_apart() -> None:
    whole = {"kind": "published", "version": "1", "files": {"a.tsv": "ab" * 32}, "counts": {"test": 1000}}
    part = whole | {"kind": "part", "counts": {"test": 10}}
    parts = [
        make(name, data=part, n=10, accuracy=a, config_hash="dd" * 6) for name, a in (("gamma", 0.9), ("delta", 0.2))
    ]
    alone = section(parts)
    assert (alone.partial, places(alone)) == (True, {"gamma": 1, "delta": 2})
    assert section_heading(alone).endswith("10 test examples, part of the published data")
    assert remarks(alone)[0] == (
        "Part of the published data: these rows enter no average, and no sentence rests on them."
    )
    assert not ranked_sections([alone])
    both = section([*parts, make("alpha", data=whole)])
    assert (both.partial, places(both)) == (False, {"alpha": 1, "gamma": None, "delta": None})
    assert by_name(both, "gamma")["notes"] == ["other data"]


def test_versions_of_a_task_are_apart_and_the_newest_is_current() -> None:
    records = [make("alpha", accuracy=0.9, version="9"), make("beta", accuracy=0.4, version="10")]
    result = sections(records)
    assert [(s.version, s.current, list(s.rows["name"])) for s in result] == [
        ("10", True, ["beta"]),
        ("9", False, ["alpha"]),
    ]
    assert [s.version for s in sections([make(version="1"), make(version="2")])] == ["2", "1"]


def test_architectures_of_different_distributions_are_different() -> None:
    other = {"distribution": "theirs", "version": "1", "entry_point": "x", "source_hash": "y"}
    result = section([make("alpha", accuracy=0.5), make("alpha", accuracy=0.9, plugin=other)])
    assert places(result) == {"theirs:alpha": 1, "alpha": 2}


def test_reported_scores_stand_beside_and_change_nothing() -> None:
    reported = {
        "seqzoo:alpha": [
            Reported(task="listops", metric="accuracy", value=0.99, source="a paper", table="Table 1"),
            Reported(task="image", metric="accuracy", value=0.5, source="a paper"),
            Reported(task="listops", metric="perplexity", value=0.5, source="a paper"),
        ],
        "theirs:beta": [Reported(task="listops", metric="accuracy", value=0.99, source="a paper")],
    }
    records = [make(n, protocol="paper", accuracy=a) for n, a in (("alpha", 0.5), ("beta", 0.6))]
    with_them, without = section(records, reported=reported), section(records)
    row = by_name(with_them, "alpha")
    assert [r.value for r in row["reported"]] == [0.99]
    assert row["delta"] == pytest.approx(-0.49)
    quick = section([make("alpha", accuracy=0.5)], reported=reported).rows.iloc[0]
    assert quick["reported"] == row["reported"]
    assert pd.isna(quick["delta"])
    assert by_name(with_them, "beta")["reported"] == []
    assert places(with_them) == places(without) == {"beta": 1, "alpha": 2}


def test_tasks_can_be_chosen() -> None:
    records = [make(task="listops"), make(task="image")]
    assert [s.task for s in sections(records, tasks={"image"})] == ["image"]


def test_the_order_of_the_records_does_not_matter() -> None:
    records = [
        make(a, t, seed=s, accuracy=0.4) for a in ("alpha", "beta") for t in ("image", "listops") for s in (0, 1)
    ]
    expected = board_of(records).results.drop(columns="runs")
    random.Random(1).shuffle(records)
    assert board_of(records).results.drop(columns="runs").equals(expected)


def test_the_heading_has_the_options_of_the_task_that_rows_with_nothing_changed_share() -> None:
    def under(name: str, overrides: dict[str, Any] | None = None, **options: Any) -> Record:
        config = {"model": {"d_model": 64}, "task": {"path": "/home/me/data", "corpus": "", **options}}
        return Record.model_validate(changed(make(name, overrides=overrides or {}), "config", value=config))

    rows = [
        under("alpha", seq_len=256, lengths=[16, 32], eos=False),
        under("beta", seq_len=256, lengths=[16, 32], eos=True),
    ]
    modified = under("gamma", {"task.seq_len": 512}, seq_len=512)
    assert options_line(section([*rows, modified])) == "task options: seq_len=256, lengths=[16, 32]"
    assert options_line(section([modified])) == options_line(section([make()])) == ""
    assert ". Task options: seq_len=256, lengths=[16, 32].\n" in markdown(board_of(rows))
