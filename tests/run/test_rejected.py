"""No run is lost: what a record needs is checked before training, and a record that is refused all the same is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import zoo
from zoo.cli import app
from zoo.spec.errors import UserError, ZooError
from zoo.spec.record import Record
from zoo.spec.store import read, read_all

pytestmark = pytest.mark.usefixtures("toys")


def bench(tmp_path: Path, task: str = "toytask", **options: Any) -> list[Record]:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    return [record for _, record in zoo.bench("toy", task, protocol="smoke", **folders, **options)]


def nothing_was_trained(tmp_path: Path) -> bool:
    return not list((tmp_path / "runs").rglob("*.ckpt")) and not read_all(tmp_path / "results")[0]


@pytest.mark.parametrize(
    ("provenance", "says"),
    [
        ({}, "data.kind: Field required"),
        ({"kind": "regenerated", "version": "1", "counts": {"train": 1}}, "data: expected 'seed' or 'files'"),
        ({"kind": "made up", "version": "1", "seed": 0, "counts": {"train": 1}}, "data.kind: Input should be"),
        ({"kind": "regenerated", "version": "1", "seed": 0, "counts": {}}, "data.counts: "),
        ({"kind": "published", "version": "1", "files": {"a": "no sum"}, "counts": {"train": 1}}, "data.files.a: "),
    ],
)
def test_a_provenance_at_fault_names_the_field_and_shows_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provenance: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr("tests.run.toy_torch.ToyData.provenance", lambda self: provenance)
    with pytest.raises(UserError) as caught:
        bench(tmp_path)
    message = str(caught.value)
    assert message.startswith("toytask: a record of this run would not be valid; nothing was trained:")
    assert says in message
    assert 'provenance() returns such as {"kind": "regenerated", "version": "1", "seed": 0, "counts":' in message
    assert nothing_was_trained(tmp_path)


@pytest.mark.parametrize(
    ("method", "does", "says"),
    [
        (
            "provenance",
            KeyError("counts"),
            r"ToyData\.provenance\(\) fails, .*KeyError: 'counts'; provenance\(\)",
        ),
        ("majority", ZeroDivisionError("no labels"), r"ToyData\.majority\(\) fails, .*majority\(\) returns the score"),
        ("majority", 2.0, r"baselines\.majority: expected a fraction, got 2\.0"),
        ("make_codec", {"f": object()}, r"ToyData\.make_codec\(\) fails, .*not JSON serializable"),
    ],
)
def test_what_fails_when_it_is_asked_for_the_record_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, does: Any, says: str
) -> None:
    def answer(self: Any) -> Any:
        if isinstance(does, Exception):
            raise does
        return does

    monkeypatch.setattr(f"tests.run.toy_torch.ToyData.{method}", answer)
    with pytest.raises(UserError, match=says):
        bench(tmp_path)
    assert nothing_was_trained(tmp_path)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({"acc": 1.0}, "metrics.test.scores: has no 'accuracy', the ranked metric; it has acc"),
        ({"accuracy": 1.0, "Top 5": 1.0}, "metrics.test.scores: 'Top 5' is no name"),
    ],
)
def test_names_of_scores_are_checked_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: dict[str, float], says: str
) -> None:
    monkeypatch.setattr("tests.run.toy_questions.RecallData.score", lambda self, split, totals: scores)
    with pytest.raises(UserError) as caught:
        bench(tmp_path, "toyrecall")
    assert says in str(caught.value)
    assert nothing_was_trained(tmp_path)


def test_the_checks_change_no_number_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.spec.record import comparable

    (checked,) = bench(tmp_path / "a")
    monkeypatch.setattr("zoo.run.recording._faults_of_scores", lambda module, data: [])
    (plain,) = bench(tmp_path / "b")
    assert comparable(checked) == comparable(plain)


def repair(tmp_path: Path) -> Any:
    arguments = ["leaderboard", "repair", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    return CliRunner().invoke(app, arguments)


def test_a_record_that_is_refused_after_training_is_kept_and_taken_in_after_mending(tmp_path: Path) -> None:
    from zoo.run import recording

    def spoilt(*arguments: Any) -> dict[str, Any]:
        return recording.record_fields(*arguments) | {"samples": -1}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.run.execute.record_fields", spoilt)
        with pytest.raises(ZooError, match=r"rejected\.json; mend it, and zoo leaderboard repair .*\n  samples: "):
            bench(tmp_path)
    (file,) = (tmp_path / "runs").rglob("record.rejected.json")
    kept = json.loads(file.read_text())
    assert kept["reasons"] == ["samples: Input should be greater than or equal to 0, got -1"]

    before = repair(tmp_path)
    assert before.exit_code == 2
    assert "samples: Input should be greater than or equal to 0" in before.output
    assert "1 rejected: 0 taken in, 1 left" in before.output

    kept["record"]["samples"] = 32
    file.write_text(json.dumps(kept))
    after = repair(tmp_path)
    assert after.exit_code == 0, after.output
    ((path, record),), problems = read_all(tmp_path / "results")
    assert (record.status, record.samples, problems) == ("ok", 32, [])
    assert not file.exists()
    zoo.load(tmp_path / "results" / path, runs=tmp_path / "runs")
    assert bench(tmp_path) == [record]  # done, and not trained again


@pytest.mark.processes
def test_a_record_that_cannot_be_written_is_kept_by_the_process_of_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "smoke").write_text("a file where a folder should be")
    with pytest.raises(
        ZooError, match=r"the record was not accepted, and is kept in .*record\.rejected\.json"
    ) as caught:
        bench(tmp_path)
    assert not isinstance(caught.value, UserError)
    assert "Traceback" not in capfd.readouterr().err
    (tmp_path / "results" / "smoke").unlink()
    assert repair(tmp_path).exit_code == 0
    (stored,), _ = read_all(tmp_path / "results")
    assert isinstance(read(tmp_path / "results" / stored.path), Record)


def test_repair_without_anything_to_repair(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    done = repair(tmp_path)
    assert (done.exit_code, done.output.strip()) == (0, "0 rejected: 0 taken in, 0 left")
    (tmp_path / "runs" / "record.rejected.json").write_text("no JSON")
    done = repair(tmp_path)
    assert done.exit_code == 2
    assert "not a rejected record" in done.output
