"""Valid records for tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zoo.spec.analysis import AnalysisRecord, ContextAnalysis, GradientAt, LossAt
from zoo.spec.config import shape_hash
from zoo.spec.cost import CostRecord
from zoo.spec.record import Record

ACCURACY = {"name": "accuracy", "higher_is_better": True}


def changed(record: Record, *path: Any, value: Any) -> dict[str, Any]:
    """The record as JSON values, with another `value` at `path`."""
    fields: Any = record.model_dump(mode="json")
    node = fields
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return fields


def make(
    arch: str = "alpha",
    task: str = "listops",
    *,
    seed: int = 0,
    accuracy: float | None = 0.5,
    n: int = 1000,
    status: str = "ok",
    protocol: str = "quick",
    config_hash: str = "0123456789ab",
    ended: str = "2026-01-02T03:04:05+00:00",
    chance: float = 0.1,
    majority: float | None = 0.175,
    version: str = "1",
    suite: str = "lra",
    kind: str = "classification",
    **changes: Any,
) -> Record:
    """One record; `changes` replace whole fields. `accuracy` is the test score of an "ok" record."""
    ok = status == "ok"
    plugin = {"distribution": "seqzoo", "version": "0.1.0", "entry_point": f"zoo_{arch}", "source_hash": "ab" * 32}
    fields: dict[str, Any] = {
        "architecture": {"name": arch, "title": arch.title(), "family": "attention", "version": "1"},
        "plugin": plugin,
        "task": {"name": task, "version": version, "suite": suite, "kind": kind},
        "data": {"kind": "regenerated", "version": "1", "seed": 0, "counts": {"train": 96, "val": 20, "test": n}},
        "protocol": protocol,
        "protocol_version": "1",
        "overrides": {},
        "config": {"model": {"d_model": 64}},
        "sweep": None,
        "config_hash": config_hash,
        "seed": seed,
        "mode": "causal",
        "objective": "classify",
        "stateful": None,
        "segment_plan": None,
        "parameters": 120_000,
        "match": None,
        "state_size": 2048,
        "status": status,
        "error": "" if ok else f"made {status}",
        "metrics": {
            "val": {"scores": {"accuracy": 0.5}, "loss": 1.25, "n": 20},
            "test": {"scores": {"accuracy": accuracy}, "loss": 1.5, "n": n},
        }
        if ok
        else None,
        "metric": ACCURACY,
        "baselines": {"chance": chance, "majority": majority},
        "history": [
            {"step": 3, "samples": 96, "seconds": 1.5, "split": "train", "loss": 2.0, "metric": 0.25},
            {"step": 3, "samples": 96, "seconds": 2.0, "split": "val", "loss": 1.25, "metric": 0.5},
        ],
        "samples": 96,
        "tokens": 9600,
        "seconds": {"train": 1.5, "eval": 0.5},
        "tokens_per_second": 6400.0,
        "peak_memory_bytes": 512 * 2**20,
        "flops": 10**12,
        "op_backends": {"selective_scan": "torch"},
        "hardware": {"cpu": "a processor", "cores": 2, "memory_bytes": 2**33, "gpus": []},
        "versions": {"python": "3.11.9", "torch": "2.12.0"},
        "git": {"commit": None, "dirty": None},
        "command": f"zoo bench --arch {arch} --task {task}",
        "started": "2026-01-02T03:00:00+00:00",
        "ended": ended,
    }
    return Record.model_validate(fields | changes)


def make_cost(
    record: Record,
    *,
    train: float = 0.01,
    inference: float = 0.002,
    memory_bytes: int = 64 * 2**20,
    machine: str = "a processor, 1 thread",
    others: float = 0.0,
    **changes: Any,
) -> CostRecord:
    """What the configuration of a record costs: seconds per example of 100 tokens, with quartiles 10 % around them."""
    names = (record.plugin.distribution, record.architecture.name, record.architecture.version)
    shape = shape_hash(names, (record.task.name, record.task.version), record.protocol, record.config)
    taken = ("architecture", "plugin", "task", "protocol", "protocol_version", "config", "parameters", "op_backends")
    shared = ("hardware", "versions", "git", "command")
    fields = {name: value for name, value in record.model_dump(mode="json").items() if name in (*taken, *shared)}
    for name, seconds in (("train", train), ("inference", inference)):
        fields[name] = {"seconds": seconds, "low": 0.9 * seconds, "high": 1.1 * seconds, "passes": 5}
    fields |= {"shape": shape, "batch_size": 32, "tokens": 100.0, "places": 120.0, "memory_bytes": memory_bytes}
    fields |= {"machine": machine, "others": others, "measured": "2026-01-02T03:04:05+00:00"}
    return CostRecord.model_validate(fields | changes)


def recall(
    arch: str = "alpha",
    task: str = "mqar",
    *,
    test: Mapping[tuple[tuple[str, float], ...], float],
    beyond: Mapping[tuple[tuple[str, float], ...], float] | None = None,
    n: int = 100,
    answers: int = 4,
    offered: int = 0,
    status: str = "ok",
    **changes: Any,
) -> Record:
    """A record of a recall task: per group, as (("length", 64), ("pairs", 4)), its accuracy over `n` questions of
    `answers` tokens each. `beyond`: the same of the length_generalization split; `offered`: its number of questions,
    where the architecture was not evaluated on them."""
    metrics = {
        "val": {"scores": {"accuracy": 0.5}, "loss": 1.25, "n": 20, "answers": 20 * answers},
        "test": _split(test, n, answers),
    }
    counts = {"train": 96, "val": 20, "test": n * len(test)}
    if beyond is not None or offered:
        counts["length_generalization"] = offered or n * len(beyond or ())
    if beyond is not None:
        metrics["length_generalization"] = _split(beyond, n, answers)
    fields: dict[str, Any] = {
        "suite": "recall",
        "kind": "recall",
        "data": {"kind": "regenerated", "version": "1", "seed": 0, "counts": counts},
        "objective": "causal_lm",
        "metrics": metrics,
        "baselines": {"chance": 1 / 64, "majority": None},
    }
    if status != "ok":
        fields["metrics"] = None
    return make(arch, task, status=status, **(fields | changes))


def _split(groups: Mapping[tuple[tuple[str, float], ...], float], n: int, answers: int) -> dict[str, Any]:
    """The scores of a split of equally large groups."""
    size = n * answers
    hits = {where: round(accuracy * size) for where, accuracy in groups.items()}
    rows = [
        {"at": dict(where), "scores": {"accuracy": right / size}, "loss": 1.5, "n": n, "answers": size}
        for where, right in hits.items()
    ]
    total = size * len(rows)
    accuracy = {"accuracy": sum(hits.values()) / total}
    return {"scores": accuracy, "loss": 1.5, "n": n * len(rows), "answers": total, "groups": rows}


def language(
    arch: str = "alpha",
    task: str = "wikitext",
    *,
    nats: float = 3.5,
    stderr: float | None = 0.01,
    stateful: bool = False,
    status: str = "ok",
    **changes: Any,
) -> Record:
    """A record of language modeling on running text read as bytes, of which five make a word: `nats` per word."""
    byte = nats / 5
    metrics = {
        "val": {"scores": {"word_perplexity": math.exp(nats)}, "loss": byte, "n": 20, "answers": 5000},
        "test": {
            "scores": {
                "word_perplexity": math.exp(nats),
                "byte_perplexity": math.exp(byte),
                "bits_per_byte": byte / math.log(2),
            },
            "stderr": stderr,
            "loss": byte,
            "n": 200,
            "answers": 50_000,
        },
    }
    point = {"step": 3, "samples": 96, "seconds": 2.0, "split": "val", "loss": byte, "metric": math.exp(nats)}
    counts = {"val": 20, "test": 200}
    fields: dict[str, Any] = {
        "suite": "lambada",
        "kind": "language_modeling",
        "data": {"kind": "published", "version": "1", "files": {"a.txt": "ab" * 32}, "counts": counts},
        "objective": "causal_lm",
        "metric": {"name": "word_perplexity", "higher_is_better": False},
        "metrics": metrics,
        "baselines": {"chance": None, "majority": None},
        "history": [point | {"split": "train"}, point],
        "stateful": stateful,
    }
    if status != "ok":
        fields["metrics"] = None
    return make(arch, task, status=status, **(fields | changes))


def make_analysis(record: Record, trained_len: int) -> AnalysisRecord:
    """The analysis of a run that needs all of its context."""
    losses = tuple(LossAt(tokens=k, loss=loss, stderr=0.1) for k, loss in ((1, 2.0), (trained_len, 1.0)))
    spans = (GradientAt(start=0, stop=trained_len, n=9, norm=1.0),)
    context = ContextAnalysis(
        predictions=9, longest=trained_len, truncated=losses, shuffled=losses, gradient=spans, effective=trained_len
    )
    return AnalysisRecord(
        run=record.id, weights="ab", architecture=record.architecture.name, task=record.task.name,
        protocol=record.protocol, seed=record.seed, trained_len=trained_len, draw_seed=0, context=context, seconds=1.0,
        ended="2026-01-02T03:04:05+00:00", versions={},
    )  # fmt: skip
