"""Records for the tests of the board: every kind of task, of ending, and of difference between configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tests.records import language, make, make_cost, recall
from zoo.board.results import Board, Section, make_board
from zoo.spec.cost import CostRecord
from zoo.spec.presets import Reported
from zoo.spec.record import Record
from zoo.spec.store import Problem, StoredRecord

REPORTED = {
    "seqzoo:alpha": [
        Reported(task="listops", metric="accuracy", value=0.5835, source="Author et al. 2020 (a|b)", table="Table 1"),
        Reported(task="listops", metric="accuracy", value=0.6, source="Another 2021"),
    ],
    "seqzoo:gamma": [Reported(task="pathfinder", metric="accuracy", value=0.9, source="Another 2021")],
}
PROBLEMS = [Problem("cut.json", "not JSON: Expecting value (line 1)")]
INFILLING = {"objective": "infilling", "mode": "bidirectional"}
PAIRS = (4, 8)


def stored(records: Iterable[Record]) -> list[StoredRecord]:
    """The records with the paths that writing them in this order gives."""
    times: dict[str, int] = {}
    result = []
    for record in records:
        k = times[record.id] = times.get(record.id, 0) + 1
        result.append(StoredRecord(f"{record.id}{f'-{k}' if k > 1 else ''}.json", record))
    return result


def board_of(records: Iterable[Record], *args: Any, **kwargs: Any) -> Board:
    return make_board(stored(records), *args, **kwargs)


def sections(records: Iterable[Record], *args: Any, **kwargs: Any) -> list[Section]:
    return list(board_of(records, *args, **kwargs).sections())


def section(records: Iterable[Record], task: str = "", **kwargs: Any) -> Section:
    """The only section, or the only one of a task."""
    (result,) = (one for one in sections(records, **kwargs) if task in ("", one.task))
    return result


# -- classification ------------------------------------------------------------------------------------------------


def classification_records() -> list[Record]:
    """A bit of everything: seeds, ties, failures, a modified row, a repeat, other data, two protocols, smoke."""
    path: dict[str, Any] = {"chance": 0.5, "majority": 0.502, "n": 2000}
    published = {"kind": "published", "version": "1", "files": {"a.tsv": "ab" * 32}, "counts": {"test": 1000}}
    fast = {"cpu": "x", "cores": 8, "gpus": ["A GPU"]}
    return [
        *(make("alpha", seed=s, accuracy=a) for s, a in enumerate((0.41, 0.42, 0.40))),
        *(make("beta", seed=s, accuracy=a) for s, a in enumerate((0.40, 0.43))),
        make("beta", seed=2, status="diverged"),
        make("gamma", accuracy=0.18, mode="bidirectional"),
        make("delta", status="out-of-memory"),
        make("alpha", accuracy=0.6, overrides={"model.d_model": 256}, config_hash="ff" * 6, parameters=1_900_000),
        make("epsilon", accuracy=0.44, data=published, hardware=fast, peak_memory_bytes=3 * 2**30),
        make("alpha", "pathfinder", accuracy=0.71, **path),
        make("alpha", "pathfinder", accuracy=0.70, **path, ended="2026-01-02T03:04:04+00:00"),
        make("gamma", "pathfinder", accuracy=0.55, match={"architecture": "alpha", "parameters": 90_000}, **path),
        make("alpha", protocol="paper", accuracy=0.55),
        make("alpha", protocol="smoke", accuracy=0.99),
    ]


def classification_costs(records: list[Record]) -> list[CostRecord]:
    """What some of them cost: on two machines, one of them measured while others ran."""
    costs: dict[str, dict[str, Any]] = {
        "alpha": {"train": 0.004, "inference": 0.001},
        "beta": {"train": 0.02, "inference": 0.004, "memory_bytes": 2**31, "others": 0.8},
        "gamma": {"train": 0.001},
    }
    quick = [record for record in records if record.protocol == "quick" and record.task.name == "listops"]
    first = {record.architecture.name: record for record in reversed(quick)}
    elsewhere = make_cost(first["alpha"], machine="another processor, 1 thread", train=0.1)
    return [elsewhere, *(make_cost(first[name], **cost) for name, cost in costs.items())]


# -- answers as tokens ---------------------------------------------------------------------------------------------


def at(**where: float) -> tuple[tuple[str, float], ...]:
    return tuple(where.items())


def mqar(arch: str, easy: float, far: float | None, **changes: Any) -> Record:
    test = {at(length=length, pairs=p): easy - p / 100 for length in (32, 64) for p in PAIRS}
    lengths = (128, 256) if far is not None else ()
    beyond = {at(length=length, pairs=p): (far or 0.0) * 128 / length for length in lengths for p in PAIRS}
    return recall(arch, test=test, beyond=beyond or None, offered=400, **changes)


def needle(arch: str, near: float, far: float | None, **changes: Any) -> Record:
    depths = (0.0, 0.5, 1.0)
    test = {at(length=128, depth=d): near - d / 10 for d in depths}
    beyond = {at(length=length, depth=d): far * (1 - d / 2) for length in (256, 512) for d in depths if far is not None}
    return recall(arch, "needle", test=test, beyond=beyond or None, offered=600, answers=1, **changes)


def key_values(arch: str, near: float, far: float) -> Record:
    test = {at(length=34, pairs=4, position=k): near for k in (0, 1, 3)}
    beyond = {at(length=130, pairs=16, position=k): far + k / 100 for k in (0, 7, 15)}
    return recall(arch, "kv_retrieval", test=test, beyond=beyond, answers=1)


def lambada(arch: str, accuracy: float, perplexity: float, **changes: Any) -> Record:
    n = 1000
    test = {
        "scores": {"accuracy": accuracy, "perplexity": perplexity},
        "stderr": 0.02,
        "loss": math.log(perplexity) / 5,
        "n": n,
        "answers": 5 * n,
    }
    fields: dict[str, Any] = {
        "metric": {"name": "accuracy", "higher_is_better": True},
        "metrics": {"val": {"scores": {"accuracy": 0.3}, "loss": 0.7, "n": 20, "answers": 5000}, "test": test},
        "baselines": {"chance": None, "majority": 0.016},
        "data": {"kind": "published", "version": "1", "files": {"a.txt": "ab" * 32}, "counts": {"val": 20, "test": n}},
    }
    return language(arch, "lambada_openai", **(fields | changes))


def question_records() -> list[Record]:
    """Every kind of section: two objectives, seeds, failures, no length generalization, with and without state."""
    return [
        *(mqar("alpha", a, 0.9, seed=s) for s, a in enumerate((0.97, 0.98))),
        mqar("beta", 0.8, 0.5),
        mqar("gamma", 0.7, None, **INFILLING),
        mqar("delta", 0.7, None, status="out-of-memory"),
        mqar("alpha", 0.99, 0.95, overrides={"model.d_model": 256}, config_hash="ff" * 6),
        needle("alpha", 0.95, 0.6),
        needle("gamma", 0.9, None, **INFILLING),
        key_values("alpha", 0.9, 0.4),
        key_values("beta", 0.8, 0.3),
        lambada("alpha", 0.2, 30.0),
        lambada("gamma", 0.25, 25.0, **INFILLING),
        *(language("alpha", nats=nats, seed=s, stateful=True) for s, nats in enumerate((3.4, 3.5, 3.6))),
        language("beta", nats=3.7),
        language("delta", nats=3.2, stderr=None),
        make("alpha", accuracy=0.4),
        make("gamma", accuracy=0.3),
    ]
