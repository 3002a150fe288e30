"""Records of one configuration -> a row: which run of a seed counts, what its scores are together, and what it cost."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from zoo.board.scale import COUNTS, NOT_FINITE, Scale, other_scores, scale_of
from zoo.board.statistics import Estimate, Rank, Run, converged, estimate
from zoo.spec.architecture import Reported
from zoo.spec.store import StoredRecord

PUBLISHED = "paper"
"""The one protocol that is meant to repeat what papers did."""

Records = Sequence[Mapping[str, Any]]
ReportedScores = Mapping[str, Sequence[Reported]]
"""Per "distribution:architecture" what the literature reports."""

Where = tuple[tuple[str, float], ...]
"""Where in a task's questions a part lies: (("length", 64), ("pairs", 4)), sorted by name."""


@dataclass(frozen=True)
class Point:
    """The ranked metric on a part of the test questions. `score` is None where it was not finite; `weight` is over how
    many questions, or answers, it is, so that parts can be put together."""

    where: Where
    beyond: bool
    score: float | None
    weight: int


@dataclass(frozen=True)
class Seed:
    """The run that counts for one seed. `score` is None unless the status is "ok" and the score finite.

    points  scores of the parts of test and of beyond
    beyond  the score over all of beyond, None where there is none; `defined`: whether it was asked there at all
    """

    seed: int
    status: str
    detail: str
    score: float | None
    n: int
    answers: int
    converged: bool
    path: str
    points: tuple[Point, ...] = ()
    beyond: float | None = None
    defined: bool = False

    @property
    def word(self) -> str:
        """What there is instead of a score; empty where there is one."""
        if self.score is not None:
            return ""
        return NOT_FINITE if self.status == "ok" else self.status


@dataclass(frozen=True)
class Row:
    """One configuration of one architecture on one task.

    others  means over the seeds of the test scores besides the ranked one; None where one was not finite
    points  means over the seeds of the parts of test and beyond
    beyond  mean over the seeds of the scores over all of beyond; `defined`: whether there are any, finite or not;
            `offered`: whether the task has such questions
    kind    of the task, where its records tell
    """

    architecture: str
    title: str
    distribution: str
    mode: str
    objective: str
    config_hash: str
    overrides: Mapping[str, Any]
    data: str
    fingerprint: str
    parameters: int
    off: float | None
    state_size: int | None
    seeds: tuple[Seed, ...]
    scale: Scale
    estimate: Estimate | None
    chance: float | None
    majority: float | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    hardware: tuple[str, ...]
    superseded: int
    ended: str
    reported: tuple[Reported, ...] = ()
    published: bool = False
    rank: Rank | None = None
    notes: tuple[str, ...] = ()
    kind: str | None = None
    carried: bool | None = None
    others: Mapping[str, float | None] | None = None
    points: tuple[Point, ...] = ()
    beyond: float | None = None
    defined: bool = False
    offered: bool = False

    @property
    def converged(self) -> int:
        """How many seeds learned."""
        return sum(seed.converged for seed in self.seeds)

    @property
    def failures(self) -> str:
        """Seeds without a score, in words: "diverged", or "2 diverged, 1 timeout"; empty when there are none."""
        counts = Counter(seed.word for seed in self.seeds if seed.word)
        if len(self.seeds) == 1:
            return next(iter(counts), "")
        return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))

    @property
    def delta(self) -> float | None:
        """Measured minus (first) reported score, under the protocol that means to repeat the published run; under any
        other the difference of two experiments would look like a reproduction."""
        if not (self.published and self.estimate and self.reported):
            return None
        return self.estimate.mean - self.reported[0].value

    @property
    def name(self) -> str:
        """The architecture's name, with its distribution where that is not ours."""
        return self.architecture if self.distribution == "seqzoo" else f"{self.distribution}:{self.architecture}"

    @property
    def asked(self) -> str:
        """The objective where there is more than one way to put the task, else empty."""
        return "" if self.objective == "classify" else self.objective


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def grouped(items: Iterable[T], key: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    """Items by key, keys sorted."""
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return sorted(groups.items(), key=lambda pair: pair[0])  # type: ignore[arg-type, return-value]


def row_key(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Equal for the seeds of one row."""
    who = record["architecture"]["name"], record["plugin"]["distribution"]
    return (
        *who,
        record["config_hash"],
        _fingerprint(record),
        *map(str, (record["metric"]["name"], record["metric"]["higher_is_better"])),
    )


def _fingerprint(record: Mapping[str, Any]) -> str:
    """Equal for records that were made on the same examples."""
    return json.dumps(record["data"], sort_keys=True)


def row_of(records: Records, reported: ReportedScores) -> Row:
    """One row. Of several runs of a seed the latest ok counts, else the latest; the others are superseded."""
    counting = []
    for _, runs in grouped(records, lambda r: int(r["seed"])):
        counting.append(max(runs, key=lambda r: (r["status"] == "ok", *_when(r))))
    first = max(counting, key=_when)
    scale = scale_of(first)
    ok = [r for r in counting if r["status"] == "ok"]
    task = first["task"]["name"]
    told = reported.get(f"{first['plugin']['distribution']}:{first['architecture']['name']}", ())
    speeds = [r["tokens_per_second"] for r in ok if r["tokens_per_second"] is not None]
    peaks = [r["peak_memory_bytes"] for r in ok if r["peak_memory_bytes"] is not None]
    runs_of = [_run(r["metrics"]["test"], scale) for r in ok]
    seeds = tuple(_seed(r, scale) for r in counting)
    far = [seed.beyond for seed in seeds if seed.defined]
    finite = [score for score in far if score is not None]
    return Row(
        architecture=first["architecture"]["name"],
        title=first["architecture"]["title"],
        distribution=first["plugin"]["distribution"],
        mode=first["mode"],
        objective=first["objective"],
        config_hash=first["config_hash"],
        overrides=first["overrides"],
        data=first["data"]["kind"],
        fingerprint=_fingerprint(first),
        parameters=first["parameters"],
        off=_off(first),
        state_size=first["state_size"],
        seeds=seeds,
        scale=scale,
        estimate=estimate([run for run in runs_of if run is not None], scale),
        chance=first["baselines"]["chance"],
        majority=first["baselines"]["majority"],
        tokens_per_second=sum(speeds) / len(speeds) if speeds else None,
        peak_memory_bytes=max(peaks, default=None),
        hardware=tuple(sorted({_machine(r["hardware"]) for r in ok})),
        superseded=len(records) - len(counting),
        ended=first["ended"],
        reported=tuple(r for r in told if r.task == task and r.metric == scale.name),
        published=first["protocol"] == PUBLISHED,
        kind=first["task"].get("kind"),
        carried=first["stateful"],
        others=_others([r["metrics"]["test"] for r in ok], scale),
        points=_means([seed.points for seed in seeds if seed.status == "ok"], scale),
        beyond=scale.mean(finite) if far and len(finite) == len(far) else None,
        defined=bool(far),
        offered="length_generalization" in first["data"]["counts"],
    )


def _off(record: Mapping[str, Any]) -> float | None:
    """How far the parameters are from those that the width was solved for, relatively; None where it was not."""
    match = record.get("match")
    return record["parameters"] / match["parameters"] - 1 if match and record["parameters"] else None


def _run(test: Mapping[str, Any], scale: Scale) -> Run | None:
    """What is known of one seed's test score; None where it is not finite."""
    score = test[scale.name]
    return None if score is None else Run(score, test["n"], test.get("stderr"))


def _seed(record: Mapping[str, Any], scale: Scale) -> Seed:
    metrics = record["metrics"] or {}
    test, far = metrics.get("test"), metrics.get("length_generalization")
    run = _run(test, scale) if test else None
    return Seed(
        seed=record["seed"],
        status=record["status"],
        detail=record["error"],
        score=run.score if run else None,
        n=test["n"] if test else 0,
        answers=test.get("answers") or test["n"] if test else 0,
        converged=run is not None and converged(run, scale, **record["baselines"]),
        path=record.get("path", ""),
        points=tuple(sorted([*_points(test, scale, beyond=False), *_points(far, scale, beyond=True)], key=_place)),
        beyond=far[scale.name] if far else None,
        defined=far is not None,
    )


def _points(scores: Mapping[str, Any] | None, scale: Scale, *, beyond: bool) -> list[Point]:
    """A split's groups. What a group has and the whole split has not is where the group lies."""
    groups = [group for group in (scores or {}).get("groups", ()) if scale.name in group]
    if not scores or not groups:
        return []
    key = weighing(scores, scale) or "n"
    return [Point(_where(group, scores), beyond, group[scale.name], group[key]) for group in groups]


def _where(group: Mapping[str, Any], scores: Mapping[str, Any]) -> Where:
    return tuple(sorted((k, v) for k, v in group.items() if k not in scores and k not in COUNTS))


def weighing(scores: Mapping[str, Any], scale: Scale) -> str | None:
    """By which count, "answers" or "n", the scores of a split's groups make that of the whole; None: by neither."""
    groups = scores["groups"]
    values = [group.get(scale.name) for group in groups]
    finite = [value for value in values if value is not None]
    if len(finite) < len(groups) or scores[scale.name] is None:
        return "n"
    for key in ("answers", "n"):
        if all(key in group for group in groups):
            whole = scale.mean(finite, [group[key] for group in groups])
            if math.isclose(whole, scores[scale.name], rel_tol=1e-6, abs_tol=1e-6):
                return key
    return None


def _place(point: Point) -> tuple[bool, Where]:
    return (point.beyond, point.where)


def _means(seeds: Sequence[Sequence[Point]], scale: Scale) -> tuple[Point, ...]:
    """Part by part the mean over the seeds."""
    found = []
    for (beyond, where), points in grouped([point for seed in seeds for point in seed], _place):
        scores = [point.score for point in points if point.score is not None]
        mean = scale.mean(scores) if len(scores) == len(points) else None
        found.append(Point(where, beyond, mean, max(point.weight for point in points)))
    return tuple(found)


def _others(tests: Sequence[Mapping[str, Any]], ranked: Scale) -> dict[str, float | None]:
    """The means over the seeds of the test scores besides the ranked one."""
    found: dict[str, float | None] = {}
    for name in other_scores({name for test in tests for name in test}, ranked.name):
        values = [test.get(name) for test in tests]
        finite = [value for value in values if value is not None]
        found[name] = Scale(name).mean(finite) if len(finite) == len(values) else None
    return found


def _when(record: Mapping[str, Any]) -> tuple[str, int, str]:
    """Order in time; the schema has times in UTC, so that they sort as text. Of equals the later file."""
    ended = record["ended"].removesuffix("Z").removesuffix("+00:00")
    repeat = re.search(r"-s\d+-(\d+)\.json$", record.get("path", ""))
    return (ended, int(repeat[1]) if repeat else 1, json.dumps(record, sort_keys=True))


def _machine(hardware: Mapping[str, Any]) -> str:
    gpus = Counter(hardware.get("gpus") or ())
    if gpus:
        return ", ".join(f"{count} × {name}" for name, count in sorted(gpus.items()))
    threads = hardware.get("threads") or hardware.get("cores") or "?"
    return f"{hardware.get('cpu') or 'unknown CPU'}, {threads} thread{'' if threads == 1 else 's'}"


def flattened(stored: StoredRecord) -> dict[str, Any]:
    """A record as the flat mapping that this package still works on."""
    record = stored.record.model_dump(mode="json") | {"path": stored.path}

    def flat(metrics: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in metrics.items() if k not in ("scores", "groups", "at") and v is not None}
        groups = [flat(group) for group in metrics.get("groups", ())]
        return (
            {"loss": metrics["loss"]}
            | kept
            | metrics["scores"]
            | metrics.get("at", {})
            | ({"groups": groups} if groups else {})
        )

    if record["metrics"]:
        record["metrics"] = {split: flat(metrics) for split, metrics in record["metrics"].items() if metrics}
    return record
