"""A run measures what it says: the best weights, states that begin where an interval does, every token that is read."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.run.conftest import resolve_one
from zoo import bench
from zoo.board.checks import record_faults
from zoo.data.batch import Batch
from zoo.data.questions import IGNORE
from zoo.run.callbacks import Checkpoints, TimeLimit
from zoo.run.execute import build_module, execute, open_data
from zoo.run.optim import schedule_factor
from zoo.run.request import BenchRequest, plan
from zoo.spec.record import Record, comparable, unpack_bits
from zoo.spec.store import StoredRecord

pytestmark = pytest.mark.usefixtures("toys")


def run(tmp_path: Path, arch: str, task: str, **options: Any) -> Record:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    ((_, record),) = bench(arch, task, **folders, **options)
    assert (record.status, record.error) == ("ok", "")
    return record


def test_the_weights_that_were_best_on_validation_are_tested_not_the_last(tmp_path: Path) -> None:
    overrides = {"optim.lr": 0.3, "optim.lr_scheduler": "constant", "train.val_every": 32, "train.max_samples": 128}
    record = run(tmp_path, "toy", "toytask", overrides=overrides)
    validated = [point for point in record.history if point.split == "val"]
    best = max(validated, key=lambda point: point.metric or 0.0)
    assert best.step < validated[-1].step, "a test of nothing: the last weights are the best"
    assert record.metrics is not None
    assert record.metrics.val.scores["accuracy"] == best.metric

    experiment = resolve_one("toy", "toytask", overrides=overrides)
    model = build_module(experiment)
    data = open_data(experiment, model.schedule)
    (weights,) = (tmp_path / "runs").rglob("model.safetensors")
    model.model.load_state_dict(load_file(weights))
    model.eval()
    with torch.no_grad():
        outputs = [model.model(batch) for batch in data.eval_dataloader("test")]
    logits, labels = (torch.cat(parts) for parts in zip(*((o.logits, o.labels) for o in outputs), strict=True))
    assert record.metrics.test.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    accuracy = (logits.argmax(-1) == labels).double().mean().item()
    assert record.metrics.test.scores["accuracy"] == pytest.approx(accuracy)


def test_the_learning_rate_moves_with_every_step_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.run.rundir.RunDir._keep_model", lambda *_: False)  # or the checkpoint would be dropped
    overrides = {"optim.lr": 0.01, "optim.warmup_ratio": 0.25, "train.max_samples": 64, "train.val_every": 32}
    run(tmp_path, "toy", "toytask", protocol="smoke", overrides=overrides)
    (path,) = (tmp_path / "runs").rglob("best.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    settings = resolve_one("toy", "toytask", protocol="smoke", overrides=overrides).optim
    expected = 0.01 * schedule_factor(checkpoint["global_step"], steps=8, settings=settings)
    assert checkpoint["global_step"] in (4, 8)
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        assert group["lr"] == pytest.approx(expected)


def test_a_step_tells_the_backbone_its_number_and_shows_the_loss_with_its_auxiliary_part() -> None:
    settings = {"segments.length": 4, "arch.mem_len": 4, "train.micro_batch_size": 4}
    module = build_module(resolve_one("compressive", "toytext", protocol="smoke", overrides=settings))
    data = open_data(module.experiment, module.schedule)
    module.setup_metrics(data)
    module._trainer = SimpleNamespace(global_step=5)
    told: list[int] = []
    module.model.encoder.backbone.on_step = told.append
    batch = next(iter(data.train_dataloader()))
    module.on_train_batch_start(batch, 0)
    assert told == [5]
    asked = torch.full_like(batch.labels, IGNORE)
    asked[0, 0] = batch.labels[0, 0]
    only = batch._replace(labels=asked, step_targets=torch.tensor(1))  # the only target of the two batches of a step
    output = module.model(only)
    loss, aux = module.kind.loss(output).detach(), sum(output.aux.values()).detach()
    assert aux > 0
    returned = module.training_step(only, 0)
    assert float(module.loss) == pytest.approx(float(loss + aux))
    assert float(returned.detach()) == pytest.approx(float(2 * loss + aux))
    assert int(module.tokens) == batch.inputs.numel()


def test_micro_batches_carry_the_states_of_texts_of_their_own(tmp_path: Path) -> None:
    def losses(micro: int) -> list[float | None]:
        overrides = {"train.micro_batch_size": micro, "train.precision": "64-true"}
        record = run(tmp_path / str(micro), "mamba", "toytext", protocol="smoke", overrides=overrides)
        return [point.loss for point in record.history]

    assert losses(2) == pytest.approx(losses(8), rel=1e-9)


def test_an_interval_adds_a_point_of_training_and_one_of_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    now, logged = [100.0], []
    monkeypatch.setattr("zoo.run.module.time", SimpleNamespace(monotonic=lambda: now[0]))
    module = build_module(resolve_one("toy", "toytask", protocol="smoke"))
    module._trainer = SimpleNamespace(global_step=2)
    scores = {"train": {"loss": 0.5, "scores": {"accuracy": 0.75}}}
    scores["val"] = {"loss": 0.25, "scores": {"accuracy": 0.875, "other": 0.0}}
    monkeypatch.setattr(module, "scores", scores.__getitem__)
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.append(values))
    for train, val in ((1.5, 0.25), (2.0, 0.50049)):
        module.on_train_epoch_start()
        now[0] += train
        module.on_validation_epoch_start()
        now[0] += val
        module.on_validation_epoch_end()
        now[0] += 1e3  # checkpoints and what else is neither training nor evaluation
    common = {"step": 2, "samples": 16}
    train_point = common | {"split": "train", "loss": 0.5, "metric": 0.75}
    val_point = common | {"split": "val", "loss": 0.25, "metric": 0.875}
    seconds = (1.5, 1.75, 3.75, 4.25)
    points = (train_point, val_point, train_point, val_point)
    assert module.history == [point | {"seconds": s} for point, s in zip(points, seconds, strict=True)]
    assert module.seconds == pytest.approx({"train": 3.5, "eval": 0.75049})
    assert (module.val_metric, module.val_scores) == ("accuracy", {2: scores["val"]})
    assert logged == 2 * [{"val/accuracy": 0.875, "val/loss": 0.25}]
    module.tokens = torch.tensor(7)
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    resumed = build_module(module.experiment)
    resumed.on_load_checkpoint(checkpoint)
    for name in ("history", "tokens", "seconds", "val_scores"):
        assert getattr(resumed, name) == getattr(module, name)


@pytest.mark.parametrize(
    ("task", "by_loss", "metrics", "losses", "best"),
    [
        ("toytask", False, [0.2, 0.7, 0.7, 0.5], [1.0, 4.0, 3.0, 2.0], 2),  # the higher the better
        ("toyregression", False, [2.0, 0.5, 0.5, 0.7], [1.0, 4.0, 3.0, 2.0], 2),  # the lower the better
        ("toyregression", True, [2.0, 0.5, 0.5, 0.7], [5.0, 4.0, 3.0, 3.0], 3),
    ],
)
def test_the_best_weights_are_those_of_the_earliest_best_validation(
    task: str, by_loss: bool, metrics: list[float], losses: list[float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build_module(resolve_one("toy", task, protocol="smoke"))
    monkeypatch.setattr(type(module.kind), "selects_by_loss", by_loss)
    assert module.best is None
    for step, (metric, loss) in enumerate(zip(metrics, losses, strict=True), 1):
        better = 9.0 if task == "toytask" else 0.0
        module.history.append({"split": "train", "step": step, "loss": 0.0, "metric": better})
        module.history.append({"split": "val", "step": step, "loss": loss, "metric": metric})
    assert module.best == {"split": "val", "step": best, "loss": losses[best - 1], "metric": metrics[best - 1]}


def test_the_random_state_of_an_interval_is_a_function_of_seed_and_step() -> None:
    def draw(seed: int, step: int) -> float:
        module = build_module(resolve_one("toy", "toytask", protocol="smoke", seeds=[seed]))
        module._trainer = SimpleNamespace(global_step=step)
        torch.rand(3)
        module.on_train_epoch_start()
        return torch.rand(()).item()

    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2**31, 1)]
    assert len({draw(*place) for place in places}) == len(places)
    assert [draw(*place) for place in places] == [draw(*place) for place in places]


SCHEDULES = {
    "plain": ({}, (5, 1, 32, 1, 32, 32)),
    "micro": ({"train.micro_batch_size": 4}, (5, 1, 32, 8, 4, 4)),
    "devices": ({"train.micro_batch_size": 4, "train.devices": 2, "train.num_nodes": 2}, (5, 1, 32, 2, 4, 4)),
    "share": ({"train.devices": 2, "train.eval_batch_size": 3}, (5, 1, 32, 1, 16, 3)),
    "ten": ({"train.max_samples": 32 * 31}, (31, 4, 32, 1, 32, 32)),
    "every": ({"train.max_samples": 32 * 25, "train.val_every": 33}, (25, 2, 32, 1, 32, 32)),
    "seldom": ({"train.max_samples": 32 * 25, "train.val_every": 10_000}, (25, 25, 32, 1, 32, 32)),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_a_schedule_counts_steps_intervals_and_samples_as_the_settings_say(case: str) -> None:
    """Unless `val_every` says otherwise, a tenth of the run lies between two validations."""
    settings, expected = SCHEDULES[case]
    common = {"train.batch_size": 32, "train.max_samples": 160, "train.val_every": 0}
    schedule = build_module(resolve_one("toy", "toytask", protocol="smoke", overrides=common | settings)).schedule
    assert astuple(schedule)[:-1] == expected
    assert schedule.intervals == -(-schedule.steps // schedule.steps_per_interval)


def test_no_state_is_carried_into_an_interval_so_a_run_cut_between_two_goes_on_to_the_same_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy's texts have three pieces, and an interval reads two: its end lies within every text."""
    whole = run(tmp_path / "whole", "mamba", "toytext", protocol="smoke")
    save = Checkpoints.on_train_epoch_end

    def save_and_stop(self: Checkpoints, trainer: Any, module: Any) -> None:
        save(self, trainer, module)
        raise TimeLimit("the first interval is over")

    folders = {"results": tmp_path / "cut" / "results", "runs": tmp_path / "cut" / "runs"}
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "on_train_epoch_end", save_and_stop)
        ((_, cut),) = bench("mamba", "toytext", protocol="smoke", **folders)
    assert cut.status == "timeout"
    assert len([point for point in cut.history if point.split == "val"]) == 1
    resumed = run(tmp_path / "cut", "mamba", "toytext", protocol="smoke")
    assert comparable(resumed) == comparable(whole)


def test_tokens_of_a_batch_are_those_that_encoder_and_decoder_read() -> None:
    inputs, mask = torch.ones(2, 5, dtype=torch.int64), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    labels = torch.tensor([[4, 5, 6], [4, 6, IGNORE]])
    assert int(Batch(inputs, None, labels).n_tokens) == 10
    assert int(Batch(inputs, mask, labels).n_tokens) == 8
    assert int(Batch(inputs, mask, labels, target=labels.clamp(min=0)).n_tokens) == 8 + 5


@pytest.mark.parametrize("arch", ["longt5", "transformer"])
def test_a_record_counts_the_target_tokens_of_encoder_decoders(tmp_path: Path, arch: str) -> None:
    overrides = {"train.max_samples": 16, "train.val_every": 16, "task.form": "continuation"}
    record = run(tmp_path, arch, "toyrecall", protocol="smoke", overrides=overrides)
    experiment = resolve_one(arch, "toyrecall", protocol="smoke", overrides=overrides)
    assert (experiment.objective == "seq2seq") == (arch == "longt5")
    expected = 0
    for batch in open_data(experiment, build_module(experiment).schedule).train_dataloader():
        expected += batch.inputs.numel() if batch.mask is None else int(batch.mask.sum())
        if batch.target is not None:
            expected += int((batch.labels != IGNORE).sum())
    assert record.tokens == expected


@pytest.mark.parametrize(("task", "name"), [("toytask", "accuracy"), ("toyrecall", "exact"), ("toypairs", "accuracy")])
def test_a_record_says_which_questions_were_answered_right_in_the_order_of_the_split(
    tmp_path: Path, task: str, name: str
) -> None:
    folders = {"results": str(tmp_path / "results"), "runs": str(tmp_path / "runs")}
    (job,) = plan(BenchRequest.parse("toy", task, protocol="smoke", **folders))
    record = execute(job).record
    assert record.metrics is not None
    module = build_module(job.experiment)
    data = open_data(job.experiment, module.schedule)
    module.model.load_state_dict(load_file(next(Path(job.runs).rglob("model.safetensors"))))
    collate = job.experiment.kind.build_collate_fn(data)
    for split, metrics in dict(record.metrics).items():
        if split == "val":
            assert metrics.right is None
            continue
        if metrics is None:
            continue
        expected = []
        for example in data.dataset(split):
            output = module.model.eval()(collate([example]))
            expected.append(bool((output.logits.argmax(-1) == output.labels).all()))
        assert unpack_bits(metrics.right, metrics.n) == expected
        scores = metrics.scores
        assert sum(expected) == pytest.approx(scores.get(name, scores["accuracy"]) * metrics.n, abs=1e-3)
    stored = StoredRecord(f"{record.id}.json", record)
    assert not record_faults(stored)


def test_running_text_has_no_right_answers(tmp_path: Path) -> None:
    folders = {"results": str(tmp_path / "results"), "runs": str(tmp_path / "runs")}
    (job,) = plan(BenchRequest.parse("toy", "toytext", protocol="smoke", **folders))
    metrics = execute(job).record.metrics
    assert metrics is not None
    assert metrics.test.right is None
