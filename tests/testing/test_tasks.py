"""Each fault that is planted in a task fails the check that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.run import toy_questions, toy_torch
from zoo.data.module import SPLITS
from zoo.data.questions import IGNORE, Continuation, Marked
from zoo.spec.registry import Entry, registry
from zoo.spec.task import Task
from zoo.testing import TASK_CHECKS, TaskSubject, run_check

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
        told = super().provenance()
        if self.wrong == "wrong counts":
            told["counts"]["test"] += 1
        if self.wrong == "no seed":
            del told["seed"]
        return told

    def verify(self) -> list[str]:
        return ["train.data: wrong"] if self.wrong == "damaged" else []


NOT_OF_CLASSES = ("scores_match_declared_metrics",)
OF_CLASSES = ("chance_is_a_uniform_guess",)


@pytest.mark.parametrize("check", [name for name in BY_NAME if name not in NOT_OF_CLASSES])
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
            "nothing asked": lambda q: q._replace(labels=np.full_like(q.labels, IGNORE)),
            "labels of another length": lambda q: q._replace(labels=q.labels[1:]),
            "too long": lambda q: q._replace(ids=np.resize(q.ids, 49), labels=np.resize(q.labels, 49)),
            "a group that is none": lambda q: q._replace(group=7),
            "an answer without room": lambda q: Continuation(q.ids[:4], q.ids[:4]),
            "other examples": lambda q: q._replace(ids=np.append(q.ids[:-1], 1 + self.number % 20)),
        }
        return [change.get(self.wrong, lambda q: q)(rows[i]) for i in range(len(rows))]

    def score(self, split: Any, totals: Any) -> dict[str, float]:
        found = super().score(split, totals)
        if self.wrong == "upside down":
            return {"accuracy": 1 - found["accuracy"]}
        return {"share": found["accuracy"]} if self.wrong == "another name" else found


@pytest.mark.parametrize("check", [name for name in BY_NAME if name not in OF_CLASSES])
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
        ("nothing asked", "examples_fit_the_task"),
        ("labels of another length", "examples_fit_the_task"),
        ("too long", "examples_fit_the_task"),
        ("a group that is none", "examples_fit_the_task"),
        ("an answer without room", "examples_fit_the_task"),
        ("other examples", "examples_are_reproducible"),
        ("upside down", "scores_match_declared_metrics"),
        ("another name", "scores_match_declared_metrics"),
        ("nothing asked", "batches_are_padded_on_the_right"),
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
