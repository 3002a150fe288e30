"""Estimate what a training step needs, and what the machine has, before anything is trained."""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import Tensor, nn

from zoo.run import machine
from zoo.run.compose import Experiment
from zoo.run.module import Schedule
from zoo.run.validate import remedy

ADAM = 4
"""Copies of the parameters: weights, gradients and two moments."""


def warn_of_memory(experiment: Experiment, model: nn.Module) -> int:
    """Bytes that a step's micro-batch needs at least; prints a line when they cannot fit into what memory there is."""
    micro = Schedule.of(experiment).micro_batch_size
    scale = {"64-true": 2.0, "bf16-mixed": 0.5, "16-mixed": 0.5}.get(experiment.train.precision, 1.0)
    example = int(scale * saved_bytes(experiment, model))
    needed = micro * example + ADAM * sum(p.numel() * p.element_size() for p in model.parameters())
    there = available_bytes("cuda" if _uses_cuda(experiment) else "cpu")
    if needed > there:
        print(
            f"zoo: {experiment.name} needs more than {needed / 2**30:.1f} GiB for {micro} examples at once "
            f"({example / 2**30:.2f} GiB each), and {there / 2**30:.1f} GiB are free{remedy(experiment)}",
            file=sys.stderr,
        )
    return needed


def _uses_cuda(experiment: Experiment) -> bool:
    return experiment.train.accelerator != "cpu" and torch.cuda.is_available()


def saved_bytes(experiment: Experiment, model: nn.Module) -> int:
    """Bytes that one example's forward pass in training keeps for backward: a lower bound of what a step needs."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch, training = experiment.kind.example_batch(experiment.model_spec), model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    # an estimate that fails says nothing: one example may be too few for batch statistics
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    with torch.random.fork_rng(), contextlib.suppress(Exception), hooks:
        model.train()(batch)
    model.train(training)
    for buffer, before in buffers:
        buffer.copy_(before)
    return sum(kept.values())


def available_bytes(device: str) -> int:
    """Free memory of the GPU, or of this machine."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else machine.available_bytes()
