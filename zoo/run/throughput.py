"""Time an architecture's training step and forward pass on a task's batches, alone or beside the task's loader."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

import psutil
import torch
from torchmetrics import Metric

from zoo.data.batch import Batch
from zoo.data.bench import measure_loading, memory_growth, take_batches, time_passes
from zoo.data.cached import CachedData
from zoo.data.progress import quiet
from zoo.nn.state import return_state
from zoo.ops.backend import forms_that_ran, use_backend
from zoo.run import provenance
from zoo.run.callbacks import Report
from zoo.run.compose import Experiment
from zoo.run.execute import build_module, load_data, op_backend_errors, open_data, quiet_libraries
from zoo.run.memory import available_bytes, needed_bytes, on_gpu
from zoo.run.module import ExperimentModule
from zoo.run.optim import build_optimizer
from zoo.run.recording import identity
from zoo.run.rundir import now
from zoo.spec.cost import CostRecord, machine_name

KEPT = 8
"""Batches that `zoo data bench` measures the step on."""
TRAIN_SECONDS, EVAL_SECONDS, FORWARD_SECONDS = 2.5, 1.0, 0.15
"""How long the cost of training and of inference is measured, and how long one pass of inference takes of that."""


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
        step = TrainStep(module)
        steps_rate = 1 / time_passes(step, batches, seconds).seconds
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


def measure_cost(report: Report, *, experiment: dict[str, Any], command: str) -> dict[str, Any]:
    """A cost record of an experiment, as JSON values: its training step and its forward pass on real batches, in this
    process, which must have done nothing else."""
    with built(experiment) as module:
        measured, schedule = module.experiment, module.schedule
        data = open_data(measured, schedule, interval=schedule.steps * schedule.batch_size)
        module.setup_metrics(data)
        forward = EvalStep(module)
        batches = take_batches(forward, data.train_dataloader(), FORWARD_SECONDS)
        step = TrainStep(module)
        with _memory_growth(forward.device) as memory:  # apart, because looking takes time
            for batch in [*batches, *batches]:
                step(batch)
        with others_busy() as others:
            train = time_passes(step, batches, TRAIN_SECONDS)
            inference = time_passes(forward, batches, EVAL_SECONDS)
    examples = sum(batch.inputs.shape[0] for batch in batches)
    places = sum(batch.n_places + (0 if batch.target is None else batch.target.numel()) for batch in batches)
    computing = provenance.computing(measured.train)
    cost = CostRecord.model_validate(
        {
            **identity(measured),
            "shape": measured.shape,
            "parameters": sum(p.numel() for p in module.model.parameters()),
            "batch_size": schedule.micro_batch_size,
            "tokens": sum(int(batch.n_tokens) for batch in batches) / examples,
            "places": places / examples,
            "train": asdict(train),
            "inference": asdict(inference),
            "memory_bytes": int(memory[0]),
            "others": round(others[0], 2),
            "op_backends": forms_that_ran(),
            "hardware": provenance.hardware() | computing,
            "machine": machine_name(computing),
            "versions": provenance.versions(),
            "git": provenance.git_state(),
            "command": command,
            "measured": now(),
        }
    )
    return cost.model_dump(mode="json")


def time_steps(report: Report, *, experiment: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What a run needs, from a few steps of its shape that take about `seconds`: on its own examples where they are
    prepared, else on random ones of the full length.

    Reports what it has found so far. Of inputs that take long, fewer are taken at once than the run would.
    """
    with built(experiment) as module:
        measured, schedule, micro = module.experiment, module.schedule, module.schedule.micro_batch_size
        there = available_bytes("cuda" if on_gpu(measured) else "cpu")
        memory = needed_bytes(measured, module.model, micro, schedule.example_bytes, there)
        found: dict[str, Any] = {"memory_bytes": memory, "intervals": schedule.intervals, "micro": micro}
        batches, counts = _batches(measured, module)
        report(found | counts)
        with others_busy() as others:
            found["train"], found["at_once"] = _time_examples(TrainStep(module), batches, micro, 0.7 * seconds)
        found["others"] = round(others[0], 2)
        report(found)
        found["inference"], _ = _time_examples(EvalStep(module), batches, micro, 0.3 * seconds)
    return found | counts


@contextlib.contextmanager
def built(experiment: dict[str, Any]) -> Iterator[ExperimentModule]:
    """The module of an experiment, with the threads and the backend of its run."""
    built = Experiment(**experiment)
    quiet_libraries()
    torch.set_num_threads(built.train.num_threads)
    with use_backend(built.train.op_backend), op_backend_errors(built):
        yield build_module(built)


def _batches(experiment: Experiment, module: ExperimentModule) -> tuple[list[Batch], dict[str, Any]]:
    """Batches for a few steps; whether the data are prepared, and how many examples of each split are evaluated (0: not
    known)."""
    data, schedule = load_data(experiment, module.schedule, interval=0), module.schedule
    prepared = not isinstance(data, CachedData) or data.prepared()
    options = experiment.task_options
    counts = {split: int(getattr(options, f"{split}_size", 0)) for split in ("val", "test")}
    if prepared:
        data.prepare()
        module.setup_metrics(data)
        counts = {split: data.n_examples(split) for split in ("val", *data.test_splits)}
        batches = list(islice(data.train_dataloader(), KEPT))
    else:
        module.metrics["train_scores"] = Uncounted()
        one = experiment.kind.example_batch(experiment.model_spec)
        batch = Batch._make(None if x is None else x.repeat_interleave(schedule.micro_batch_size, 0) for x in one)
        drawn = torch.rand_like if batch.inputs.is_floating_point() else partial(_random_ids, experiment.vocab_size)
        batches = [batch._replace(inputs=drawn(batch.inputs))]
    limit = experiment.train.val_limit
    counts["val"] = min(counts["val"], limit) if limit and counts["val"] else counts["val"] or limit
    return batches, {"counts": counts, "prepared": prepared}


def _random_ids(size: int, like: torch.Tensor) -> torch.Tensor:
    return torch.randint_like(like, min(1, size - 1), size)


class Uncounted(Metric):
    """Stands for the metric of a task whose data are not there."""

    def update(self, *_: Any) -> None:
        pass

    def compute(self) -> None:
        pass


def _time_examples(call: EvalStep, batches: list[Batch], micro: int, seconds: float) -> tuple[float, int]:
    """Seconds that an example takes, and how many are taken at once."""
    first = _rows(batches[0], 1)
    alone = math.inf
    for _ in range(2):  # the first call sets up much
        began = time.perf_counter()
        call(first)
        alone = time.perf_counter() - began
        if alone > seconds / 6:
            return alone, 1
    at_once = min(micro, max(1, int(seconds / 2 / alone)))  # several together take less than one by one
    taken = take_batches(call, [_rows(batch, at_once) for batch in batches], seconds / 6)
    return time_passes(call, taken, seconds / 6, least=1).seconds, at_once


def _rows(batch: Batch, n: int) -> Batch:
    """The first n examples of a batch."""
    return Batch._make(part if part is None or part.ndim == 0 else part[:n] for part in batch)


@contextlib.contextmanager
def _memory_growth(device: torch.device) -> Iterator[list[float]]:
    """How many bytes are taken within at most: allocated on a GPU, else of this process. One number, at the end."""
    grown: list[float] = []
    if device.type != "cuda":
        with memory_growth(grown):
            yield grown
        return
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield grown
    grown.append(torch.cuda.max_memory_allocated(device) - before)


@contextlib.contextmanager
def others_busy() -> Iterator[list[float]]:
    """How many cores other processes keep busy within, on average. One number, at the end."""
    found: list[float] = []

    def busy() -> float:
        every, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = every.idle + getattr(every, "iowait", 0.0) + getattr(every, "steal", 0.0)
        # guests are counted in user, too
        return sum(every[: min(len(every), 8)]) - idle - own.user - own.system

    began, before = time.perf_counter(), busy()
    yield found
    found.append(max(0.0, (busy() - before) / (time.perf_counter() - began)))


@dataclass
class EvalStep:
    """The forward pass on one batch in evaluation mode, in the precision of the run."""

    module: ExperimentModule

    def __post_init__(self) -> None:
        experiment = self.module.experiment
        self.device = torch.device("cuda" if on_gpu(experiment) else "cpu")
        precision = experiment.train.precision
        self.float64 = precision == "64-true"
        self.module.to(self.device, torch.float64 if self.float64 else None)
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
        self.autocast = torch.autocast(self.device.type, half) if half else contextlib.nullcontext()

    def __call__(self, batch: Batch) -> None:
        moved = self.move(batch)
        self.module.train(False)
        with self.autocast, torch.inference_mode(), return_state(self.module.experiment.stateful):
            self.module.model(moved)
        self.wait()

    def move(self, batch: Batch) -> Batch:
        """The batch on the device, in the precision of the run."""
        moved = Batch(*(part if part is None else part.to(self.device) for part in batch))  # type: ignore[arg-type]
        if self.float64 and moved.inputs.is_floating_point():
            moved = moved._replace(inputs=moved.inputs.double())
        return moved

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@dataclass
class TrainStep(EvalStep):
    """Forward, backward and optimiser on one batch, in the precision of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        optim = self.module.experiment.optim
        self.optimizer, _ = build_optimizer(self.module.model, optim, self.module.schedule.steps)
        self.clip = optim.gradient_clip_val

    def __call__(self, batch: Batch) -> None:
        moved = self.move(batch)
        self.module.train()
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.module.training_step(moved, 0)
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()
        self.wait()
