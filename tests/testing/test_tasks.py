"""The checks of tasks catch what is planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.experiment import toy_torch
from zoo.data.module import SPLITS
from zoo.interface.registry import Entry, registry
from zoo.interface.task import Task
from zoo.testing.checks_task import TASK_CHECKS, TaskSubject
from zoo.testing.report import run_check

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


@pytest.mark.parametrize("check", BY_NAME)
def test_sound_data_pass(toys: None, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    monkeypatch.setattr(toy_torch, "ToyData", Broken)
    result = run_check(BY_NAME[check], TaskSubject(registry().task("toytask")))
    assert result.outcome == "passed", result


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("a leak", "splits_share_no_example"),
        ("an id too high", "examples_fit_the_task"),
        ("a label too high", "examples_fit_the_task"),
        ("too long", "examples_fit_the_task"),
        ("empty", "examples_fit_the_task"),
        ("other examples", "examples_come_back"),
        ("wrong counts", "provenance_fits_a_record"),
        ("no seed", "provenance_fits_a_record"),
        ("damaged", "prepared_data_verify"),
    ],
)
def test_planted_faults_are_caught(toys: None, monkeypatch: pytest.MonkeyPatch, wrong: str, check: str) -> None:
    entry: Entry[Task] = registry().task("toytask")
    monkeypatch.setattr(toy_torch, "ToyData", Broken)
    monkeypatch.setattr(Broken, "wrong", wrong)
    result = run_check(BY_NAME[check], TaskSubject(entry))
    assert result.outcome == "failed", result
    assert result.reason
