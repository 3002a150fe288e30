"""Sound records for tests, made by the builder that the runner uses."""

from __future__ import annotations

from typing import Any

from zoo.interface import record as records


def make(
    arch: str = "alpha",
    task: str = "listops",
    *,
    seed: int = 0,
    accuracy: float | None = 0.5,
    n: int = 1000,
    outcome: str = "ok",
    protocol: str = "quick",
    config_hash: str = "0123456789ab",
    ended: str = "2026-01-02T03:04:05+00:00",
    chance: float = 0.1,
    majority: float | None = 0.175,
    version: str = "1",
    **changes: Any,
) -> dict[str, Any]:
    """One record; `changes` replace whole fields. `accuracy` is the test score of an "ok" record."""
    ok = outcome == "ok"
    plugin = {"distribution": "seqzoo", "version": "0.1.0", "entry_point": f"zoo_{arch}", "source_hash": "ab" * 32}
    fields: dict[str, Any] = {
        "architecture": {"name": arch, "title": arch.title(), "family": "attention"},
        "plugin": plugin,
        "task": {"name": task, "version": version, "suite": "lra"},
        "data": {"kind": "regenerated", "version": "1", "seed": 0, "counts": {"train": 96, "val": 20, "test": n}},
        "protocol": protocol,
        "overrides": {},
        "config": {"model": {"d_model": 64}},
        "config_hash": config_hash,
        "seed": seed,
        "mode": "causal",
        "objective": "classify",
        "segment_plan": None,
        "parameters": 120_000,
        "match": None,
        "state_size": 2048,
        "outcome": outcome,
        "detail": "" if ok else f"made {outcome}",
        "metrics": {
            "val": {"accuracy": 0.5, "loss": 1.25, "n": 20},
            "test": {"accuracy": accuracy, "loss": 1.5, "n": n},
        }
        if ok
        else None,
        "baselines": {"chance": chance, "majority": majority},
        "curves": [
            {"step": 3, "samples": 96, "seconds": 1.5, "split": "train", "loss": 2.0, "metric": 0.25},
            {"step": 3, "samples": 96, "seconds": 2.0, "split": "val", "loss": 1.25, "metric": 0.5},
        ],
        "samples": 96,
        "tokens": 9600,
        "seconds": {"train": 1.5, "eval": 0.5},
        "tokens_per_second": 6400.0,
        "peak_memory_bytes": 512 * 2**20,
        "flops": 10**12,
        "backend": {"selective_scan": "torch"},
        "hardware": {"cpu": "a processor", "cores": 2, "memory_bytes": 2**33, "gpus": []},
        "versions": {"python": "3.11.9", "torch": "2.12.0"},
        "git": {"commit": None, "dirty": None},
        "command": f"zoo bench --arch {arch} --task {task}",
        "started": "2026-01-02T03:00:00+00:00",
        "ended": ended,
    }
    return records.new(**(fields | changes))
