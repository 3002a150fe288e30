"""The cache: whole or absent, resumable to the byte, and it notices damage."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.data import store
from zoo.data.export import export, limit_counts, with_limit
from zoo.data.paths import data_dir
from zoo.data.prepare import open_task
from zoo.data.store import Chunk, StoredSplit, build, find_faults, read_manifest
from zoo_lra.listops import ListOpsData
from zoo_lra.options import ListOpsOptions, PathfinderOptions
from zoo_lra.pathfinder import PathfinderData

SHORT = {"train_size": 1500, "val_size": 30, "test_size": 30, "min_len": 9, "max_len": 65, "seq_len": 64}


class Counting:
    """Example i of a split is i % 7 bytes of value i % 251; may stop after some chunks."""

    def __init__(self, sizes: dict[str, int], stop_after: int | None = None) -> None:
        self.sizes, self.left, self.starts = sizes, stop_after, []

    def counts(self) -> Any:
        return self.sizes

    def provenance(self) -> dict[str, Any]:
        return {"kind": "regenerated", "version": "t", "seed": 0}

    def produce(self, split: str, start: int, rows: Any) -> Iterator[Chunk]:
        self.starts.append((split, start))
        assert [len(r) for r in rows(split)] == [i % 7 for i in range(start)]
        for first in range(start, self.sizes[split], 10):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
            i = np.arange(first, min(first + 10, self.sizes[split]))
            yield Chunk(np.repeat(i % 251, i % 7), i % 7, i % 3, i % 5)


def silent(done: int, total: int) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_examples_come_back(tmp_path: Path) -> None:
    build(tmp_path / "set", Counting({"test": 25, "val": 3, "train": 100}), silent)
    stored = StoredSplit(tmp_path / "set", "train")
    assert len(stored) == 100
    for i in (0, 6, 7, 55, 99):
        assert stored.row(i).tolist() == [i % 251] * (i % 7)
        assert (stored.labels[i], stored.notes[i]) == (i % 3, i % 5)
    with pytest.raises(IndexError):
        stored.row(100)
    assert pickle.loads(pickle.dumps(stored)).row(6).tolist() == [6] * 6
    assert len(pickle.dumps(stored)) < 1000
    assert find_faults(tmp_path / "set", thorough=True) == []


@pytest.mark.parametrize("stop_after", [0, 1, 4, 9, 12])
def test_interrupted_builds_go_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    sizes = {"test": 25, "val": 3, "train": 100}
    build(tmp_path / "whole", Counting(sizes), silent)
    monkeypatch.setattr(store, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "broken", Counting(sizes, stop_after), silent)
    assert not (tmp_path / "broken").exists()
    # bytes that were written after the last journal entry
    for path in (tmp_path / "broken.partial").glob("*.data"):
        with path.open("ab") as file:
            file.write(b"torn")
    again = Counting(sizes)
    build(tmp_path / "broken", again, silent)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    if stop_after > 1:
        assert again.starts[0] != ("test", 0)
    assert not (tmp_path / "broken.partial").exists()


@pytest.mark.parametrize("damage", ["journal", "short file"])
def test_a_damaged_partial_folder_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(store, "CHECKPOINT_SECONDS", -1.0)
    sizes = {"train": 100}
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "set", Counting(sizes, 5), silent)
    name = "journal.json" if damage == "journal" else "train.data"
    (tmp_path / "set.partial" / name).write_bytes(b"{")
    build(tmp_path / "set", Counting(sizes), silent)
    build(tmp_path / "other", Counting(sizes), silent)
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


def test_a_full_disk_is_told_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHECKPOINT_SECONDS", -1.0)
    real, calls = os.write, []

    def write(descriptor: int, data: Any) -> int:
        calls.append(1)
        if len(calls) > 20:
            real(descriptor, data[:1])  # a torn write, then the error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(zoo.DataError, match=r"no space left on the disk of .*set.partial.*train\."):
        build(tmp_path / "set", Counting({"train": 100}), silent)
    assert not (tmp_path / "set").exists()
    monkeypatch.setattr(os, "write", real)
    build(tmp_path / "set", Counting({"train": 100}), silent)
    build(tmp_path / "other", Counting({"train": 100}), silent)
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


SCRIPT = """
import sys, time
from pathlib import Path
import zoo.data.store as store
from zoo_lra.listops import ListOpsData
from zoo_lra.options import ListOpsOptions
store.CHECKPOINT_SECONDS = -1.0
data = ListOpsData(ListOpsOptions(**{options}), Path(sys.argv[1]))
slow = store._Writer._append
def append(self, split, chunk):
    slow(self, split, chunk)
    print(self.done[split], flush=True)
    time.sleep(float(sys.argv[2]))
store._Writer._append = append
data.prepare()
"""


def test_kill_9_then_the_same_command(tmp_path: Path) -> None:
    script = SCRIPT.replace("{options}", repr(SHORT))
    victim = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a"), "60"], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    assert victim.stdout.readline().strip() == "30"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    options = ListOpsOptions(**SHORT)
    resumed, whole = ListOpsData(options, tmp_path / "a"), ListOpsData(options, tmp_path / "b")
    assert not resumed.prepared()
    assert resumed.folder.with_name(resumed.folder.name + ".partial").is_dir()
    resumed.prepare()
    whole.prepare()
    assert contents(resumed.folder) == contents(whole.folder)


def prepare_in(root: Path) -> str:
    data = ListOpsData(ListOpsOptions(**SHORT), root)
    data.prepare()
    return read_manifest(data.folder)["files"]["train.data"]["sha256"]


def test_two_processes_at_once(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        first, second = pool.map(prepare_in, [tmp_path, tmp_path])
    assert first == second
    assert find_faults(ListOpsData(ListOpsOptions(**SHORT), tmp_path).folder, thorough=True) == []


def test_the_number_of_workers_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = PathfinderOptions(train_size=200, val_size=3, test_size=70)
    found = []
    for workers in ("1", "3"):
        monkeypatch.setenv("ZOO_DATA_WORKERS", workers)
        data = PathfinderData(options, tmp_path / workers)
        data.prepare()
        found.append(contents(data.folder))
    assert found[0] == found[1]


def test_damage_is_named_and_refused(tmp_path: Path) -> None:
    data = open_task(zoo.registry().task("listops").record, "smoke", {}, tmp_path)
    assert data.verify() == [f"{data.folder}: not prepared"]  # type: ignore[attr-defined]
    with pytest.raises(zoo.DataError, match="not prepared"):
        data.dataset("train")
    data.prepare()
    assert data.verify() == []
    path = data.folder / "val.data"  # type: ignore[attr-defined]
    whole = path.read_bytes()

    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert data.verify() == [f"{path}: contents differ from their sha256 in manifest.json"]
    with pytest.raises(zoo.DataError, match=r"val\.data.*--force"):
        data.prepare()

    path.write_bytes(whole[:-1])
    with pytest.raises(zoo.DataError, match=rf"val\.data: {len(whole) - 1} bytes, expected {len(whole)}"):
        data.dataset("train")
    path.unlink()
    with pytest.raises(zoo.DataError, match=r"val\.data: No such file"):
        data.dataset("train")
    (path.parent / "manifest.json").write_text("{")
    with pytest.raises(zoo.DataError, match=r"manifest\.json: damaged"):
        data.dataset("train")
    data.discard()  # type: ignore[attr-defined]
    data.prepare()
    assert path.read_bytes() == whole


def test_unknown_keys_and_types() -> None:
    task = zoo.registry().task("listops").record
    with pytest.raises(zoo.ConfigError, match=r"task\.seqlen: unknown key; did you mean 'task\.seq_len'"):
        open_task(task, "quick", {"task.seqlen": 5})
    with pytest.raises(zoo.ConfigError, match=r"task\.seq_len: expected integer >= 2, got 'long'"):
        open_task(task, "quick", {"task.seq_len": "long"})
    with pytest.raises(zoo.UserError, match="no protocol 'quik'; did you mean 'quick'"):
        open_task(task, "quik", {})
    with pytest.raises(zoo.ConfigError, match=r"task\.data_seed: expected integer >= 0, got -1"):
        open_task(task, "quick", {"task.data_seed": -1})


def test_export_is_atomic_and_careful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_task(zoo.registry().task("listops").record, "smoke", {}, tmp_path / "root")
    data.prepare()
    to = tmp_path / "out"
    assert export(data, to, limit=10) == {"train": 8, "val": 1, "test": 1}
    with pytest.raises(zoo.UserError, match="not empty"):
        export(data, to)
    assert export(data, to, force=True)["train"] == 256
    (to / "thesis.tex").write_text("years of work")
    with pytest.raises(zoo.UserError, match=r"thesis\.tex"):
        export(data, to, force=True)
    assert (to / "thesis.tex").exists()
    monkeypatch.setattr(ListOpsData, "write_published", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        export(data, tmp_path / "never")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "never"))) == []


def test_a_limited_export_prepares_no_more_than_it_needs(tmp_path: Path) -> None:
    data = open_task(zoo.registry().task("listops").record, "paper", {}, tmp_path)
    few = with_limit(data, 300)
    few.prepare()
    assert few.provenance()["counts"] == {"test": 6, "val": 6, "train": 288}
    assert limit_counts({"train": 96_000, "val": 2_000, "test": 2_000}, None)["train"] == 96_000


def test_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.delenv("ZOO_DATA_DIR")
    assert data_dir().name == "seqzoo"


def test_tasks_are_listed_without_torch() -> None:
    code = "import sys, zoo_lra; list(zoo_lra.zoo_tasks()); sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert time.monotonic() - began < 30
