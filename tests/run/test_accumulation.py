"""Gradients of an optimiser step do not depend on how its batch is shared out over micro-batches and devices."""

from __future__ import annotations

import socket
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from tests.run.conftest import resolve_one
from zoo.run.execute import build_module, open_data
from zoo.run.pool import Pool
from zoo.run.worker import POLL
from zoo.spec.registry import registry

pytestmark = pytest.mark.usefixtures("toys")

BATCH = 16
EXACT = {"train.precision": "64-true", "train.batch_size": BATCH, "model.dropout": 0.0}
CASES = {
    "classification": ("toy", "toytask", {}),
    "pair classification": ("toy", "toypairs", {}),
    "real numbers": ("toy", "toyregression", {}),
    "a label per token": ("transformer", "toyrecall", {"task.form": "marked"}),
    "answers": ("transformer", "toyrecall", {"task.form": "continuation", "model.mode": "causal"}),
    "infilling": ("transformer", "toyrecall", {"task.form": "continuation", "model.mode": "bidirectional"}),
    "seq2seq": ("longt5", "toyrecall", {"task.form": "continuation", "model.mode": "seq2seq"}),
    "running text": ("transformer", "toytext", {"task.ragged": True}),
    "running text with a state": ("transformer_xl", "toytext", {"task.ragged": True, "segments.length": 4}),
    "outputs for the last positions only": ("perceiver", "toytext", {"task.ragged": True, "arch.n_latents": 4}),
    "auxiliary losses": ("compressive", "toytext", {"task.ragged": True, "segments.length": 4, "arch.mem_len": 4}),
    "auxiliary losses of classes": ("compressive", "toytask", {"segments.length": 4, "arch.mem_len": 4}),
}


def gradients(case: str, micro: int, rank: int = 0, devices: int = 1) -> dict[str, Tensor]:
    """The gradient of one step as Lightning computes it: the mean over the micro-batches, then over the devices."""
    arch, task, settings = CASES[case]
    overrides = EXACT | settings | {"train.micro_batch_size": micro, "train.devices": devices}
    options = registry().architecture(arch).record.load_config()
    overrides |= {f"arch.{name}": 0.0 for name in vars(options()) if "dropout" in name}
    module = build_module(resolve_one(arch, task, protocol="smoke", overrides=overrides)).double().train()
    data = open_data(module.experiment, module.schedule)
    module.setup_metrics(data)
    accumulate = module.schedule.accumulate
    for index, batch in zip(range(accumulate), data.train_dataloader(0, rank, devices), strict=False):
        (module.training_step(batch, index) / accumulate).backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    if devices > 1:
        for gradient in found.values():
            distributed.all_reduce(gradient)
            gradient /= devices
    return found


def check_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-9, atol=1e-12 * scale, msg=lambda m, name=name: f"{name}: {m}"
        )


@cache
def gradients_of_the_whole(case: str) -> dict[str, Tensor]:
    return gradients(case, BATCH)


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_a_batch_are_those_of_its_micro_batches(case: str) -> None:
    whole = gradients_of_the_whole(case)
    assert any(gradient.any() for gradient in whole.values())
    for micro in (4, 1):
        check_equal(gradients(case, micro), whole)


def device(report: object, *, rank: int, port: int, folder: str) -> None:
    """One of two devices: every case's gradients into a file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found: dict[str, Any] = {f"{case} {micro}": gradients(case, micro, rank, 2) for case in CASES for micro in (8, 2)}
    torch.save(found, f"{folder}/{rank}.pt")


def test_gradients_of_two_devices_are_those_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    function = f"{device.__module__}:{device.__name__}"
    with Pool() as pool:
        workers = [
            pool.start({"call": function, "arguments": {"rank": rank, "port": port, "folder": str(tmp_path)}})
            for rank in range(2)
        ]
        while not all(worker.poll() for worker in workers):
            time.sleep(POLL)
        assert [worker.reply() for worker in workers] == [{"value": None}] * 2
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for case in CASES:
        for micro in (8, 2):
            check_equal(first[f"{case} {micro}"], gradients_of_the_whole(case))
            check_equal(second[f"{case} {micro}"], gradients_of_the_whole(case))
