"""Measure what one more token costs after contexts of growing length."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from zoo.data.batch import Batch
from zoo.data.bench import time_passes
from zoo.model.generate import GrowingText, begin_text
from zoo.nn.backbone import State
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
    """A record of an experiment's architecture, as JSON values: what is carried of one text after each number of
    tokens, which ascend, and with `latency` how long the next one takes. The weights are random, which costs the
    same."""
    with built(experiment) as module:
        measured, longest = module.experiment, contexts[-1] + 1
        spec = measured.model_spec
        if not measured.arch_spec.capabilities.segment:
            spec = replace(spec, dims=replace(spec.dims, max_len=max(spec.dims.max_len, longest)))
        spec = replace(spec, seq_len=max(spec.seq_len, longest), max_len=max(spec.max_len, longest))
        model = measured.kind.build_model(spec).eval()
        model.head = nn.Linear(spec.dims.d_model, 1)  # the vocabulary is the task's
        tokens = torch.randint(1, spec.vocab_size, (1, longest))
        step = Batch(tokens[:, -1], None, tokens[:, -1])
        points: list[dict[str, Any]] = []
        with return_state(True), others_busy() as others:
            for context in contexts:
                text = begin_text(model, tokens[:, :context], None, 1)
                point: dict[str, Any] = {"context": context, "state_bytes": state_bytes(text.carried)}
                if latency:
                    point["latency"] = asdict(time_passes(partial(_append, text), [step], SECONDS))
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
            "parameters": sum(p.numel() for p in module.model.parameters()),
            "points": tuple(points),
            **({"machine": machine_name(computing), "others": round(others[0], 2)} if latency else {}),
            "versions": provenance.versions(),
            "measured": now(),
        },
        strict=False,
    )
    return cost.model_dump(mode="json")


def _append(text: GrowingText, batch: Batch) -> None:
    copy.copy(text).append(batch.inputs)  # the text itself stays as long as it is


def state_bytes(state: State) -> int:
    """The bytes of every tensor of a state."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(state))
