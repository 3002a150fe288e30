"""Build the record of a run: everything that the board shows and that somebody needs to run it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from zoo.data.module import TaskData
from zoo.ops.backend import forms_that_ran
from zoo.run import provenance
from zoo.run.compose import Experiment, Job
from zoo.run.module import ExperimentModule
from zoo.run.rundir import Attempt, now
from zoo.spec.record import Record, Status
from zoo.spec.task import PROTOCOLS


@dataclass
class Ending:
    """How a run ended.

    metrics  of each split, where the status is "ok"
    flops    of one example's forward pass; None when not counted
    """

    status: Status
    error: str = ""
    metrics: dict[str, Any] | None = None
    flops: int | None = None


def identity(experiment: Experiment) -> dict[str, Any]:
    """What was run, as records of results and of costs say it."""
    arch, task, origin = experiment.arch_spec, experiment.task_spec, experiment.arch_entry.plugin
    return {
        "architecture": {"name": arch.name, "title": arch.title, "family": arch.family, "version": arch.version},
        "plugin": {
            "distribution": origin.distribution,
            "version": origin.version,
            "entry_point": origin.entry_point,
            "source_hash": experiment.code_hash,
        },
        "task": {
            "name": task.name,
            "version": task.version,
            "suite": task.suite,
            "kind": task.kind,
            "cost_only": experiment.cost_only,
        },
        "protocol": experiment.protocol,
        "protocol_version": PROTOCOLS[experiment.protocol],
        "config": experiment.config,
    }


def _settings_of(experiment: Experiment) -> dict[str, Any]:
    """What the user set for all architectures on data of their own: rows under other settings are not comparable."""
    settings = (experiment.declared or {}).get("settings")
    return {"settings": dict(settings)} if settings else {}


def make_record(job: Job, attempt: Attempt, module: ExperimentModule | None, data: TaskData, ending: Ending) -> Record:
    """Build the record of a run. `module` is None when the model could not be built: there are then no parameters."""
    experiment = job.experiment
    capabilities = experiment.arch_spec.capabilities
    has_state = capabilities.state == "memory" or (capabilities.state == "recurrent" and experiment.mode == "causal")
    fields: dict[str, Any] = {
        **identity(experiment),
        "data": data.provenance() | _settings_of(experiment),
        "overrides": dict(experiment.overrides),
        "sweep": experiment.sweep,
        "config_hash": experiment.hash,
        "seed": experiment.seed,
        "mode": experiment.mode,
        "objective": experiment.objective,
        "stateful": experiment.stateful if experiment.kind.running_text else None,
        "segment_plan": None,
        "parameters": 0,
        "match": experiment.matched,
        "state_size": None,
        "status": ending.status,
        "error": ending.error,
        "metric": dict(zip(("name", "higher_is_better"), experiment.metric, strict=True)),
        "metrics": ending.metrics,
        "baselines": {"chance": experiment.chance, "majority": data.majority()},
        "history": [],
        "samples": 0,
        "tokens": 0,
        "seconds": {"train": 0.0, "eval": 0.0},
        "tokens_per_second": None,
        "peak_memory_bytes": provenance.peak_memory(torch.device("cpu") if module is None else module.device),
        "flops": None,
        "op_backends": forms_that_ran(),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
        "command": job.command,
        "started": attempt.started,
        "ended": now(),
    }
    if module is not None:
        encoder, schedule = module.model.encoder, module.schedule
        samples = min(module.global_step, schedule.steps) * schedule.batch_size
        # the first device has counted its own share; the devices share the samples equally
        tokens = int(module.tokens) * experiment.train.devices * experiment.train.num_nodes
        seconds = {name: round(value, 3) for name, value in module.seconds.items()}
        fields |= {
            "micro_batch_size": schedule.micro_batch_size,
            "segment_plan": asdict(encoder.plan) if capabilities.segment else None,
            "parameters": sum(p.numel() for p in module.model.parameters()),
            "state_size": encoder.backbone.state_size(experiment.seq_len) if has_state else None,
            "history": module.history,
            "samples": samples,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": round(tokens / seconds["train"], 1) if seconds["train"] else None,
            # backward costs twice the forward
            "flops": None if ending.flops is None else 3 * ending.flops * samples,
        }
    return Record.model_validate(fields)
