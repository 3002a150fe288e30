"""Which runs count, which rows are compared, and what is said of those that are not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.records import make
from zoo.board.model import Board, Overall, Section, boards
from zoo.board.rows import Row
from zoo.spec.architecture import Reported

Record = dict[str, Any]


def only(records: list[Record], **kwargs: Any) -> Board:
    found = boards(records, **kwargs)
    assert len(found) == 1
    return found[0]


def section(records: list[Record], **kwargs: Any) -> Section:
    found = only(records, **kwargs)
    assert len(found.sections) == 1
    return found.sections[0]


def over_tasks(records: list[Record], **kwargs: Any) -> Overall:
    found = only(records, **kwargs)
    assert len(found.overalls) == 1
    return found.overalls[0]


def places(found: Section) -> dict[str, int | None]:
    return {row.name: row.rank.place if row.rank else None for row in found.rows}


def by_name(found: Section, name: str) -> Row:
    return next(row for row in found.rows if row.name == name)


def test_protocols_are_never_mixed_and_smoke_is_on_no_board() -> None:
    records = [make("alpha", protocol="paper", accuracy=0.9), make("beta"), make("gamma", protocol="smoke")]
    found = boards(records)
    assert [(b.protocol, [r.name for s in b.sections for r in s.rows]) for b in found] == [
        ("paper", ["alpha"]),
        ("quick", ["beta"]),
    ]
    assert boards(records, protocol="smoke") == []
    assert [b.protocol for b in boards(records, protocol="quick")] == ["quick"]


def test_seeds_make_one_row() -> None:
    row = section([make(seed=s, accuracy=a) for s, a in ((2, 0.5), (0, 0.3), (1, 0.4))]).rows[0]
    assert [(s.seed, s.score) for s in row.seeds] == [(0, 0.3), (1, 0.4), (2, 0.5)]
    assert row.estimate is not None
    assert row.estimate.mean == pytest.approx(0.4)
    assert row.estimate.interval.kind == "t"
    assert (row.converged, row.failures) == (3, "")


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
        found = only(records)
        row = found.sections[0].rows[0]
        assert [(s.score, s.status) for s in row.seeds] == [(0.6, "ok"), (None, "diverged")]
        assert row.superseded == found.superseded == 4


def test_a_repeat_within_the_same_second_counts_by_its_file() -> None:
    first, tenth = make(accuracy=0.3) | {"path": "a-s0.json"}, make(accuracy=0.4) | {"path": "a-s0-10.json"}
    second = make(accuracy=0.5) | {"path": "a-s0-2.json"}
    row = section([tenth, first, second]).rows[0]
    assert row.seeds[0].score == 0.4


def test_failures_are_words_and_never_numbers() -> None:
    records = [
        *(make("alpha", seed=s, status="out-of-memory") for s in range(2)),
        make("alpha", seed=2, status="timeout"),
        make("beta", status="diverged"),
        make("gamma", seed=0, accuracy=0.6),
        make("gamma", seed=1, status="diverged"),
    ]
    found = section(records)
    alpha, beta, gamma = (by_name(found, name) for name in ("alpha", "beta", "gamma"))
    assert (alpha.estimate, alpha.failures, alpha.rank) == (None, "2 out-of-memory, 1 timeout", None)
    assert (beta.estimate, beta.failures) == (None, "diverged")
    assert gamma.estimate is not None
    assert (gamma.estimate.mean, gamma.failures, gamma.converged, len(gamma.seeds)) == (0.6, "1 diverged", 1, 2)
    assert [row.name for row in found.rows] == ["gamma", "alpha", "beta"]


def test_a_run_that_did_not_learn_has_a_score_but_has_not_converged() -> None:
    row = section([make(accuracy=0.18)]).rows[0]
    assert row.estimate is not None
    assert row.converged == 0


def test_modified_rows_stand_below_and_rank_against_nobody() -> None:
    records = [
        make("alpha", accuracy=0.4),
        make("alpha", accuracy=0.9, overrides={"model.d_model": 256, "arch.kind": "x"}, config_hash="ff" * 6),
        make("beta", accuracy=0.6),
    ]
    found = section(records)
    assert [(row.name, row.rank.place if row.rank else None) for row in found.rows] == [
        ("beta", 1),
        ("alpha", 2),
        ("alpha", None),
    ]
    assert found.rows[2].notes == ("modified: arch.kind=x, model.d_model=256",)
    overall = over_tasks(records)
    assert [(row.architecture, row.average) for row in overall.rows] == [("beta", 0.6), ("alpha", 0.4)]


def test_an_earlier_configuration_does_not_rank_against_the_current_one() -> None:
    old = make(
        "alpha", accuracy=0.9, config_hash="aa" * 6, ended="2026-01-01T00:00:00Z", started="2026-01-01T00:00:00Z"
    )
    new = make("alpha", accuracy=0.5, config_hash="bb" * 6, ended="2026-02-01T00:00:00Z")
    cut = make("alpha", status="interrupted", config_hash="cc" * 6, ended="2026-03-01T00:00:00Z")
    found = section([old, new, cut, make("beta", accuracy=0.7)])
    told = {(row.name, row.config_hash[:2]): (bool(row.rank), row.notes) for row in found.rows}
    assert told == {
        ("beta", "01"): (True, ()),
        ("alpha", "bb"): (True, ()),
        ("alpha", "aa"): (False, ("earlier configuration",)),
        ("alpha", "cc"): (False, ("earlier configuration",)),
    }


def test_only_scores_on_the_same_data_are_ranked() -> None:
    published = {"kind": "published", "version": "1", "files": {"a.tsv": "ab" * 32}, "counts": {"test": 1000}}
    records = [make("alpha"), make("beta"), make("gamma", data=published, majority=0.2, config_hash="dd" * 6)]
    found = section(records)
    assert places(found) == {"alpha": 1, "beta": 1, "gamma": None}
    assert by_name(found, "gamma").notes == ("other data",)
    assert (found.chance, found.majority) == (0.1, 0.175)
    assert places(section([records[2]])) == {"gamma": 1}


def test_versions_of_a_task_are_apart_and_the_newest_is_current() -> None:
    records = [make("alpha", accuracy=0.9, version="9"), make("beta", accuracy=0.4, version="10")]
    found = only(records)
    assert [(s.version, s.current, [r.name for r in s.rows]) for s in found.sections] == [
        ("10", True, ["beta"]),
        ("9", False, ["alpha"]),
    ]
    assert [row.architecture for row in found.overalls[0].rows] == ["beta"]


def test_architectures_of_different_distributions_are_different() -> None:
    other = {"distribution": "theirs", "version": "1", "entry_point": "x", "source_hash": "y"}
    found = section([make("alpha", accuracy=0.5), make("alpha", accuracy=0.9, plugin=other)])
    assert places(found) == {"theirs:alpha": 1, "alpha": 2}


def test_averages_are_over_the_tasks_that_all_rows_have() -> None:
    records = [
        make("alpha", "listops", accuracy=0.4),
        make("alpha", "pathfinder", accuracy=0.8),
        make("alpha", "image", accuracy=0.99),
        make("beta", "listops", accuracy=0.5),
        make("beta", "pathfinder", accuracy=0.6),
        make("beta", "image", status="diverged"),
        make("gamma", "image", status="failed"),
    ]
    overall = over_tasks(records)
    assert overall.common == ("listops", "pathfinder")
    assert [(row.architecture, row.average) for row in overall.rows] == [
        ("alpha", pytest.approx(0.6)),
        ("beta", pytest.approx(0.55)),
        ("gamma", None),
    ]
    assert overall.rows[1].cells["image"] == "diverged"
    assert "listops" not in overall.rows[2].cells
    narrowed = over_tasks(records, architectures={"alpha"})
    assert narrowed.common == ("image", "listops", "pathfinder")


def test_no_common_task_means_no_average() -> None:
    overall = over_tasks([make("alpha", "listops"), make("beta", "image")])
    assert overall.common == ()
    assert [row.average for row in overall.rows] == [None, None]


def test_reported_scores_stand_beside_and_change_nothing() -> None:
    told = {
        "seqzoo:alpha": [
            Reported(task="listops", metric="accuracy", value=0.99, source="a paper", table="Table 1"),
            Reported(task="image", metric="accuracy", value=0.5, source="a paper"),
            Reported(task="listops", metric="perplexity", value=0.5, source="a paper"),
        ],
        "theirs:beta": [Reported(task="listops", metric="accuracy", value=0.99, source="a paper")],
    }
    records = [make(n, protocol="paper", accuracy=a) for n, a in (("alpha", 0.5), ("beta", 0.6))]
    with_them, without = only(records, reported=told), only(records)
    row = by_name(with_them.sections[0], "alpha")
    assert [r.value for r in row.reported] == [0.99]
    assert row.delta == pytest.approx(-0.49)
    quick = only([make("alpha", accuracy=0.5)], reported=told).sections[0].rows[0]
    assert quick.reported == row.reported
    assert quick.delta is None
    assert by_name(with_them.sections[0], "beta").reported == ()
    assert places(with_them.sections[0]) == places(without.sections[0]) == {"beta": 1, "alpha": 2}
    assert with_them.overalls == without.overalls


def test_tasks_can_be_chosen() -> None:
    records = [make(task="listops"), make(task="image")]
    assert [s.task for s in only(records, tasks={"image"}).sections] == ["image"]


def test_the_order_of_the_records_does_not_matter() -> None:
    records = [
        make(a, t, seed=s, accuracy=0.4) for a in ("alpha", "beta") for t in ("image", "listops") for s in (0, 1)
    ]
    expected = boards(records)
    random.Random(1).shuffle(records)
    assert boards(records) == expected
