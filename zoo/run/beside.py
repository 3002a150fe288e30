"""Records that lie beside those of runs: costs, evaluations, extensions, analyses, generation. What contradicts itself
in them, and which of them may be replaced.

Their numbers cannot be made anew without the weights or the machine; they must agree with one another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from zoo.board.checks import split_faults
from zoo.board.metric import Metric
from zoo.board.statistics import Run, run_interval, wilson
from zoo.spec.analysis import AnalysisRecord, LossAt, effective_context
from zoo.spec.cost import CostRecord
from zoo.spec.evaluation import AS_TRAINED, METHODS, EvaluationRecord, ExtensionRecord, Extensions
from zoo.spec.generation import GenerationCost
from zoo.spec.registry import registry
from zoo.spec.store import BesideRecord, Problem

RUN = r"[a-z0-9_-]+/[a-z0-9_-]+/[a-z0-9_]+/[0-9a-f]+-s[0-9]+"


def generation_faults(cost: GenerationCost) -> Iterator[str]:
    """What contradicts itself in a measurement of generation."""
    contexts = [point.context for point in cost.points]
    if not contexts or contexts != sorted(set(contexts)):
        yield f"points: contexts {contexts}, expected ascending ones"
    if bool(cost.machine) != any(point.latency for point in cost.points):
        yield "machine: named where latencies were measured, and nowhere else"
    yield from _unknown(cost.architecture.name, cost.task)


def evaluation_faults(record: EvaluationRecord) -> Iterator[str]:
    """What contradicts itself in the evaluation of a checkpoint."""
    metric = Metric(record.metric.name, record.metric.higher_is_better)
    yield from split_faults(record, "", metric)
    for key, value in record.overrides.items():
        if record.options.get(key.removeprefix("task.")) != value:
            yield f"overrides: {key}={value}, but the options have {record.options.get(key.removeprefix('task.'))}"
    parts: list[tuple[str, Any]] = [("", record), *((f"groups.{k}.", group) for k, group in enumerate(record.groups))]
    for where, part in parts:
        score = part.scores.get(metric.name)
        known = None if score is None else run_interval(Run(score, part.n, part.stderr), metric)
        given = part.interval
        if (known is None) != (given is None) or (
            known and given and not (_close(known.low, given.low) and _close(known.high, given.high))
        ):
            yield f"{where}interval: not that of {metric.name} {score} over {part.n}"
    yield from _unknown(record.architecture, record.task, record.task_version)


def extension_faults(found: Extensions) -> Iterator[str]:
    """What contradicts itself in the records of a run beyond its training length."""
    seen = set()
    for k, record in enumerate(found.root):
        where = f"{k}."
        key = (record.study, record.method, record.finetune_steps, record.seq_len)
        if record.run != found.id:
            yield f"{where}run: {record.run}, in the file of {found.id}"
        if key in seen:
            yield f"{where}method: {record.label} at {record.seq_len} tokens is there twice"
        seen.add(key)
        if record.method not in METHODS:
            yield f"{where}method: {record.method!r}, expected one of {', '.join(METHODS)}"
        if record.overrides and (record.method == AS_TRAINED or record.seq_len <= record.trained_len):
            yield f"{where}overrides: {record.overrides}, by {record.method} at {record.seq_len} tokens"
        if record.seq_len % record.trained_len:
            yield f"{where}seq_len: {record.seq_len}, no multiple of {record.trained_len}"
        if bool(record.error) == bool(record.scores):
            yield f"{where}scores: there where nothing went wrong, and nowhere else"
        yield from _span_faults(record, where)
    first = found.root[0]
    yield from _run_faults(first.run, first.protocol, first.task, first.architecture, first.seed)


def _span_faults(record: ExtensionRecord, where: str) -> Iterator[str]:
    """Spans must cover the input, and their losses and counts add up."""
    spans = record.positions
    if not spans:
        return
    if spans[0].start or spans[-1].stop != record.seq_len or any(a.stop != b.start for a, b in pairwise(spans)):
        yield f"{where}positions: not all of 0 to {record.seq_len}"
    losses = [span.loss for span in spans if span.loss is not None]
    if sum(span.n for span in spans) != record.n:
        yield f"{where}n: {record.n}, in the positions {sum(span.n for span in spans)}"
    elif record.loss is not None and len(losses) == len(spans):
        mean = sum(span.n * (span.loss or 0) for span in spans) / record.n
        perplexity = record.scores.get("perplexity")
        if not _close(mean, record.loss):
            yield f"{where}loss: {record.loss}, by position {mean:.6g}"
        if perplexity is not None and not _close(math.log(perplexity), record.loss):
            yield f"{where}scores.perplexity: {perplexity}, but the mean loss is {record.loss}"


def analysis_faults(record: AnalysisRecord) -> Iterator[str]:
    """What contradicts itself in an analysis."""
    if record.context is not None:
        found = record.context
        for name, points in (("truncated", found.truncated), ("shuffled", found.shuffled)):
            lengths = [point.tokens for point in points]
            if not lengths or lengths != sorted(set(lengths)) or lengths[-1] != found.longest:
                yield f"context.{name}: {lengths} tokens, expected to ascend to {found.longest}"
        if _losses(found.truncated)[-1:] != _losses(found.shuffled)[-1:]:
            yield "context.shuffled: where nothing is shuffled the loss is another than with all tokens"
        known = effective_context([point.tokens for point in found.truncated], _losses(found.truncated))
        if known != found.effective:
            yield f"context.effective: {found.effective}, by the losses {known}"
        spans = found.gradient
        if any(a.stop != b.start for a, b in pairwise(spans)) or (spans and spans[-1].stop != found.longest):
            yield f"context.gradient: not all distances to {found.longest}"
    for k, head in enumerate(head for each in record.induction for head in each.heads):
        if head.prefix_matching > 1 + 1e-4:
            yield f"induction: heads.{k}.prefix_matching: {head.prefix_matching}, a share"
    for k, place in enumerate(record.positions):
        known_interval = wilson(place.accuracy, place.n)
        if not (_close(known_interval.low, place.low) and _close(known_interval.high, place.high)):
            yield f"positions.{k}: {place.low} to {place.high}, not Wilson's interval of {place.accuracy} of {place.n}"
    yield from _run_faults(record.run, record.protocol, record.task, record.architecture, record.seed)


def _losses(points: Sequence[LossAt]) -> list[float]:
    return [math.inf if point.loss is None else point.loss for point in points]


def _run_faults(run: str, protocol: str, task: str, architecture: str, seed: int) -> Iterator[str]:
    """The id of a run must say what the record says of it."""
    names = f"{protocol}/{task}/{architecture.rpartition(':')[2]}/"
    if not (re.fullmatch(RUN, run) and run.startswith(names) and run.endswith(f"-s{seed}")):
        yield f"run: {run}, expected {names}HASH-s{seed}"
    yield from _unknown(architecture, task)


def _unknown(architecture: str, task: str, version: str = "") -> Iterator[str]:
    if architecture not in registry().architectures:
        yield f"architecture: {architecture} is not installed here"
    if task not in registry().tasks:
        yield f"task: {task} is not installed here"
    elif version and registry().task(task).record.version != version:
        yield f"task_version: {version}, here {registry().task(task).record.version}"


def _close(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=1e-4, abs_tol=1e-4)


FAULTS: dict[type[BesideRecord], Callable[[Any], Iterable[str]]] = {
    CostRecord: lambda cost: (),
    GenerationCost: generation_faults,
    EvaluationRecord: evaluation_faults,
    Extensions: extension_faults,
    AnalysisRecord: analysis_faults,
}
"""The kinds of these records, and what contradicts itself in one."""


def time_measured(record: BesideRecord) -> str:
    """When a measurement was made that a later one of its name may replace; "" for what nothing may replace."""
    return getattr(record, "measured", "")


def faults_of(record: BesideRecord, results_dir: Path | str) -> list[str]:
    """What is wrong with a record that was read from beside these results."""
    folder = record.place(results_dir)
    file = folder / f"{record.id}.json"
    if not (file.is_file() and file.resolve().is_relative_to(folder.resolve())):
        return ["path: lies elsewhere"]
    return [*FAULTS[type(record)](record)]


def check_beside(results_dir: Path | str) -> tuple[int, list[Problem]]:
    """The number of consistent records beside these results, and every fault of the others: schema, file name,
    contradictions."""
    valid, problems = 0, list[Problem]()
    for kind in FAULTS:
        found, refused = kind.read_all(results_dir)
        problems += refused
        for record in found:
            name = f"{kind.place(results_dir).name}/{record.id}.json"
            faults = faults_of(record, results_dir)
            problems += [Problem(name, fault) for fault in faults]
            valid += not faults
    return valid, problems
