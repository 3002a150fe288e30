"""What stands around a backbone: embedding, pooling, segments, head. Padding must change no logit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.data.batch import collate_sequences as collate
from zoo.data.module import LoaderConfig, TaskData
from zoo.data.questions import IGNORE
from zoo.data.sampler import IntervalSampler, StreamOrder
from zoo.model.encoder import Positions
from zoo.model.models import AuxLosses, Pool, SequenceClassifier
from zoo.nn import parameters_with_options
from zoo.run.module import Loaders
from zoo.run.request import BenchRequest, resolve
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry

from .conftest import resolve_one


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


def toy_data(folder: Path, task: str, **loading: Any) -> TaskData:
    """The data of a toy task as a run would load them."""
    record = registry().task(task).record
    return record.load_data()(record.load_options()(), folder, LoaderConfig(kind=record.load_kind(), **loading))


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


def test_an_mlp_head_has_one_layer_of_relus() -> None:
    made = model("s4", model__head="mlp", model__d_head=6)
    batch = collate(examples([9, 5]))
    pooled, _ = made.pooled(*batch[:2])
    w1, b1, w2, b2 = made.head.parameters()
    assert (w1.shape, w2.shape) == ((6, 16), (3, 6))
    torch.testing.assert_close(made(batch).logits, (pooled @ w1.T + b1).relu() @ w2.T + b2)
    assert made(batch).rows.tolist() == [0, 1]


def test_a_cls_token_is_learned_and_takes_a_position_of_its_own() -> None:
    made = model("performer", model__pool="cls")
    cls, positions = made.encoder.cls, made.encoder.positions
    assert cls is not None
    assert positions is not None
    longest = positions.table.shape[0] - 1
    ids = torch.ones(2, longest, dtype=torch.int64)
    first = made.encoder.embed(ids)
    assert first.shape == (2, longest + 1, 16)
    torch.testing.assert_close(first[1, 0], cls + positions.table[0])
    logits = made(collate([(ids[0].numpy(), 0)])).logits
    (gradient,) = torch.autograd.grad(logits.sum(), cls)
    assert gradient.any()
    with pytest.raises(ValueError, match="tokens, but positions for"):
        made.encoder.embed(torch.ones(1, longest + 1, dtype=torch.int64))


def test_dropout_is_on_the_embeddings_in_training_and_nowhere_else() -> None:
    made = model("s4", model__dropout=0.75)
    ids = torch.ones(1, 4_000, dtype=torch.int64)
    plain = made.encoder.embed(ids)
    dropped = made.encoder.train().embed(ids)
    kept = dropped != 0
    assert 0.2 < kept.double().mean() < 0.3
    torch.testing.assert_close(dropped[kept], 4 * plain[kept])


@pytest.mark.parametrize(("length", "segments"), [(8, 8), (9, 8), (64, 1), (63, 2)])
def test_auxiliary_losses_are_shared_out_over_the_segments_of_the_longest_training_example(
    length: int, segments: int
) -> None:
    made = model("compressive", segments__length=length, task__seq_len=64)
    assert made.encoder.segments == segments


def test_values_need_no_vocabulary() -> None:
    request = BenchRequest.parse("s4", "pathfinder", protocol="smoke", overrides={"task.input": "values"})
    made = SequenceClassifier(resolve(request)[0].model_spec)
    assert not [n for n, _ in made.named_parameters() if n == "encoder.embedding.weight" and _.shape[0] == 256]
    values = np.random.default_rng(0).random(1024).astype(np.float32)
    assert made(collate([(values, 1)])).logits.shape == (1, 2)


def test_without_positions_an_architecture_that_has_none_reads_a_bag_of_words() -> None:
    tokens = torch.randint(1, 5, (2, 12), generator=torch.Generator().manual_seed(0))
    shuffled = tokens[:, torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    for positions, alike in (("none", True), ("sinusoidal", False)):
        overrides = {"model.positions": positions, "arch.n_heads": 2}
        experiment = resolve_one("performer", "listops", protocol="smoke", overrides=overrides)
        model = experiment.kind.build_model(experiment.model_spec).double().eval()
        assert torch.allclose(model.logits(tokens), model.logits(shuffled)) == alike


@pytest.mark.parametrize("d_model", [8, 7])
def test_sinusoidal_positions_are_those_of_the_paper_to_the_last_bit_that_float32_has(d_model: int) -> None:
    """PE(p, 2u) = sin(p / 10000^(2u / D)), PE(p, 2u + 1) = cos of the same, also far into a long text."""
    p, u = np.arange(20_000)[:, None], np.arange(d_model) // 2
    angle = p / 10000.0 ** (2 * u / d_model)
    expected = np.where(np.arange(d_model) % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)
    positions = Positions("sinusoidal", d_model, 20_000)
    torch.testing.assert_close(
        positions(torch.zeros(1, 20_000, d_model))[0], torch.from_numpy(expected), rtol=0, atol=1e-7
    )
    assert not list(positions.parameters())
    assert positions(torch.zeros(2, 3, d_model, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="a sequence of 20001 tokens, but positions for 20000"):
        positions(torch.zeros(1, 20_001, d_model))


def test_learned_positions_are_a_small_table_that_is_trained_without_weight_decay() -> None:
    torch.manual_seed(0)
    positions = Positions("learned", 64, 100)
    x = torch.randn(2, 30, 64)
    torch.testing.assert_close(positions(x) - x, positions.table[:30].expand(2, -1, -1), atol=1e-6, rtol=0)
    assert abs(float(positions.table.detach().std()) - 0.02) < 0.002
    ((name, table, options),) = parameters_with_options(positions)
    assert (name, table is positions.table, options.weight_decay) == ("table", True, 0.0)


def test_auxiliary_losses_are_sums_over_segments_divided_by_those_of_the_longest_example() -> None:
    losses = AuxLosses(4)
    for aux in ({"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0), "b": torch.tensor(6.0)}, {}):
        losses.add(aux)
    assert losses.mean() == {"a": torch.tensor(0.75), "b": torch.tensor(1.5)}


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
    assert list(StreamOrder(1, seed=1, stop=3)) == [0, 0, 0]
    with pytest.raises(ValueError, match="an empty training split"):
        StreamOrder(0, seed=1, stop=25)


@pytest.mark.parametrize("start", [0, 6])
def test_devices_share_the_training_stream(start: int) -> None:
    whole = list(StreamOrder(7, 1, 25, start))
    parts = [StreamOrder(7, 1, 25, start, rank=rank, world=3) for rank in range(3)]
    assert [list(part) for part in parts] == [whole[rank::3] for rank in range(3)]
    assert [len(part) for part in parts] == [len(whole[rank::3]) for rank in range(3)]


def test_an_epoch_of_lightning_is_a_validation_interval() -> None:
    sampler = IntervalSampler(lambda start, stop: StreamOrder(7, 1, stop, start), interval=10, max_samples=25)
    intervals = []
    for epoch in range(3):
        if epoch > 0:  # it begins with the first
            sampler.set_epoch(epoch)
        intervals.append(list(sampler))
        assert len(sampler) == len(intervals[-1])
    assert [len(interval) for interval in intervals] == [10, 10, 5]
    assert [i for interval in intervals for i in interval] == list(StreamOrder(7, seed=1, stop=25))


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("rows", [8, 16])
def test_batches_know_the_targets_of_their_optimiser_step(rows: int, tmp_path: Path) -> None:
    data = toy_data(tmp_path, "toyrecall", batch_size=4, rows=rows, interval=24, max_samples=40)
    for epoch, samples in ((0, 24), (1, 16)):
        batches = list(data.train_dataloader(epoch))
        assert len(batches) == samples // 4
        for first in range(0, len(batches), rows // 4):
            step = batches[first : first + rows // 4]
            targets = sum(int((batch.labels != IGNORE).sum()) for batch in step)
            assert [int(batch.step_targets) for batch in step] == [targets] * len(step)


@pytest.mark.usefixtures("toys")
def test_devices_load_their_share_of_every_interval(tmp_path: Path) -> None:
    def inputs(rank: int, world: int, epoch: int) -> list[list[int]]:
        data = toy_data(tmp_path, "toyregression", batch_size=4, rows=8, seed=3, interval=16, max_samples=40)
        loader = data.train_dataloader(epoch, rank, world)
        assert loader.batches_per_step == max(8 // (4 * world), 1)
        return [row for batch in loader for row in batch.inputs.tolist()]

    whole = [inputs(0, 1, epoch) for epoch in range(3)]
    assert [len(interval) for interval in whole] == [16, 16, 8]
    for world in (2, 4):
        shares = [[inputs(rank, world, epoch) for epoch in range(3)] for rank in range(world)]
        assert shares == [[interval[rank::world] for interval in whole] for rank in range(world)]
    alone = toy_data(tmp_path, "toyregression", batch_size=4, seed=3, max_samples=40)
    assert [row for batch in alone.train_dataloader() for row in batch.inputs.tolist()] == [
        row for interval in whole for row in interval
    ]


@pytest.mark.usefixtures("toys")
def test_evaluation_reads_a_split_in_its_order_and_longer_examples_in_smaller_batches(tmp_path: Path) -> None:
    data = toy_data(tmp_path, "toyrecall", eval_batch_size=16, val_limit=20)
    state = torch.get_rng_state()
    sizes = {split: [len(b.inputs) for b in data.eval_dataloader(split)] for split in ("test", "length_generalization")}
    assert sizes == {"test": [16, 16, 8], "length_generalization": [2] * 20}
    assert [len(batch.inputs) for batch in data.val_dataloader()] == [16, 4]
    assert [len(batch.inputs) for batch in data.eval_dataloader("test", 5)] == [5]
    for batch, question in zip(
        data.eval_dataloader("test", 3), [data.dataset("test")[i] for i in range(3)], strict=False
    ):
        assert batch.inputs[0, : len(question.ids)].tolist() == question.ids.tolist()
    assert torch.equal(state, torch.get_rng_state())  # of which the model has the use
    assert [len(loader.dataset) for loader in Loaders(data).test_dataloader()] == [40, 40]
    assert data.test_splits == ("test", "length_generalization")
    assert toy_data(tmp_path, "toyrecall", length_generalization=False).test_splits == ("test",)
    assert toy_data(tmp_path, "toytask").test_splits == ("test",)
    small = toy_data(tmp_path, "toyrecall", eval_batch_size=7)
    assert [len(batch.inputs) for batch in small.eval_dataloader("length_generalization")] == [1] * 40


@pytest.mark.usefixtures("toys")
def test_the_majority_baseline_is_the_test_accuracy_of_the_most_frequent_training_label(tmp_path: Path) -> None:
    data = toy_data(tmp_path, "toytask")
    labels = {split: [label for _, label in data.dataset(split).rows] for split in ("train", "test")}
    assert data.labels("train").tolist() == labels["train"]
    frequent = max((0, 1), key=labels["train"].count)
    assert data.majority() == labels["test"].count(frequent) / 40
    assert data.view("test", 3) == " ".join(map(str, data.dataset("test")[3][0]))
    assert (data.groups("test"), data.lengths("test"), data.left_out()) == ([], None, [])


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("values", [False, True])
def test_examples_of_classes_are_padded_on_the_right_with_zeros(values: bool, pairs: bool) -> None:
    rows = [np.arange(1, n + 1) for n in (3, 5, 1)]
    arrays = [(np.stack([row, row[::-1]]) if pairs else row) for row in rows]
    made = collate(
        [(a.astype(np.float32) if values else a.astype(np.int32), np.int32(i)) for i, a in enumerate(arrays)]
    )
    expected = [np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 5 - a.shape[-1])]) for a in arrays]
    assert made.inputs.dtype == (torch.float32 if values else torch.int64)
    assert made.inputs.tolist() == np.stack(expected).tolist()
    assert (made.labels.dtype, made.labels.tolist()) == (torch.int64, [0, 1, 2])
    assert made.mask is not None
    assert made.mask.tolist() == (np.stack(expected) != 0).tolist()
    assert int(made.n_tokens) == 9 * (1 + pairs)
    assert int(made.n_targets) == 3
    if not pairs:
        whole = collate([(arrays[1], 0), (arrays[1], 1)])
        assert (whole.mask, whole.labels.tolist()) == (None, [0, 1])
        zero = collate([(np.zeros(2, np.float32), 0), (np.zeros(1, np.float32), 1)])
        assert zero.mask is not None
        assert zero.mask.tolist() == [[True, True], [True, False]]  # a value of 0 is no pad
