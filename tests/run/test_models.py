"""What stands around a backbone: embedding, pooling, segments, head. Padding must change no logit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from zoo.data.batch import collate_sequences as collate
from zoo.data.sampler import IntervalSampler, StreamOrder
from zoo.model.models import Pool, SequenceClassifier
from zoo.run.request import BenchRequest, resolve
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry


def model(arch: str, *, kind: str = "classification", **overrides: Any) -> SequenceClassifier:
    """The model of an experiment on listops with three classes, of either kind."""
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    (experiment,) = resolve(BenchRequest.parse(arch, "listops", protocol="smoke", overrides=keys))
    torch.manual_seed(0)
    task = replace(experiment.task_spec, kind=kind)
    built = task.load_kind().build_model(replace(experiment.model_spec, n_classes=3))
    assert isinstance(built, SequenceClassifier)
    return built.double().eval()


def examples(lengths: list[int], seed: int = 0) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(seed)
    return [(rng.integers(1, 16, size=n), i % 3) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("arch", registry().architectures)
@pytest.mark.parametrize("pool", ["mean", "last", "cls"])
def test_a_padded_batch_gives_the_logits_of_each_example_alone(arch: str, pool: str) -> None:
    capable = registry().architecture(arch).record.capabilities
    overrides: dict[str, Any] = {"model__pool": pool, "segments__length": 8}
    if pool == "cls" and ("bidirectional" not in capable.modes or capable.segment):
        with pytest.raises(ConfigError, match="cls"):
            model(arch, **overrides)
        return
    made = model(arch, **overrides)
    rows = examples([23, 7, 40, 1])
    call = 8 if capable.segment else 40
    latents = made.encoder.backbone(torch.zeros(1, call, 16, dtype=torch.float64)).hidden.shape[1] != call
    if latents and pool != "mean":
        with pytest.raises(ConfigError, match="no meaning for latents"):
            made(collate(rows))
        return
    together = made(collate(rows)).logits
    alone = torch.cat([made(collate([row])).logits for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_matching_reads_both_documents_with_one_encoder() -> None:
    made = model("s4", kind="pair_classification")
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(1, 16, size=(2, 9)), 0), (rng.integers(1, 16, size=(2, 14)), 1)]
    assert made(collate(pairs)).logits.shape == (2, 3)
    same = [(np.stack([p[0], p[0]]), y) for p, y in pairs]
    pooled, _ = made.pooled(*collate([(p[0], y) for p, y in pairs])[:2])
    expected = made.head(torch.cat([pooled, pooled, pooled * pooled, pooled - pooled], dim=-1))
    torch.testing.assert_close(made(collate(same)).logits, expected)


def test_values_need_no_vocabulary() -> None:
    request = BenchRequest.parse("s4", "pathfinder", protocol="smoke", overrides={"task.input": "values"})
    made = SequenceClassifier(resolve(request)[0].model_spec)
    assert not [n for n, _ in made.named_parameters() if n == "encoder.embedding.weight" and _.shape[0] == 256]
    values = np.random.default_rng(0).random(1024).astype(np.float32)
    assert made(collate([(values, 1)])).logits.shape == (1, 2)


@pytest.mark.parametrize("kind", ["mean", "last", "cls"])
def test_pooling_by_pieces_equals_pooling_the_whole(kind: str) -> None:
    hidden = torch.randn(4, 12, 5, dtype=torch.float64)
    mask = torch.arange(12) < torch.tensor([12, 5, 9, 1])[:, None]
    whole, pieces = Pool(kind), Pool(kind)
    whole.update(hidden, mask)
    for start in range(0, 12, 4):
        pieces.update(hidden[:, start : start + 4], mask[:, start : start + 4])
    torch.testing.assert_close(whole.result(), pieces.result())
    expected = {
        "mean": torch.stack([h[m].mean(0) for h, m in zip(hidden, mask, strict=True)]),
        "last": torch.stack([h[m][-1] for h, m in zip(hidden, mask, strict=True)]),
        "cls": hidden[:, 0],
    }[kind]
    torch.testing.assert_close(whole.result(), expected)


def test_the_training_stream_goes_on_where_it_stopped() -> None:
    whole = list(StreamOrder(7, seed=1, stop=25))
    assert whole[:10] + list(StreamOrder(7, seed=1, stop=25, start=10)) == whole
    assert sorted(whole[:7]) == sorted(whole[7:14]) == list(range(7))
    assert whole[:7] != whole[7:14]
    assert list(StreamOrder(7, seed=2, stop=7)) != whole[:7]


def test_an_epoch_of_lightning_is_a_validation_interval() -> None:
    sampler = IntervalSampler(lambda start, stop: StreamOrder(7, 1, stop, start), interval=10, max_samples=25)
    intervals = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        intervals.append(list(sampler))
        assert len(sampler) == len(intervals[-1])
    assert [len(interval) for interval in intervals] == [10, 10, 5]
    assert [i for interval in intervals for i in interval] == list(StreamOrder(7, seed=1, stop=25))
