"""Kinds of tasks: those of zoo, and one that a third party brings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zoo import bench
from zoo.kinds import TaskKind
from zoo.spec.errors import ZooError
from zoo.spec.registry import registry
from zoo.spec.task import KINDS


@pytest.mark.board
@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("arch", ["toy", "transformer", "s4"])
def test_a_kind_of_a_plugin_is_trained_and_recorded_like_any_other(tmp_path: Path, arch: str) -> None:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    record = bench(arch, "toyregression", **folders)[0].record
    assert (record.status, record.error) == ("ok", "")
    assert record.task.kind == "tests.run.toy_kind:Regression"
    assert record.metric.model_dump() == {"name": "mse", "higher_is_better": False}
    assert record.metrics is not None
    mse = record.metrics.test.scores["mse"]
    assert mse is not None
    # the variance of the mean of twelve Bernoulli(1/4) draws, which the constant answer pays
    assert mse < 0.5 * (1 / 4) * (3 / 4) / 12
    best = min(point.loss for point in record.history if point.split == "val" and point.loss is not None)
    assert record.metrics.val.loss == best
    assert "toyregression" in (tmp_path / "results" / "README.md").read_text()


@pytest.mark.parametrize("name", KINDS)
def test_a_task_loads_its_kind(name: str) -> None:
    task = replace(registry().task("listops").record, kind=name)
    assert isinstance(task.load_kind(), TaskKind)


def test_a_name_that_is_no_kind_is_an_error() -> None:
    task = registry().task("listops").record
    with pytest.raises(ValueError, match="regresion"):
        replace(task, kind="regresion")
    with pytest.raises(ZooError, match="nowhere"):
        replace(task, kind="nowhere:Kind").load_kind()
    with pytest.raises(ZooError, match="not a subclass"):
        replace(task, kind="zoo.spec.task:Task").load_kind()
