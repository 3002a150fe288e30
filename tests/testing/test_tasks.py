"""Each fault that is planted in a task fails the check that is meant for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.run import toy_questions, toy_torch
from zoo.cli import app
from zoo.data.module import SPLITS
from zoo.data.questions import IGNORE, Continuation, Marked
from zoo.spec.errors import DataError, MissingFiles
from zoo.spec.registry import Entry, registry
from zoo.spec.task import Task
from zoo.testing import TASK_CHECKS, TaskSubject, run_check, run_checks

BY_NAME = {check.name: check for check in TASK_CHECKS}


class Broken(toy_torch.ToyData):
    """The toy task's data with one thing wrong; `wrong` names it."""

    wrong = ""
    opened = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        Broken.opened += 1
        self.number = Broken.opened

    def dataset(self, split: Any) -> Any:
        rng = np.random.default_rng(SPLITS.index("train" if self.wrong == "a leak" and split == "test" else split))
        rows = [(rng.integers(1, 5, size=12), int(rng.integers(2))) for _ in range(40)]
        change: dict[str, Callable[[Any, int], Any]] = {
            "an id too high": lambda ids, label: (ids + 4, label),
            "a label too high": lambda ids, label: (ids, label + 1),
            "too long": lambda ids, label: (np.resize(ids, 13), label),
            "empty": lambda ids, label: (ids[:0], label),
            "other examples": lambda ids, label: (np.append(ids[:-1], 1 + self.number % 4), label),
        }
        return [change.get(self.wrong, lambda *row: row)(*row) for row in rows]

    def provenance(self) -> dict[str, Any]:
        provenance = super().provenance()
        if self.wrong == "wrong counts":
            provenance["counts"]["test"] += 1
        if self.wrong == "no seed":
            del provenance["seed"]
        return provenance

    def lengths(self, split: Any) -> np.ndarray | None:
        declared = {"lengths of a sample": [12] * 39, "lengths of others": [12, 7] * 20}
        return np.array(declared[self.wrong]) if self.wrong in declared else None

    def verify(self) -> list[str]:
        return ["train.data: wrong"] if self.wrong == "damaged" else []


FOR_TOKEN_TASKS = ("scores_match_declared_metrics",)
FOR_CLASSES = ("chance_is_a_uniform_guess",)


@pytest.mark.parametrize("check", [name for name in BY_NAME if name not in FOR_TOKEN_TASKS])
def test_sound_data_pass(toys: None, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    monkeypatch.setattr(toy_torch, "ToyData", Broken)
    result = run_check(BY_NAME[check], TaskSubject.find("toytask"))
    assert result.status == "passed", result


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("a leak", "splits_share_no_example"),
        ("an id too high", "examples_fit_the_task"),
        ("a label too high", "examples_fit_the_task"),
        ("too long", "examples_fit_the_task"),
        ("empty", "examples_fit_the_task"),
        ("other examples", "examples_are_reproducible"),
        ("wrong counts", "provenance_matches_record_schema"),
        ("no seed", "provenance_matches_record_schema"),
        ("lengths of a sample", "examples_are_as_long_as_declared"),
        ("lengths of others", "examples_are_as_long_as_declared"),
        ("damaged", "verify_accepts_prepared_data"),
    ],
)
def test_planted_faults_are_caught(toys: None, monkeypatch: pytest.MonkeyPatch, wrong: str, check: str) -> None:
    entry: Entry[Task] = registry().task("toytask")
    monkeypatch.setattr(toy_torch, "ToyData", Broken)
    monkeypatch.setattr(Broken, "wrong", wrong)
    result = run_check(BY_NAME[check], TaskSubject(entry))
    assert result.status == "failed", result
    assert result.reason


class FromFiles(Broken):
    """The toy task's data, read from a file that the user has to bring."""

    def prepare(self) -> None:
        path = self.root / "toy" / "examples.txt"
        if not path.is_file():
            raise MissingFiles(f"toytask: no {path}")
        if path.read_text() != "complete":
            raise DataError(f"{path}: damaged")


def write_sample_files(folder: Path) -> None:
    (folder / "toy").mkdir(parents=True)
    (folder / "toy" / "examples.txt").write_text("complete")


@pytest.fixture
def from_files(toys: None, monkeypatch: pytest.MonkeyPatch) -> TaskSubject:
    monkeypatch.setattr(toy_torch, "ToyData", FromFiles)
    return TaskSubject.find("toytask")


NEED_NO_DATA = {"spec_without_torch", "protocol_keys_exist", "chance_is_a_uniform_guess"}


def test_missing_files_are_no_data_rather_than_not_declared(from_files: TaskSubject) -> None:
    report = run_checks(from_files)
    statuses = {result.check: result.status for result in report.results}
    assert {name for name, status in statuses.items() if status == "passed"} == NEED_NO_DATA
    assert {name for name, status in statuses.items() if status == "not_declared"} == {"scores_match_declared_metrics"}
    assert report.ok
    assert report.summary() == "11 checks: 3 passed, 1 not declared, 7 without data, 0 failed"
    assert "  no data: toytask: no " in report.to_text()
    assert len(report.to_text().splitlines()) == 2, "the missing file is named once"
    assert report.to_json()["no_data"] == 7


def test_zoo_check_without_data_says_so_and_exits_with_0(from_files: TaskSubject) -> None:
    done = CliRunner().invoke(app, ["check", "toytask"])
    assert done.exit_code == 0, done.output
    assert "toytask: 11 checks: 3 passed, 1 not declared, 7 without data, 0 failed" in done.output
    (report,) = json.loads(CliRunner().invoke(app, ["check", "toytask", "--json"]).stdout)
    assert (report["passed"], report["not_declared"], report["no_data"], report["failed"]) == (3, 1, 7, 0)
    assert {detail["status"] for detail in report["details"]} == {"passed", "not_declared", "no_data"}


def test_sample_files_stand_in_for_missing_ones(from_files: TaskSubject, tmp_path: Path) -> None:
    record = replace(from_files.task, sample_files=f"{__name__}:write_sample_files")
    report = run_checks(TaskSubject(replace(from_files.entry, record=record)))
    assert report.summary() == "11 checks: 10 passed, 1 not declared, 0 without data, 0 failed"
    assert "  note: on generated sample files" in report.to_text()
    assert not (tmp_path / "data" / "toy").exists(), "nothing is written into the user's data directory"


def test_the_users_files_come_before_sample_files(from_files: TaskSubject, tmp_path: Path) -> None:
    write_sample_files(tmp_path / "data")
    record = replace(from_files.task, sample_files="no_such_package:write")
    report = run_checks(TaskSubject(replace(from_files.entry, record=record)))
    assert report.summary() == "11 checks: 10 passed, 1 not declared, 0 without data, 0 failed"
    assert "note" not in report.to_text()


def test_damaged_files_fail(from_files: TaskSubject, tmp_path: Path) -> None:
    write_sample_files(tmp_path / "data")
    (tmp_path / "data" / "toy" / "examples.txt").write_text("half")
    report = run_checks(from_files)
    assert report.count("failed") == 7
    assert "examples.txt: damaged" in report.to_text()


class BrokenQuestions(toy_questions.RecallData):
    """The toy recall task's data with one thing wrong."""

    wrong = ""
    opened = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        BrokenQuestions.opened += 1
        self.number = BrokenQuestions.opened

    def dataset(self, split: Any) -> Any:
        source = "train" if self.wrong == "a leak" and split == "length_generalization" else split
        rows = super().dataset(source)
        change: dict[str, Callable[[Marked], Any]] = {
            "an id too high": lambda q: q._replace(ids=q.ids + 23),
            "padding among the tokens": lambda q: q._replace(ids=q.ids * 0),
            "an answer too high": lambda q: q._replace(labels=np.where(q.labels == IGNORE, IGNORE, 99)),
            "no labels": lambda q: q._replace(labels=np.full_like(q.labels, IGNORE)),
            "labels of another length": lambda q: q._replace(labels=q.labels[1:]),
            "too long": lambda q: q._replace(ids=np.resize(q.ids, 49), labels=np.resize(q.labels, 49)),
            "a group that is none": lambda q: q._replace(group=7),
            "an answer without room": lambda q: Continuation(q.ids[:4], q.ids[:4]),
            "other examples": lambda q: q._replace(ids=np.append(q.ids[:-1], 1 + self.number % 20)),
        }
        return [change.get(self.wrong, lambda q: q)(rows[i]) for i in range(len(rows))]

    def score(self, split: Any, totals: Any) -> dict[str, float]:
        scores = super().score(split, totals)
        if self.wrong == "upside down":
            return {"accuracy": 1 - scores["accuracy"]}
        return {"share": scores["accuracy"]} if self.wrong == "another name" else scores


@pytest.mark.parametrize("check", [name for name in BY_NAME if name not in FOR_CLASSES])
def test_sound_questions_pass(toys: None, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    monkeypatch.setattr(toy_questions, "RecallData", BrokenQuestions)
    result = run_check(BY_NAME[check], TaskSubject.find("toyrecall"))
    assert result.status == "passed", result


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("a leak", "splits_share_no_example"),
        ("an id too high", "examples_fit_the_task"),
        ("padding among the tokens", "examples_fit_the_task"),
        ("an answer too high", "examples_fit_the_task"),
        ("no labels", "examples_fit_the_task"),
        ("labels of another length", "examples_fit_the_task"),
        ("too long", "examples_fit_the_task"),
        ("a group that is none", "examples_fit_the_task"),
        ("an answer without room", "examples_fit_the_task"),
        ("other examples", "examples_are_reproducible"),
        ("upside down", "scores_match_declared_metrics"),
        ("another name", "scores_match_declared_metrics"),
        ("no labels", "batches_are_padded_on_the_right"),
    ],
)
def test_planted_faults_of_questions_are_caught(
    toys: None, monkeypatch: pytest.MonkeyPatch, wrong: str, check: str
) -> None:
    entry: Entry[Task] = registry().task("toyrecall")
    monkeypatch.setattr(toy_questions, "RecallData", BrokenQuestions)
    monkeypatch.setattr(BrokenQuestions, "wrong", wrong)
    result = run_check(BY_NAME[check], TaskSubject(entry))
    assert result.status == "failed", result
    assert result.reason
