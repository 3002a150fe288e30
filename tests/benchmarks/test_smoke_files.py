"""The tasks that need files, end to end: on made-up files always, on the user's own where ZOO_DATA_DIR has them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.benchmarks import layouts
from zoo.data.cached import CachedData
from zoo.data.prepare import open_task
from zoo.testing import run_checks

FILES = [name for name, entry in zoo.registry().tasks.items() if entry.record.needs and entry.plugin.builtin]
REAL = Path(os.environ.get("ZOO_DATA_DIR", "") or "/nowhere")
"""As the person who runs the tests has set it; in a test it is another."""


@pytest.fixture
def real(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's files as the data directory, and another place for what is prepared from them."""
    task = request.getfixturevalue("task") if "task" in request.fixturenames else "text"
    monkeypatch.setenv("ZOO_DATA_DIR", str(REAL))
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    try:
        open_task(zoo.registry().task(task).record, "smoke", {}).folder  # type: ignore[attr-defined]  # noqa: B018
    except zoo.MissingFiles as error:
        pytest.skip(f"NOT RUN: {task} on the published files. {error} (tests read ZOO_DATA_DIR)")
    return REAL


@pytest.mark.parametrize("arch", ["linformer", "transformer_xl"])
@pytest.mark.parametrize("task", FILES)
def test_smoke_run_on_made_up_files_is_recorded(arch: str, task: str, tmp_path: Path) -> None:
    if (arch, task) == ("linformer", "wikitext"):
        arch = "mamba"  # running text needs a causal form
    layouts.everything(tmp_path / "data")
    record = zoo.bench(arch, task, protocol="smoke", results=tmp_path / "results", runs=tmp_path / "runs")[0].record
    assert record.status == "ok", record.error
    assert record.overrides == {}
    assert record.data.files
    assert (record.segment_plan is not None) == (arch == "transformer_xl")


def test_a_sweep_without_files_says_so_for_all_tasks_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(zoo.MissingFiles) as caught:
        zoo.bench("linformer", "lra", protocol="smoke", results=tmp_path / "results", runs=tmp_path / "runs")
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["text", "retrieval", "image"]
    assert not list((tmp_path / "results").rglob("*.json"))


@pytest.mark.parametrize("task", FILES)
def test_made_up_files_keep_the_promises_of_a_task(task: str, tmp_path: Path) -> None:
    layouts.everything(tmp_path / "data")
    report = run_checks(task)
    assert report.ok, report.to_text()
    assert not [r for r in report.results if "no data" in r.reason]


@pytest.mark.parametrize("task", FILES)
def test_sample_files_are_prepared_under_smoke_without_any_other(task: str, tmp_path: Path) -> None:
    record = zoo.registry().task(task).record
    folder = tmp_path / "samples"
    folder.mkdir()
    record.write_sample_files(folder)
    data = open_task(record, "smoke", {}, root=folder)
    data.prepare()
    assert data.verify() == []


@pytest.mark.parametrize("task", FILES)
def test_published_files_keep_the_promises_of_a_task(task: str, real: Path) -> None:
    report = run_checks(task)
    assert report.ok, report.to_text()
    assert not [r for r in report.results if "no data" in r.reason]


@pytest.mark.parametrize("task", FILES)
def test_smoke_run_on_published_files(task: str, real: Path, tmp_path: Path) -> None:
    arch = "mamba" if task == "wikitext" else "linformer"
    record = zoo.bench(arch, task, protocol="smoke", results=tmp_path / "results", runs=tmp_path / "runs")[0].record
    assert record.status == "ok", record.error


def test_golden_rows_of_imdb(real: Path) -> None:
    data = open_task(zoo.registry().task("text").record, "paper", {})
    assert isinstance(data, CachedData)
    data.prepare()
    told = data.provenance()
    if any("the published set has" in note for note in told["notes"]):
        pytest.skip(f"NOT RUN: golden rows of IMDB, because the files are not the whole set: {told['notes']}")
    assert told["counts"] == {"train": 22_377, "val": 2_500, "test": 25_000}
    assert told["left_out"] == len(data.left_out()) == 123
    assert [np.bincount(data.labels(split)).tolist() for split in ("train", "val", "test")] == GOLDEN_LABELS
    total = hashlib.sha256()
    for split in ("train", "val", "test"):
        for i in (0, 1, 1_000, 2_499):
            inputs, label = data.dataset(split)[i]
            total.update(inputs.astype(np.int64).tobytes() + bytes([label]))
    inputs, label = data.dataset("test")[0]
    assert (bytes((inputs[:24] - 1).astype(np.uint8)), label) == GOLDEN_FIRST
    assert total.hexdigest() == GOLDEN_DIGEST


GOLDEN_LABELS = [[11_154, 11_223], [1_251, 1_249], [12_500, 12_500]]
GOLDEN_FIRST = (b"Kahin Pyaar Na Ho Jaaye ", 1)
GOLDEN_DIGEST = "4ea5c285609c23e8ff10f0abc56b21c29cb2b5b56288b9f38ef9c4682f496b92"
