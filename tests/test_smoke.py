"""Architectures on the tasks that can be generated, end to end: the pieces fit, and a second run repeats the numbers.

Every architecture runs listops and the first task of recall, and one of each kind every task but pathx, which is
pathfinder at another size.
Tasks that need files: tests/benchmarks/test_smoke_files.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from zoo.spec.record import comparable
from zoo.spec.registry import registry

KNOWN = registry()
GENERATED = [name for name, entry in KNOWN.tasks.items() if not entry.record.needs]
ONE_OF_EACH = ("transformer", "mamba", "transformer_xl", "linformer", "longt5")
"""Next-token without a state, with one, by segments; infilling; seq2seq."""
QUESTIONS = [name for name in GENERATED if KNOWN.task(name).record.kind == "recall"]
FOR_ALL = ("listops", QUESTIONS[0])
FOR = dict.fromkeys(GENERATED, ONE_OF_EACH) | dict.fromkeys(FOR_ALL, tuple(KNOWN.architectures)) | {"pathx": ("mamba",)}
PAIRS = [(arch, task) for task, architectures in FOR.items() for arch in architectures]


@pytest.fixture(autouse=True)
def shared_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are the same for every test of a worker; records and runs are not."""
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path_factory.getbasetemp() / "data"))


@pytest.mark.parametrize(("arch", "task"), PAIRS, ids=[f"{a}-{t}" for a, t in PAIRS])
def test_smoke_run_is_recorded(arch: str, task: str, tmp_path: Path) -> None:
    record = zoo.bench(arch, task, protocol="smoke", results=tmp_path / "results", runs=tmp_path / "runs")[0].record
    assert record.status == "ok", record.error
    assert record.data.kind == "regenerated"
    assert record.state_size is None or record.state_size > 0
    segmented = KNOWN.architecture(arch).record.capabilities.segment
    assert (record.segment_plan is not None) == segmented


def test_a_record_repeats_the_run(tmp_path: Path) -> None:
    """What a record says is enough to run it again: architecture, task, protocol, seed, configuration."""
    first = zoo.bench(
        "s4", "listops", protocol="smoke", seeds=[3], overrides={"optim.lr": 0.02}, results=tmp_path / "1"
    )
    record = first[0].record
    again = zoo.bench(
        record.architecture.name,
        record.task.name,
        protocol=record.protocol,
        seeds=[record.seed],
        overrides=record.config,
        results=tmp_path / "2",
        runs=tmp_path / "runs2",
    )
    assert comparable(again[0].record) == comparable(record)


def test_the_requested_op_backend_runs_and_is_recorded(tmp_path: Path) -> None:
    def forms(backend: str) -> dict[str, str]:
        overrides = {"train.op_backend": backend}
        stored = zoo.bench("mamba", "listops", protocol="smoke", overrides=overrides, results=tmp_path / "r")[0]
        return stored.record.op_backends

    assert forms("auto") == {"selective_scan": "numba"}
    assert forms("reference") == {"selective_scan": "reference"}


@pytest.mark.board
def test_smoke_records_are_on_no_board(tmp_path: Path) -> None:
    zoo.bench("linformer", "listops", protocol="smoke", results=tmp_path / "results")
    board = tmp_path / "results" / "README.md"
    assert "linformer" not in board.read_text()
