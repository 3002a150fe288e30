"""results.csv and `zoo.leaderboard()`: one line a run."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import zoo
from tests.board.samples import classification_costs, classification_records
from tests.conftest import ROOT
from tests.records import make
from zoo.board import build as board
from zoo.board.runs import COLUMNS, dictionary
from zoo.spec.store import write


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    records = classification_records()
    for record in records:
        write(record, folder)
    for cost in classification_costs(records):
        cost.write(folder)
    return folder


def test_every_run_of_a_ranked_protocol_is_a_line_with_its_record(results: Path) -> None:
    runs = zoo.leaderboard(results)
    ours = [record for record in classification_records() if record.protocol != "smoke"]
    assert len(runs) == len(ours)
    assert list(runs) == list(COLUMNS)
    for row in runs.to_dict("records"):
        assert json.loads((results / row["record"]).read_text())["seed"] == row["seed"]


def test_a_line_has_the_score_of_its_run_and_the_rank_of_its_row(results: Path) -> None:
    runs = zoo.leaderboard(results)
    quick = runs[(runs["protocol"] == "quick") & (runs["task"] == "listops")].set_index(["architecture", "seed"])
    alpha = quick[quick["overrides"] == "{}"].loc[("alpha", 2)]
    assert (alpha["score"], alpha["d_model"], alpha["interval"]) == (0.4, 64, "binomial")
    assert alpha["low"] < 0.4 < alpha["high"]
    assert (alpha["train_tokens_per_second"], alpha["cost_machine"]) == (25_000.0, "a processor, 1 thread")
    ranks = quick.loc["beta", "rank"].dropna().unique()
    assert list(ranks) == [1]
    assert quick[quick["overrides"] != "{}"]["unranked"].item() == "modified: model.d_model=256"


def test_a_run_without_a_score_has_none_and_a_superseded_one_says_so(results: Path) -> None:
    runs = zoo.leaderboard(results)
    failed = runs[runs["status"] == "out-of-memory"].iloc[0]
    assert pd.isna(failed["score"])
    assert failed["unranked"] == "out-of-memory"
    twice = runs[(runs["task"] == "pathfinder") & (runs["architecture"] == "alpha")].sort_values("ended")
    assert list(twice["unranked"]) == ["superseded by a later run", ""]
    assert pd.isna(twice["rank"].iloc[0])


def test_the_file_holds_the_same_lines(results: Path) -> None:
    board.build(results)
    written, runs = pd.read_csv(results.parent / "results.csv"), zoo.leaderboard(results)
    for name in ("record", "seed", "score", "rank"):
        assert [None if pd.isna(v) else v for v in written[name]] == [None if pd.isna(v) else v for v in runs[name]]


def test_what_is_no_record_is_told_and_left_out(results: Path) -> None:
    (results / "cut.json").write_text("{")
    with pytest.warns(UserWarning, match=r"cut\.json: not JSON"):
        assert len(zoo.leaderboard(results)) == len(classification_records()) - 1


def test_no_records_are_an_empty_frame(tmp_path: Path) -> None:
    assert list(zoo.leaderboard(tmp_path)) == list(COLUMNS)
    write(make(protocol="smoke"), tmp_path)
    assert zoo.leaderboard(tmp_path).empty


def test_the_data_dictionary_is_current() -> None:
    page = (ROOT / "docs" / "board.md").read_text(encoding="utf-8")
    assert dictionary() in page, "docs/board.md, Columns of results.csv: paste what python -m zoo.board.runs prints"


def test_every_column_is_explained() -> None:
    assert all(column.meaning for column in COLUMNS.values())
