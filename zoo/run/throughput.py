"""Loading beside training: samples per second of a task's loader and of one architecture's training step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from zoo.data.bench import measure_loading, measure_step
from zoo.data.module import Batch
from zoo.data.progress import quiet
from zoo.ops.backend import use_backend
from zoo.run.compose import Experiment
from zoo.run.execute import build, on_gpu, open_data
from zoo.run.module import Training
from zoo.run.optim import build_optimizer
from zoo.run.sweep import resolve

KEPT = 8
"""Batches that the step is measured on."""


def measure(arch: str, task: str, protocol: str, overrides: Sequence[str], seconds: float) -> dict[str, Any]:
    """A row of `zoo data bench`.

    first batch s   from opening the prepared data to their first batch
    ratio           loader's samples/s over those of the step: below 1, training waits for data
    grew MB         memory that this process took while it loaded
    """
    experiment = resolve(arch, task, protocol=protocol, overrides=overrides)[0]
    with use_backend(experiment.tree.train.op_backend):
        training = build(experiment)
        open_data(experiment, training.budget, None)  # what is not prepared is prepared now
        began = time.perf_counter()
        with quiet():
            data = open_data(experiment, training.budget, training)
            data.round_of = lambda: (0, training.budget.steps * training.budget.batch_size)
            opened = time.perf_counter() - began
            found = measure_loading(data.train_dataloader(), seconds)
            batches = list(islice(data.train_dataloader(), KEPT))
        step = _Step(experiment, training)
        steps = measure_step(step, batches, seconds)
    return {
        "task": task,
        "arch": arch,
        "protocol": protocol,
        "batch": training.budget.micro_batch,
        "workers": data.num_workers,
        "first batch s": round(opened + found.first_seconds, 3),
        "samples/s": round(found.samples_per_second, 1),
        "tokens/s": round(found.tokens_per_second),
        "step samples/s": round(steps, 1),
        "ratio": round(found.samples_per_second / steps, 2),
        "loaded samples": found.samples,
        "grew MB": round(found.megabytes, 1),
        "device": str(step.device),
    }


@dataclass
class _Step:
    """Forward, backward and optimiser on one batch, in the precision of the run."""

    experiment: Experiment
    training: Training

    def __post_init__(self) -> None:
        self.device = torch.device("cuda" if on_gpu(self.experiment) else "cpu")
        self.wide = self.experiment.tree.train.precision == "64-true"
        self.training.to(self.device, torch.float64 if self.wide else None).train()
        settings = self.experiment.tree.optim
        self.optimizer, _ = build_optimizer(self.training.model, settings, self.training.budget.steps)
        self.clip = settings.gradient_clip_val
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.experiment.tree.train.precision)
        self.cast = torch.autocast(self.device.type, half) if half else contextlib.nullcontext()

    def __call__(self, batch: Batch) -> None:
        moved = Batch(*(part if part is None else part.to(self.device) for part in batch))  # type: ignore[arg-type]
        if self.wide and moved.inputs.is_floating_point():
            moved = moved._replace(inputs=moved.inputs.double())
        self.optimizer.zero_grad()
        with self.cast:
            loss = self.training.training_step(moved, 0)
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.training.parameters(), self.clip)
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
