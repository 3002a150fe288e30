"""`zoo leaderboard merge`: records of another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.board.test_cli import zoo
from tests.records import make, make_analysis, make_cost
from zoo.run.merge import merge
from zoo.spec.analysis import AnalysisRecord
from zoo.spec.cost import CostRecord
from zoo.spec.errors import UserError
from zoo.spec.files import write_atomically
from zoo.spec.store import dumps, read_all, write


def test_records_and_costs_are_added_once_and_nothing_is_replaced(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours" / "results", tmp_path / "theirs" / "results"
    mine = make(task="unheard_of")
    write(mine, ours)
    for record in (mine, make(task="unheard_of", accuracy=0.4), make("beta", task="unheard_of")):
        write(record, theirs)
    make_cost(mine).write(theirs)
    added, present, refused = merge(tmp_path / "theirs", ours)
    names = [path.relative_to(tmp_path / "ours").as_posix() for path in added]
    folder = "results/quick/unheard_of"
    assert names[:2] == [f"{folder}/alpha/0123456789ab-s0-2.json", f"{folder}/beta/0123456789ab-s0.json"]
    assert names[2].startswith("costs/quick/unheard_of/alpha/")
    assert (present, refused) == (1, [])
    assert merge(theirs, ours)[:2] == ([], 4)
    assert len(read_all(ours)[0]) == 3


def test_of_two_measurements_of_one_cost_the_later_stays(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    record = make(task="unheard_of")
    make_cost(record, train=0.5, measured="2026-03-01T00:00:00+00:00").write(ours)
    make_cost(record, train=0.1, measured="2026-02-01T00:00:00+00:00").write(theirs)
    merge(theirs, ours)
    assert [cost.train.seconds for cost in CostRecord.read_all(ours)[0]] == [0.5]
    make_cost(record, train=0.2, measured="2026-04-01T00:00:00+00:00").write(theirs)
    merge(theirs, ours)
    assert [cost.train.seconds for cost in CostRecord.read_all(ours)[0]] == [0.2]


def test_what_lies_beside_the_results_is_added_once_and_nothing_of_it_is_replaced(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours" / "results", tmp_path / "theirs" / "results"
    analysis = make_analysis(make("s5", task="listops"), trained_len=64)

    def put(record: AnalysisRecord, results: Path, name: str = "") -> None:
        write_atomically(AnalysisRecord.place(results) / f"{name or record.id}.json", dumps(record))

    put(analysis, theirs)
    another = {"seed": 1, "run": analysis.run.replace("-s0", "-s1")}
    put(analysis.model_copy(update=another), theirs, "quick/listops/s5/elsewhere")
    added, present, refused = merge(tmp_path / "theirs", ours)
    assert [path.name for path in added] == ["0123456789ab-s0.json"]
    assert (present, [problem.reason for problem in refused]) == (0, ["path: lies elsewhere"])
    assert merge(theirs, ours)[:2] == ([], 1)
    put(analysis.model_copy(update={"draw_seed": 1}), theirs)
    added, _, refused = merge(theirs, ours)
    assert added == []
    assert refused[0].reason == "another record of this name is there already"
    assert [each.draw_seed for each in AnalysisRecord.read_all(ours)[0]] == [0]


def test_what_is_no_consistent_record_is_named_and_the_rest_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    write(make(task="unheard_of"), theirs)
    write(make("beta", task="unheard_of", samples=3), theirs)
    (theirs / "cut.json").write_text("{")
    assert zoo(monkeypatch, "--results", ours, "merge", theirs) == 2
    captured = capsys.readouterr()
    assert "left out: cut.json: not JSON" in captured.err
    assert (
        "left out: quick/unheard_of/beta/0123456789ab-s0.json: samples: 3, but the history reaches 96" in captured.err
    )
    assert "1 added, 0 were there, 2 left out" in captured.out
    assert [record.architecture.name for _, record in read_all(ours)[0]] == ["alpha"]


def test_a_folder_without_records_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records there"):
        merge(tmp_path, tmp_path / "results")
