"""Consistency checks on valid records: contradictions between their fields."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from zoo.board.frame import weighting
from zoo.board.metric import Metric
from zoo.spec.record import Metrics, Record, SplitMetrics, metric_kind, unpack_bits
from zoo.spec.store import Problem, StoredRecord, read_all


def check_records(results_dir: Path | str) -> tuple[int, list[Problem]]:
    """The number of consistent records, and every fault of the others: schema, file name, contradictions."""
    stored, problems = read_all(results_dir)
    faults = [Problem(one.path, fault) for one in stored for fault in record_faults(one)]
    consistent = len(stored) - len({problem.file for problem in faults})
    return consistent, sorted([*problems, *faults])


def record_faults(stored: StoredRecord) -> list[str]:
    """The contradictions within a record, one line each."""
    path, record = stored
    faults = [] if re.fullmatch(rf"{re.escape(record.id)}(-\d+)?\.json", path) else [f"path: expected {record.id}.json"]
    if dt.datetime.fromisoformat(record.ended) < dt.datetime.fromisoformat(record.started):
        faults.append(f"ended: {record.ended}, before it started ({record.started})")
    return [*faults, *_score_faults(record), *_history_faults(record), *_speed_faults(record), *_hash_faults(record)]


def _score_faults(record: Record) -> Iterator[str]:
    metric = Metric(record.metric.name, record.metric.higher_is_better)
    if metric.kind != "number" and metric.higher_is_better != metric.is_share:
        yield f"metric.higher_is_better: {str(metric.higher_is_better).lower()}, for {metric.name}"
    for split, metrics in dict(record.metrics or {}).items():
        if metrics is None:
            continue
        where, counted = f"metrics.{split}.", record.data.counts.get(split)
        if split != "val" and counted is not None and counted < metrics.n:
            yield f"{where}n: {metrics.n}, but the {split} split has {counted}"
        yield from _right_faults(metrics, where)
        yield from split_faults(metrics, where, metric)


def split_faults(metrics: Any, where: str, metric: Metric) -> Iterator[str]:
    """What contradicts itself in the metrics of a split: of a run, or of an evaluation. `where` stands before a field's
    name."""
    yield from _share_faults(metrics, where)
    yield from _perplexity_faults(metrics, where)
    yield from _group_faults(metrics, where, metric)
    if metrics.answers is not None and metrics.answers < metrics.n:
        yield f"{where}answers: {metrics.answers}, of {metrics.n} questions"


def _share_faults(metrics: Metrics, where: str) -> Iterator[str]:
    """Every accuracy must be a fraction of the questions or of the answers."""
    counts = [count for count in (metrics.n, metrics.answers) if count]
    of = f"{metrics.n} examples" + (f", nor of {metrics.answers} answers" if metrics.answers else "")
    for name, value in metrics.scores.items():
        # accuracies are computed in single precision
        hits = [value * n for n in counts] if value is not None and metric_kind(name) == "share" else [0.0]
        if all(abs(hit - round(hit)) > 1e-3 + 1e-6 * metrics.n for hit in hits):
            yield f"{where}scores.{name}: {value} is not a fraction of {of}"


def _right_faults(metrics: SplitMetrics, where: str) -> Iterator[str]:
    """The questions answered right must be as many as the accuracy says: of several answers a question, all of them."""
    if metrics.right is None:
        return
    try:
        right = sum(unpack_bits(metrics.right, metrics.n))
    except ValueError as error:
        yield f"{where}right: {error}"
        return
    name = "exact" if "exact" in metrics.scores else "accuracy"
    share = metrics.scores.get(name)
    if share is not None and abs(share * metrics.n - right) > 1e-3 + 1e-6 * metrics.n:
        yield f"{where}right: {right} of {metrics.n} questions, but {name} is {share}"


def _perplexity_faults(metrics: Metrics, where: str) -> Iterator[str]:
    """A perplexity must be that of the mean loss per answer or per question; bits per byte that of the perplexity per
    byte; and a word has at least one byte."""
    names = ("perplexity", "byte_perplexity", "word_perplexity", "bits_per_byte")
    perplexity, byte, word, bits = (metrics.scores.get(name) for name in names)
    if perplexity is not None and metrics.loss is not None:
        per_question = metrics.loss * (metrics.answers or metrics.n) / metrics.n
        if not any(_close(math.log(perplexity), mean) for mean in (metrics.loss, per_question)):
            yield f"{where}scores.perplexity: {perplexity}, but the mean loss is {metrics.loss}"
    if bits is not None and byte is not None and not _close(bits, math.log2(byte)):
        yield f"{where}scores.bits_per_byte: {bits}, but the perplexity per byte is {byte}"
    if byte is not None and word is not None and word < byte * (1 - 1e-6):
        yield f"{where}scores.word_perplexity: {word}, less than that of a byte, {byte}"


def _close(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=1e-4, abs_tol=1e-4)


def _group_faults(metrics: SplitMetrics, where: str, metric: Metric) -> Iterator[str]:
    """The groups must add up to the split."""
    faults = [f for k, group in enumerate(metrics.groups) for f in _share_faults(group, f"{where}groups.{k}.")]
    for key, whole in (("n", metrics.n), ("answers", metrics.answers)):
        counts = [getattr(group, key) or 0 for group in metrics.groups]
        if whole is not None and any(counts) and sum(counts) != whole:
            faults.append(f"{where}groups: {key} of all of them {sum(counts)}, of the split {whole}")
    yield from faults
    # a perplexity may be per word, whose number is not recorded
    if metrics.groups and not faults and metric.is_share and weighting(metrics, metric) is None:
        score = metrics.scores[metric.name]
        yield f"{where}groups: their {metric.name} does not average to that of the split, {score}"


def _history_faults(record: Record) -> Iterator[str]:
    """The history must be in order; the validation metrics must be the best in it (of language models: those of the
    least loss)."""
    curve = [point for point in record.history if point.split == "val"]
    if any(later.samples < earlier.samples for earlier, later in pairwise(curve)):
        yield "history: not in the order of training"
    last = max((point.samples for point in record.history), default=0)
    if last > record.samples:
        yield f"samples: {record.samples}, but the history reaches {last}"
    if record.metrics is None:
        return
    val, name = record.metrics.val, record.metric.name
    if record.task.kind == "language_modeling":
        where, score, best = "loss", val.loss, min((p.loss for p in curve if p.loss is not None), default=None)
    else:
        choose = max if record.metric.higher_is_better else min
        best = choose((p.metric for p in curve if p.metric is not None), default=None)
        where, score = f"scores.{name}", val.scores.get(name)
    if score is not None and best is not None and not math.isclose(score, best, rel_tol=1e-9):
        yield f"metrics.val.{where}: {score}, the best of the history is {best}"


def _speed_faults(record: Record) -> Iterator[str]:
    speed, seconds = record.tokens_per_second, record.seconds.train
    if speed is not None and seconds:
        # both were rounded when they were written: seconds to 1 ms, the speed to 0.1
        low, high = record.tokens / (seconds + 5e-4), record.tokens / max(seconds - 5e-4, 1e-9)
        if not low - 0.1 <= speed <= high + 0.1:
            yield f"tokens_per_second: {speed}, but {record.tokens} tokens took {seconds} s"


def _hash_faults(record: Record) -> Iterator[str]:
    """Whether the configuration is the one that was hashed, where architecture and task are installed here."""
    from zoo.spec.config import config_hash
    from zoo.spec.registry import registry

    name, version, origin = record.architecture.name, record.architecture.version, record.plugin.distribution
    architectures = [
        entry
        for entry in registry().architectures.values()
        if (entry.record.name, entry.record.version, entry.plugin.distribution) == (name, version, origin)
    ]
    task = (record.task.name, record.task.version)
    tasks = [e for e in registry().tasks.values() if (e.record.name, e.record.version) == task]
    sweep = None if record.sweep is None else record.sweep.model_dump(mode="json")
    weights = record.init.weights if record.init else ""
    expected = [config_hash(a, t, record.protocol, record.config, sweep, weights) for a in architectures for t in tasks]
    if expected and record.config_hash not in expected:
        yield f"config_hash: {record.config_hash}, its configuration gives {' or '.join(expected)}"
