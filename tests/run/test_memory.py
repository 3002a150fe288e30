"""What a step needs is estimated before it is trained, and decides how many examples are held at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.run.conftest import resolve_one
from zoo.ops.backend import use_backend
from zoo.run import memory
from zoo.run.callbacks import Deadline
from zoo.run.execute import build_module, execute
from zoo.run.memory import count_forward_flops, saved_bytes
from zoo.run.request import BenchRequest, plan
from zoo.spec.registry import registry


@pytest.mark.parametrize("arch", registry().architectures)
def test_an_estimate_without_values_is_that_with_values(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = resolve_one(arch, "image", protocol="smoke", overrides={"arch.dropout": 0.1})
    model = build_module(experiment).model
    kept = saved_bytes(experiment, model)
    monkeypatch.setattr(memory, "_call", lambda *given: memory._call_without_values(*given, examples=1))
    assert saved_bytes(experiment, model) == kept > 0


def micro_batch(kept: float, monkeypatch: pytest.MonkeyPatch, arch: str = "transformer", **train: object) -> int:
    """What is chosen for a batch of 12 where a step may keep what `kept` examples do."""
    overrides = {"train.batch_size": 12} | {f"train.{key}": value for key, value in train.items()}
    experiment = resolve_one(arch, "listops", protocol="smoke", overrides=overrides)
    example = saved_bytes(experiment, build_module(experiment).model)
    monkeypatch.setattr(memory, "KEPT", int(kept * example))
    return build_module(experiment).schedule.micro_batch_size


@pytest.mark.parametrize(("kept", "micro"), [(12.5, 12), (11.9, 6), (5.5, 4), (0.5, 1)])
def test_a_micro_batch_is_the_most_that_divides_the_batch_and_fits(
    kept: float, micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert micro_batch(kept, monkeypatch) == micro


def test_a_configured_micro_batch_and_batch_norm_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert micro_batch(1.5, monkeypatch, micro_batch_size=6) == 6
    monkeypatch.setattr(memory, "_has_batch_norm", lambda model: any(isinstance(m, nn.Linear) for m in model.modules()))
    assert micro_batch(1.5, monkeypatch) == 12


def test_batch_norm_of_a_model_is_seen() -> None:
    assert memory._has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert not memory._has_batch_norm(nn.Linear(2, 2))


@pytest.mark.usefixtures("toys")
def test_a_record_has_the_micro_batch_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT", 1)
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    (job,) = plan(BenchRequest.parse("toy", "toytask", protocol="smoke", **folders))
    record = execute(job).record
    assert (record.status, record.micro_batch_size) == ("ok", 1)
    assert record.config["train"]["micro_batch_size"] == 0


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("moment", ["forward", "backward"])
def test_a_time_limit_ends_a_run_within_a_batch(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only within the first batch: it is over after the model's forward, or in its backward."""
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    (job,) = plan(BenchRequest.parse("toy", "toytask", protocol="smoke", max_time=1e6, **folders))
    look, reached = Deadline._check, []

    def check(self: Deadline, *arguments: object) -> None:
        within = "backward" if arguments and isinstance(arguments[0], torch.Tensor) else "forward"
        if self._hook is not None and within == moment and len(reached) < 5:
            reached.append(within)
            self.seconds = -1.0
        look(self)

    monkeypatch.setattr(Deadline, "_check", check)
    record = execute(job).record
    assert (record.status, record.samples, record.history) == ("timeout", 0, ())
    assert reached == [moment]


def test_flops_are_those_of_every_form_of_attention() -> None:
    """The CPU's fused attention is counted as the plain matrix products are."""
    counts = []
    for backend in ("torch", "reference"):
        with use_backend(backend):
            experiment = resolve_one("transformer", "listops", protocol="smoke")
            module = build_module(experiment)
            counts.append(count_forward_flops(experiment, module.model))
    assert counts[0] == counts[1]
    sizes, seq_len = experiment.model, experiment.seq_len
    assert counts[0] > sizes.n_layers * 4 * seq_len**2 * sizes.d_model
