"""The training stream in batches of like length: nothing is lost or preferred, and any part can be had alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.module import LoaderConfig
from zoo.data.sampler import StreamOrder
from zoo.kinds.classification import Classification
from zoo_lra.listops import ListOpsData
from zoo_lra.options import ListOpsOptions


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, object], int]:
    """Arguments of a stream, and a number of samples up to three epochs."""
    size = draw(st.integers(1, 300))
    lengths = np.array(draw(st.lists(st.integers(1, 50), min_size=size, max_size=size)))
    rows, seed = draw(st.integers(1, 40)), draw(st.integers(0, 5))
    return {"size": size, "seed": seed, "lengths": lengths, "rows": rows}, draw(st.integers(1, 3 * size))


@settings(deadline=None)
@given(streams(), st.data())
def test_a_resumed_run_reads_what_the_unbroken_one_would_have(
    stream: tuple[dict[str, object], int], data: st.DataObject
) -> None:
    kwargs, stop = stream
    whole = list(StreamOrder(stop=stop, **kwargs))
    start = data.draw(st.integers(0, stop))
    earlier = data.draw(st.integers(0, stop))
    assert list(StreamOrder(stop=stop, start=start, **kwargs)) == whole[start:]
    assert list(StreamOrder(stop=earlier, **kwargs)) == whole[:earlier]


@settings(deadline=None)
@given(streams())
def test_an_epoch_holds_every_example_once(stream: tuple[dict[str, object], int]) -> None:
    kwargs, _ = stream
    size = kwargs["size"]
    order = list(StreamOrder(stop=3 * size, **kwargs))
    for epoch in range(3):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))


@settings(deadline=None)
@given(streams(), st.integers(1, 4))
def test_devices_share_the_samples_of_each_step(stream: tuple[dict[str, object], int], world: int) -> None:
    kwargs, stop = stream
    whole = list(StreamOrder(stop=stop, **kwargs))
    parts = [StreamOrder(stop=stop, rank=rank, world=world, **kwargs) for rank in range(world)]
    for rank, part in enumerate(parts):
        assert list(part) == whole[rank::world]
        assert len(part) == len(whole[rank::world])


@settings(deadline=None)
@given(streams())
def test_lengths_ascend_within_a_step_so_that_micro_batches_are_alike(stream: tuple[dict[str, object], int]) -> None:
    kwargs, _ = stream
    size, rows, lengths = kwargs["size"], kwargs["rows"], kwargs["lengths"]
    order = list(StreamOrder(stop=2 * size, **kwargs))
    for start in range(0, 2 * size, rows):
        for part in (range(start, min(start + rows, size)), range(max(start, size), start + rows)):
            found = [lengths[order[k]] for k in part if k < 2 * size]
            assert found == sorted(found)


def test_no_length_has_a_preferred_time() -> None:
    """Over seeds, short and long examples come early and late alike, and batches are made up anew every epoch."""
    lengths = np.arange(1, 401)
    times = np.zeros((200, 400))
    for seed in range(200):
        times[seed, list(StreamOrder(400, seed, 400, lengths=lengths, rows=16))] = np.arange(400)
    assert np.abs(times.mean(0) - 199.5).max() < 5 * 400 / np.sqrt(12 * 200)
    order = list(StreamOrder(4000, 0, 8000, lengths=np.arange(4000), rows=16))
    first, second = ({frozenset(order[k : k + 16]) for k in range(e, e + 4000, 16)} for e in (0, 4000))
    assert not first & second


@pytest.mark.parametrize("rows", [8, 32, 64])
def test_few_places_are_pads(rows: int) -> None:
    lengths = np.random.default_rng(0).integers(15, 257, 16_000)
    order = np.array(list(StreamOrder(16_000, 0, 16_000, lengths=lengths, rows=rows)))
    read = lengths[order].reshape(-1, rows)
    assert read.sum() / (read.max(1) * rows).sum() > 0.95


@pytest.mark.parametrize("split", ["train", "test"])
def test_few_places_of_listops_are_pads(split: str, tmp_path: Path) -> None:
    """The distribution of `quick`, with fewer examples."""
    options = ListOpsOptions(train_size=1_600, val_size=20, test_size=400, min_len=15, max_len=257, seq_len=256)
    data = ListOpsData(options, tmp_path, LoaderConfig(Classification(), rows=32, batch_size=8, max_samples=1_600))
    data.prepare()
    loader = data.train_dataloader() if split == "train" else data.eval_dataloader(split)
    batches = list(loader)
    assert sum(len(batch.inputs) for batch in batches) == (1_600 if split == "train" else 400)
    assert sum(int(batch.n_tokens) for batch in batches) > 0.9 * sum(batch.inputs.numel() for batch in batches)


def test_lengths_of_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="3 lengths of 4 examples"):
        StreamOrder(4, 0, 4, lengths=np.arange(3))
