"""Build the record of a run: everything that the board shows and that somebody needs to run it again. What is known of
it before the run is checked then, so that no run is trained for a record that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import ValidationError

from zoo.data.module import TaskData
from zoo.ops.backend import forms_that_ran
from zoo.run import provenance
from zoo.run.compose import Experiment, Job
from zoo.run.module import ExperimentModule
from zoo.run.rundir import Attempt, now
from zoo.spec.architecture import NAME
from zoo.spec.errors import UserError
from zoo.spec.record import Record, Status
from zoo.spec.store import describe
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


@dataclass(frozen=True)
class DataFacts:
    """What a record and a kept model say of the data, collected before anything is trained."""

    provenance: dict[str, Any]
    majority: float | None
    codec: dict[str, Any]


EXAMPLES = {
    "data": 'provenance() returns such as {"kind": "regenerated", "version": "1", "seed": 0, "counts": {"train": 8000, '
    '"val": 1000, "test": 1000}}, or "files": {name: sha256} in place of the seed of published ones',
    "baselines": "majority() returns the score of an answer that needs no learning, such as 0.1, or None",
    "metric": 'metrics=("accuracy",): names of lower-case letters, digits and underscores',
    "task": 'version="1", a text that is not empty',
}
"""By the field of a record, what the author of a task writes."""


def gather_facts(experiment: Experiment, data: TaskData) -> DataFacts:
    """Collect from the data what a record needs. Raises UserError that names what fails, before anything is trained."""
    getters: dict[str, tuple[str, Callable[[], Any]]] = {
        "provenance()": ("data", data.provenance),
        "majority()": ("baselines", data.majority),
        "make_codec()": ("", lambda: json.loads(json.dumps(dict(data.codec)))),
    }
    found = []
    for name, (field, get) in getters.items():
        try:
            found.append(get())
        except UserError:
            raise
        except Exception as error:
            example = f"; {EXAMPLES[field]}" if field else ""
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(
                f"{experiment.task}: {type(data).__name__}.{name} fails, and a record needs it; nothing was trained: "
                f"{why}{example}"
            ) from error
    return DataFacts(*found)


def check_recordable(job: Job, attempt: Attempt, module: ExperimentModule, facts: DataFacts, data: TaskData) -> None:
    """Raise UserError, before anything is trained, unless all that is known of the run's record is valid: it names the
    field and shows an example."""
    try:
        Record.model_validate(record_fields(job, attempt, module, facts, Ending("interrupted", "not begun")))
        faults = _faults_of_scores(module, data)
    except ValidationError as error:
        faults = describe(error)
    if faults:
        fields = dict.fromkeys(fault.partition(":")[0].partition(".")[0] for fault in faults)
        examples = [f"{field}: {EXAMPLES[field]}" for field in fields if field in EXAMPLES]
        head = f"{job.experiment.task}: a record of this run would not be valid; nothing was trained:"
        raise UserError("\n  ".join([head, *faults, *examples]))


def _faults_of_scores(module: ExperimentModule, data: TaskData) -> list[str]:
    """What is wrong with the names of the scores, by those of one example of each split; their values say nothing."""
    kind, experiment = module.kind, module.experiment
    ranked = experiment.metric[0]
    collate = kind.build_collate_fn(data)
    faults = []
    training = module.training
    for split in ("val", *data.test_splits):
        metric = kind.build_metrics(experiment.task_spec, split, data)
        batch = collate([data.dataset(split)[0]])
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                output = module.eval().model(batch)
                metric.update(output, batch, kind.loss(output))
            names = list(metric.compute()["scores"])
        except Exception:  # one example may be too few for a score, and this model has learned nothing
            continue
        finally:
            module.train(training)
        faults += [f"metrics.{split}.scores: {name!r} is no name" for name in names if not NAME.fullmatch(name)]
        if split != "val" and ranked not in names:
            faults.append(f"metrics.{split}.scores: has no {ranked!r}, the ranked metric; it has {', '.join(names)}")
    return faults


def record_fields(
    job: Job, attempt: Attempt, module: ExperimentModule | None, facts: DataFacts, ending: Ending
) -> dict[str, Any]:
    """The fields of a run's record. `module` is None when the model could not be built: it has no parameters then."""
    experiment = job.experiment
    capabilities = experiment.arch_spec.capabilities
    has_state = capabilities.state == "memory" or (capabilities.state == "recurrent" and experiment.mode == "causal")
    fields: dict[str, Any] = {
        **identity(experiment),
        "data": facts.provenance | _settings_of(experiment),
        "overrides": dict(experiment.overrides),
        "sweep": experiment.sweep,
        "init": {key: experiment.init[key] for key in ("form", "source", "weights")} if experiment.init else None,
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
        "baselines": {"chance": experiment.chance, "majority": facts.majority},
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
    return fields
