"""Measure what one more token costs after contexts of growing length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from zoo.data.batch import Batch
from zoo.data.bench import time_passes
from zoo.nn.backbone import Backbone, State
from zoo.nn.state import leaves, return_state
from zoo.run import provenance
from zoo.run.callbacks import Report
from zoo.run.recording import identity
from zoo.run.rundir import now
from zoo.run.throughput import built, others_busy
from zoo.spec.cost import machine_name
from zoo.spec.generation import GenerationCost

SECONDS = 0.5
"""How long the latency is measured at each length."""


@torch.inference_mode()
def measure_generation(
    report: Report, *, experiment: dict[str, Any], contexts: Sequence[int], latency: bool
) -> dict[str, Any]:
    """A record of an experiment's architecture, as JSON values: the state of one text after each number of tokens,
    which ascend, and with `latency` how long the next one takes. The weights are random, which costs the same."""
    with built(experiment) as module:
        measured, model = module.experiment, module.model
        dims = replace(measured.dims, max_len=max(measured.dims.max_len, contexts[-1] + 1))
        backbone = measured.arch_spec.build(measured.arch_config, dims).eval()
        step = Batch(torch.randn(1, dims.d_model), None, torch.zeros(1, dtype=torch.int64))
        points: list[dict[str, Any]] = []
        state: State = None
        read = 0
        with return_state(True), others_busy() as others:
            for context in contexts:
                state = backbone(torch.randn(1, context - read, dims.d_model), state=state).state
                read = context
                point: dict[str, Any] = {"context": context, "state_bytes": state_bytes(state)}
                if latency:
                    point["latency"] = asdict(time_passes(partial(_step, backbone, state), [step], SECONDS))
                points.append(point)
    described = identity(measured)
    computing = provenance.computing(measured.train)
    cost = GenerationCost.model_validate(
        {
            "architecture": described["architecture"],
            "task": measured.task_spec.name,
            "protocol": measured.protocol,
            "config": {"arch": measured.config["arch"], "model": measured.config["model"]},
            "shape": measured.shape,
            "parameters": sum(p.numel() for p in model.parameters()),
            "points": tuple(points),
            **({"machine": machine_name(computing), "others": round(others[0], 2)} if latency else {}),
            "versions": provenance.versions(),
            "measured": now(),
        },
        strict=False,
    )
    return cost.model_dump(mode="json")


def _step(backbone: Backbone, state: State, batch: Batch) -> None:
    backbone.step(batch.inputs, state)


def state_bytes(state: State) -> int:
    """The bytes of every tensor of a state."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(state))
