"""What a run says of itself: everything that the board shows and that somebody needs to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.data.module import Batch, TaskData
from zoo.data.questions import IGNORE
from zoo.model.classifier import SequenceClassifier
from zoo.model.lm import LMHeadModel
from zoo.ops.backend import forms_that_ran
from zoo.run import provenance as environment
from zoo.run.compose import Experiment
from zoo.run.module import Training
from zoo.run.rundir import Attempt, code_hash, now
from zoo.run.sweep import command
from zoo.spec.record import Record


def forward_flops(experiment: Experiment, model: SequenceClassifier | LMHeadModel) -> int:
    """FLOPs of one example's forward pass: matrix products, convolutions and attention, as torch counts them."""
    length = experiment.seq_len
    if experiment.classifies:
        shape = (1, 2, length) if experiment.task.record.kind == "pair_classification" else (1, length)
        dtype = torch.float32 if model.encoder.values else torch.int64
        batch = Batch(torch.zeros(shape, dtype=dtype), None, torch.zeros(1, dtype=torch.int64))
    else:
        # running text asks at every token, a question at its end
        labels = torch.zeros(1, length, dtype=torch.int64)
        if experiment.task.record.kind == "recall":
            labels[:, :-1] = IGNORE
        inputs = torch.ones(1, length, dtype=torch.int64)
        target = None
        if experiment.objective == "seq2seq":
            labels, target = labels[:, -1:], inputs[:, -1:]
        batch = Batch(inputs, None, labels, target)
    training = model.training
    model.eval()
    # with gradients on: the counter hooks parameters that are given as inputs, and can do so only then
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        model(batch)
    model.train(training)
    return int(counter.get_total_flops())


def make_record(
    experiment: Experiment,
    attempt: Attempt,
    training: Training | None,
    data: TaskData,
    status: str,
    detail: str,
    scores: dict[str, Any] | None,
    flops: int | None,
) -> Record:
    """Build the record of a run. `training` is None when the model could not be built: there are then no parameters."""
    arch, task = experiment.architecture, experiment.task
    capable = arch.record.capabilities
    carries = capable.state != "none" and (experiment.mode == "causal" or capable.state == "memory")
    parameters = samples = tokens = 0
    seconds = {"train": 0.0, "eval": 0.0}
    plan, state_size, history, device = None, None, [], torch.device("cpu")
    if training is not None:
        encoder = training.model.encoder
        parameters = sum(p.numel() for p in training.model.parameters())
        samples = min(training.global_step, training.budget.steps) * training.budget.batch_size
        seconds = {name: round(value, 3) for name, value in training.seconds.items()}
        # every device of a distributed run counts its own
        tokens = training.tokens * experiment.tree.train.devices * experiment.tree.train.num_nodes
        plan = asdict(encoder.plan) if capable.segment else None
        state_size = encoder.backbone.state_size(experiment.seq_len) if carries else None
        history, device = training.history, training.device
    fields: dict[str, Any] = {
        "architecture": {
            "name": arch.record.name,
            "title": arch.record.title,
            "family": arch.record.family,
            "version": getattr(arch.record, "version", "1"),
        },
        "plugin": {
            "distribution": arch.provenance.distribution,
            "version": arch.provenance.version,
            "entry_point": arch.provenance.entry_point,
            "source_hash": code_hash(experiment),
        },
        "task": {
            "name": task.record.name,
            "version": task.record.version,
            "suite": task.record.suite,
            "kind": task.record.kind,
        },
        "data": data.provenance(),
        "protocol": experiment.protocol,
        "protocol_version": "1",
        "overrides": dict(experiment.overrides),
        "config": experiment.values,
        "config_hash": experiment.hash,
        "seed": experiment.seed,
        "mode": experiment.mode,
        "objective": experiment.objective,
        "metric": {"name": task.record.metrics[0], "higher_is_better": task.record.higher_is_better},
        "stateful": experiment.carries,
        "segment_plan": plan,
        "parameters": parameters,
        "match": None
        if experiment.match is None
        else {"architecture": experiment.match[0], "parameters": experiment.match[1]},
        "state_size": state_size,
        "status": status,
        "error": detail,
        "metrics": None if scores is None else run_metrics(scores, data),
        "baselines": {"chance": experiment.chance, "majority": data.majority()},
        "history": history,
        "samples": samples,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": round(tokens / seconds["train"], 1) if seconds["train"] else None,
        "peak_memory_bytes": environment.peak_memory(device),
        # backward costs twice the forward
        "flops": None if flops is None else 3 * flops * samples,
        "op_backends": forms_that_ran(),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
        "git": environment.git_state(),
        "command": command(),
        "started": attempt.started,
        "ended": now(),
    }
    return Record.model_validate(fields)


def run_metrics(scores: Mapping[str, Mapping[str, Any]], data: TaskData) -> dict[str, Any]:
    """The metrics of each split as a record holds them, from the flat scores of the splits."""

    def nested(flat: Mapping[str, Any], at: Mapping[str, Any] | None = None) -> dict[str, Any]:
        own = {key: flat[key] for key in ("n", "answers", "loss", "stderr") if key in flat}
        rest = {key: value for key, value in flat.items() if key not in (*own, *(at or ()), "groups")}
        return own | {"scores": rest} | ({} if at is None else {"at": at})

    def split_metrics(split: str, flat: Mapping[str, Any]) -> dict[str, Any]:
        names = {name for at in data.groups(split) for name in at}  # type: ignore[arg-type]
        groups = [
            nested(group, {name: group[name] for name in group if name in names}) for group in flat.get("groups", ())
        ]
        return nested(flat) | {"groups": groups}

    return {split: split_metrics(split, flat) for split, flat in scores.items()}
