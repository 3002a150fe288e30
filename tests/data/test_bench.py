"""Speed of loading, and memory: bounded whatever the data set's size."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.data.batch import Batch
from zoo.data.bench import measure_loading, memory_growth, private_memory, take_batches, time_passes
from zoo.data.cached import CachedData
from zoo.data.files import sha256
from zoo.data.module import SPLITS, LoaderConfig
from zoo.data.questions import IGNORE
from zoo.data.store import Chunk, build
from zoo.kinds.classification import Classification

MB = 1_000_000


def batch(n: int, length: int) -> Batch:
    return Batch(torch.ones(n, length, dtype=torch.int64), None, torch.zeros(n, dtype=torch.int64))


def test_tokens_are_the_real_ones() -> None:
    padded = torch.tensor([[True, True, False], [True, False, False]])
    inputs = torch.ones(2, 3, dtype=torch.int64)
    assert batch(2, 3).n_tokens == 6
    assert Batch(inputs, padded, torch.zeros(2)).n_tokens == 3
    labels = torch.tensor([[5, IGNORE], [7, 8]])
    assert Batch(inputs, padded, labels, target=labels).n_tokens == 6


class Clock:
    """Stands for `time`: seconds go by only in `sleep`."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("zoo.data.bench.time", clock)
    return clock


def test_rates_are_those_of_a_clock(clock: Clock) -> None:
    def batches() -> Iterator[Batch]:
        for _ in range(1_000):
            clock.sleep(0.25)
            yield batch(4, 10)

    found = measure_loading(batches(), 7)
    assert (found.first_seconds, found.seconds, found.samples, found.tokens) == (0.25, 7.25, 4 * 29, 4 * 29 * 10)
    assert (found.samples_per_second, found.tokens_per_second) == (16, 160)


def test_the_time_of_an_example_is_that_of_a_clock_with_its_spread(clock: Clock) -> None:
    calls: list[int] = []

    def call(given: Batch) -> None:
        calls.append(len(given.inputs))
        clock.sleep(1.0 if len(calls) % 2 else 1.5 + len(calls) / 8)

    found = time_passes(call, [batch(4, 10), batch(1, 10)], 9)
    assert calls == [4] + [4, 1] * 3  # the first call is not counted; passes of 2.75, 3 and 3.25 seconds
    assert (found.seconds, found.low, found.high, found.passes) == (3.0 / 5, 2.875 / 5, 3.125 / 5, 3)
    slow = time_passes(lambda given: clock.sleep(50), [batch(1, 1)], 10)
    assert slow.passes == 3  # a spread, however long a pass takes


def test_a_pass_has_as_many_batches_as_it_has_time_for(clock: Clock) -> None:
    def kept(seconds: float) -> int:
        return len(take_batches(lambda given: clock.sleep(seconds), iter([batch(1, 1)] * 40), 1.0))

    assert (kept(0.75), kept(0.25), kept(0.001)) == (1, 4, 32)
    assert take_batches(lambda given: None, iter([])) == []


def test_memory_that_is_taken_and_given_back_within_is_noticed() -> None:
    grown: list[float] = []
    with memory_growth(grown):
        time.sleep(0.02)
    with memory_growth(grown):
        time.sleep(0.02)
        taken = np.ones(50 * MB, np.uint8)
        time.sleep(0.02)
        del taken
    assert grown[0] < 5 * MB
    assert 45 * MB < grown[1] < 60 * MB


def test_growth_is_noticed() -> None:
    kept = []

    def batches() -> Iterator[Batch]:
        for _ in range(20):
            memory = mmap.mmap(
                -1, 5 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )  # fresh, whatever the allocator has left over
            memory.write(b"1" * 5 * MB)
            kept.append(memory)
            time.sleep(0.01)
            yield batch(1, 1)

    assert measure_loading(batches(), 60).megabytes > 50


class Large(CachedData):
    """200 MB of examples of 2 kB each, on the disk."""

    name, suite = "large", "test"

    def folder_name(self) -> str:
        return "large"

    def decoder(self) -> type[np.ndarray]:
        return np.asarray  # type: ignore[return-value]


class Recipe:
    """100,000 examples for training."""

    def counts(self) -> dict[str, int]:
        return {"test": 10, "val": 10, "train": 100_000}

    def provenance(self) -> dict[str, object]:
        return {"kind": "regenerated", "version": "t", "seed": 0}

    def produce(self, split: str, start: int, rows: object) -> Iterator[Chunk]:
        for first in range(start, self.counts()[split], 1_000):
            n = min(1_000, self.counts()[split] - first)
            rng = np.random.RandomState(first)
            data = rng.randint(0, 256, 2_000 * n, dtype=np.uint8)
            yield Chunk(data, np.full(n, 2_000), rng.randint(0, 2, n), np.zeros(n))


LOADING = LoaderConfig(Classification(), batch_size=64, eval_batch_size=64, max_samples=100_000)


def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    data = Large(None, tmp_path, LOADING)
    before = private_memory()
    build(data.folder, Recipe(), lambda done, total: None)
    assert private_memory() - before < 60 * MB  # made piece by piece
    assert sum(p.stat().st_size for p in data.folder.iterdir()) > 200 * MB
    found = measure_loading(data.train_dataloader(), 60)
    assert found.samples == 100_000 - 64
    assert found.megabytes < 40
    assert [len(data.labels(split)) for split in SPLITS] == [100_000, 10, 10]


def test_the_first_batch_of_large_data_does_not_wait_for_a_checksum_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = Large(None, tmp_path, LOADING)
    build(data.folder, Recipe(), lambda done, total: None)
    hashed = []
    monkeypatch.setattr("zoo.data.store.sha256", lambda path: hashed.append(path) or sha256(path))
    data.prepare()
    next(iter(data.train_dataloader()))
    assert sum(path.stat().st_size for path in hashed) < MB
    assert data.verify() == []
    assert sum(path.stat().st_size for path in hashed) > 200 * MB


def test_files_that_were_written_to_are_read_whole_again(tmp_path: Path) -> None:
    data = Large(None, tmp_path)
    build(data.folder, Recipe(), lambda done, total: None)
    data.prepare()
    path = data.folder / "train.data"
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    with pytest.raises(zoo.DataError, match=r"train\.data: contents differ from their sha256"):
        data.prepare()
    note = data.folder.with_name("large.verified.json")
    with path.open("r+b") as file:
        file.write(first)
    note.write_text("{")
    data.prepare()  # a note that cannot be read is no note
    assert note.read_text().startswith('{"manifest.json"')
    data.discard()
    assert not note.exists()
