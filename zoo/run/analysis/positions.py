"""Lost in the middle (Liu et al. 2023, arXiv 2307.03172): how often a model is right by where the answer stands."""

from __future__ import annotations

from typing import Any

from zoo.board.statistics import wilson
from zoo.data.module import TaskData
from zoo.run.compose import Experiment
from zoo.run.extend import score_run
from zoo.spec.analysis import PLACES, AccuracyAt
from zoo.spec.record import metric_kind


def refusal(experiment: Experiment, data: TaskData) -> str:
    """Why a run's task has no positions; empty where it has."""
    if any(place in group for group in data.groups("test") for place in PLACES):
        return ""
    return f"positions: no place of the answer is known of the test questions of {experiment.task}"


def analyze_positions(experiment: Experiment, model: Any) -> tuple[str, tuple[AccuracyAt, ...]]:
    """The score by group of the test split, each place and length one, with Wilson's interval: its name, and a point
    for each group."""
    points = []
    scores = score_run(experiment, model)
    name = next(name for name in scores["scores"] if metric_kind(name) == "share")
    for group in scores["groups"]:
        share, n = group["scores"][name], group["n"]
        interval = wilson(share, n)
        points.append(AccuracyAt(at=group["at"], n=n, accuracy=share, low=interval.low, high=interval.high))
    return name, tuple(points)
