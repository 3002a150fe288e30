"""Fixtures of small models that are evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.benchmarks import layouts
from tests.benchmarks.models import Runs, write_checkpoint
from zoo.spec.record import Record


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `data` are made-up data in the published layouts."""
    folder = tmp_path_factory.mktemp("evaluate")
    layouts.everything(folder / "data")
    return folder


@pytest.fixture
def smoke_run(sample_data: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Makes smoke runs on them, each once, and returns their records."""
    monkeypatch.setenv("ZOO_DATA_DIR", str(sample_data / "data"))
    monkeypatch.setenv("ZOO_RUNS_DIR", str(sample_data / "runs"))

    def bench(arch: str = "transformer", task: str = "wikitext", **overrides: Any) -> Record:
        folders = {"results": sample_data / "results", "runs": sample_data / "runs"}
        record = zoo.bench(arch, task, protocol="smoke", overrides=overrides, **folders)[0].record
        assert record.status == "ok", record.error
        return record

    return bench


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of transformers."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-mamba")
