"""Measure samples per second of a task's loader beside those of an architecture's training step."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from zoo.data.batch import Batch
from zoo.data.bench import measure_loading, measure_step
from zoo.data.progress import quiet
from zoo.ops.backend import use_backend
from zoo.run.compose import Experiment
from zoo.run.execute import build_module, open_data
from zoo.run.memory import on_gpu
from zoo.run.module import ExperimentModule
from zoo.run.optim import build_optimizer

KEPT = 8
"""Batches that the step is measured on."""


def measure(experiment: Experiment, seconds: float) -> dict[str, Any]:
    """A row of `zoo data bench`.

    first batch s   from opening the prepared data to their first batch
    ratio           loader's samples/s over those of the step: below 1, training waits for data
    grew MB         memory that this process took while it loaded
    """
    with use_backend(experiment.train.op_backend):
        module = build_module(experiment)
        schedule = module.schedule
        open_data(experiment, schedule)  # what is not prepared is prepared now
        began = time.perf_counter()
        with quiet():
            data = open_data(experiment, schedule, interval=schedule.steps * schedule.batch_size)
            opened = time.perf_counter() - began
            loader = measure_loading(data.train_dataloader(), seconds)
            batches = list(islice(data.train_dataloader(), KEPT))
        module.setup_metrics(data)
        step = _Step(module)
        steps_rate = measure_step(step, batches, seconds)
    return {
        "task": experiment.task,
        "arch": experiment.architecture,
        "protocol": experiment.protocol,
        "batch": schedule.micro_batch_size,
        "workers": data.loading.num_workers,
        "first batch s": round(opened + loader.first_seconds, 3),
        "samples/s": round(loader.samples_per_second, 1),
        "tokens/s": round(loader.tokens_per_second),
        "step samples/s": round(steps_rate, 1),
        "ratio": round(loader.samples_per_second / steps_rate, 2),
        "loaded samples": loader.samples,
        "grew MB": round(loader.megabytes, 1),
        "device": str(step.device),
    }


@dataclass
class _Step:
    """Forward, backward and optimiser on one batch, in the precision of the run."""

    module: ExperimentModule

    def __post_init__(self) -> None:
        experiment = self.module.experiment
        self.device = torch.device("cuda" if on_gpu(experiment) else "cpu")
        precision = experiment.train.precision
        self.float64 = precision == "64-true"
        self.module.to(self.device, torch.float64 if self.float64 else None).train()
        self.optimizer, _ = build_optimizer(self.module.model, experiment.optim, self.module.schedule.steps)
        self.clip = experiment.optim.gradient_clip_val
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
        self.autocast = torch.autocast(self.device.type, half) if half else contextlib.nullcontext()

    def __call__(self, batch: Batch) -> None:
        moved = Batch(*(part if part is None else part.to(self.device) for part in batch))  # type: ignore[arg-type]
        if self.float64 and moved.inputs.is_floating_point():
            moved = moved._replace(inputs=moved.inputs.double())
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.module.training_step(moved, 0)
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
