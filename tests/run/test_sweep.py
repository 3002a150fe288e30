"""Sweeps: trials on one grid for all, the best on validation with further seeds, and what the board makes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.records import make
from zoo import bench
from zoo.board.checks import record_faults
from zoo.board.results import compare
from zoo.run.request import BenchRequest, plan, resolve
from zoo.run.sweep import parse_sweep
from zoo.spec.errors import ConfigError, UserError
from zoo.spec.record import Record
from zoo.spec.store import StoredRecord, read_all

pytestmark = pytest.mark.usefixtures("toys")
GRID = ["optim.lr=0.0001,0.01,0.03"]


def run(tmp_path: Path, **options: Any) -> list[Record]:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    options = {"protocol": "quick", "sweep": GRID} | folders | options
    return [record for _, record in bench("toy", "toytask", **options)]


def validation(record: Record) -> tuple[float, float]:
    assert record.metrics is not None
    score, loss = record.metrics.val.scores["accuracy"], record.metrics.val.loss
    assert score is not None
    assert loss is not None
    return score, -loss


def test_the_best_trial_on_validation_runs_with_the_further_seeds_and_is_the_row_of_the_board(tmp_path: Path) -> None:
    records = run(tmp_path, seeds=3)
    trials, further = records[:3], records[3:]
    assert [record.config["optim"]["lr"] for record in trials] == [0.0001, 0.01, 0.03]
    assert {record.seed for record in trials} == {0}
    best = max(trials, key=validation)
    assert [(record.seed, record.config_hash) for record in further] == [(1, best.config_hash), (2, best.config_hash)]
    assert len({record.config_hash for record in records}) == 3
    for record in records:
        assert record.sweep is not None
        assert record.sweep.trials == ({"optim.lr": 0.0001}, {"optim.lr": 0.01}, {"optim.lr": 0.03})
        assert not record_faults(StoredRecord(f"{record.id}.json", record))
    rows = compare([StoredRecord("", record) for record in records]).results
    ranked = rows[rows["rank"].notna()]
    assert list(ranked["config_hash"]) == [best.config_hash]
    assert list(ranked["tuned"]) == [f"best of 3: optim.lr={best.config['optim']['lr']}"]
    assert list(ranked["seeds"]) == [3]
    others = rows[rows["rank"].isna()]["notes"].map("; ".join)
    assert all(note.startswith("trial optim.lr=") and "the best on validation is" in note for note in others)


def test_a_sweep_goes_on_by_the_same_command(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", seeds=2)
    cut = run(tmp_path / "cut", seeds=2, max_time=0.0)
    assert [record.status for record in cut] == ["timeout"] * 3
    again = run(tmp_path / "cut", seeds=2)
    assert [record.id for record in again] == [record.id for record in whole]
    skipping = {"skip_recorded": True, "results": tmp_path / "cut" / "results"}
    left = BenchRequest.parse("toy", "toytask", protocol="quick", sweep=GRID, seeds=2, **skipping)
    assert plan(left) == []


def test_of_trials_that_ended_within_the_same_second_the_repetition_counts(tmp_path: Path) -> None:
    run(tmp_path, max_time=0.0)
    run(tmp_path)
    files = sorted((tmp_path / "results").rglob("*.json"))
    assert [path.name[-7:] for path in files] == ["-2.json", "s0.json"] * 3
    for path in files:
        path.write_text(re.sub(r'"ended": "[^"]+"', '"ended": "2100-01-01T00:00:00+00:00"', path.read_text()))
    assert sum(compare(read_all(tmp_path / "results")[0]).results["rank"].notna()) == 1
    assert [record.seed for record in run(tmp_path, seeds=2)] == [0, 0, 0, 1]


def test_trials_are_no_plain_runs_and_other_sweeps_are_others() -> None:
    def ids(**options: Any) -> set[str]:
        return {experiment.id for experiment in resolve(BenchRequest.parse("toy", "toytask", **options))}

    sweep = ids(sweep=GRID)
    assert len(sweep) == 3
    assert not sweep & ids(overrides=["optim.lr=0.01"])
    assert not sweep & ids(sweep=["optim.lr=0.01,0.03"])
    assert not sweep & ids(sweep=GRID, seeds=[1])
    assert sweep == ids(sweep={"optim.lr": [1e-4, 0.01, 0.03]})


def stored(lr: float, accuracy: float, *, val: float, seed: int = 0, status: str = "ok", **more: Any) -> StoredRecord:
    trials = [{"optim.lr": 0.1}, {"optim.lr": 0.2}]
    config = {"optim": {"lr": lr}}
    hashed = f"{int(10 * lr)}" * 12
    sweep = {"seed": 0, "trials": trials}
    record = make("alpha", seed=seed, accuracy=accuracy, status=status, config=config, config_hash=hashed, sweep=sweep)
    values = record.model_dump(mode="json")
    if status == "ok":
        values["metrics"]["val"]["scores"]["accuracy"] = val
    return StoredRecord(f"{record.id}.json", Record.model_validate(values | more))


def test_the_winner_is_who_is_best_on_validation_not_on_the_test() -> None:
    rows = compare([stored(0.1, 0.9, val=0.4), stored(0.2, 0.6, val=0.5)]).results
    assert list(rows["tuned"]) == ["best of 2: optim.lr=0.2", ""]
    assert list(rows["score"]) == [0.6, 0.9]
    assert rows["notes"][1] == ["trial optim.lr=0.1: the best on validation is optim.lr=0.2"]


def test_of_equal_trials_the_first_that_the_sweep_names_wins() -> None:
    rows = compare([stored(0.2, 0.6, val=0.5), stored(0.1, 0.9, val=0.5)]).results
    assert rows["tuned"][0] == "best of 2: optim.lr=0.1"


@pytest.mark.parametrize(("status", "ranked"), [("diverged", 1), ("failed", 1), ("timeout", 0), ("interrupted", 0)])
def test_a_sweep_is_ranked_once_every_trial_has_ended(status: str, ranked: int) -> None:
    rows = compare([stored(0.1, 0.9, val=0.4), stored(0.2, 0.0, val=0.0, status=status)]).results
    assert rows["rank"].notna().sum() == ranked
    assert compare([stored(0.1, 0.9, val=0.4)]).results["rank"].notna().sum() == 0


def test_further_seeds_do_not_choose() -> None:
    rows = compare([stored(0.1, 0.9, val=0.4), stored(0.2, 0.6, val=0.5), stored(0.1, 0.9, val=0.9, seed=1)]).results
    assert rows["tuned"][0] == "best of 2: optim.lr=0.2"


def test_a_tuned_row_stands_before_one_that_was_not() -> None:
    later = make("alpha", accuracy=0.95, config_hash="f" * 12, ended="2027-01-01T00:00:00+00:00")
    plain = StoredRecord("plain.json", later)
    rows = compare([plain, stored(0.1, 0.9, val=0.4), stored(0.2, 0.6, val=0.5)]).results
    assert list(rows["rank"].notna()) == [True, False, False]
    assert rows["tuned"][0] == "best of 2: optim.lr=0.2"


def test_samples_of_a_grid_are_always_the_same_and_in_its_order() -> None:
    grid = ["optim.lr=1,2,3", "model.n_layers=1,2"]
    whole, some = parse_sweep(grid), parse_sweep(grid, 4)
    assert len(whole) == 6
    assert len(some) == 4
    assert list(some) == [trial for trial in whole if trial in some]
    assert parse_sweep(grid, 4) == some


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        (["optim.lr"], "expected key=value,value"),
        (["optim.lr="], "expected several values"),
        (["optim.lr=0.1,0.1"], "a value is there twice"),
        (["optim.lr=0.1,1e-1"], r"optim\.lr=0\.1 is there twice"),
        (["optim.lr=0.1,0.2", "optim.lr=1,2"], "given twice"),
        (["optim.lrr=0.1,0.2"], "optim.lrr.*unknown key; did you mean 'optim.lr'"),
        (["optim.lr=0.1,x"], "expected number > 0, got 'x'"),
        ({"optim.lr": 0.1}, "expected several values"),
    ],
)
def test_mistakes_in_a_sweep_are_told(sweep: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        resolve(BenchRequest.parse("toy", "toytask", sweep=sweep))


@pytest.mark.parametrize("samples", [0, 4])
def test_more_samples_than_trials_are_refused(samples: int) -> None:
    with pytest.raises(UserError, match="expected 1 to 3"):
        parse_sweep(GRID, samples)


def test_a_list_where_a_number_is_expected_points_to_the_sweep() -> None:
    with pytest.raises(ConfigError, match=r"--sweep optim\.lr=0\.1,0\.2 tries each of them"):
        resolve(BenchRequest.parse("toy", "toytask", overrides=["optim.lr=0.1,0.2"]))


def test_the_records_of_a_sweep_are_valid_files(tmp_path: Path) -> None:
    run(tmp_path)
    records, problems = read_all(tmp_path / "results")
    assert len(records) == 3
    assert not problems
