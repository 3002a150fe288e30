"""Consistency checks on valid records: what contradicts what follows from their other fields."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from zoo.board.frame import weighting
from zoo.board.metric import Metric
from zoo.spec.record import Metrics, Record, SplitMetrics, metric_kind
from zoo.spec.store import Problem, StoredRecord, read_all


def check_records(results_dir: Path | str) -> tuple[int, list[Problem]]:
    """The number of consistent records, and every fault of the others: schema, file name, derived fields."""
    stored, problems = read_all(results_dir)
    consistent = 0
    for one in stored:
        faults = record_faults(one)
        problems += [Problem(one.path, fault) for fault in faults]
        consistent += not faults
    return consistent, sorted(problems)


def record_faults(stored: StoredRecord) -> list[str]:
    """The contradictions within a record, one line each."""
    path, record = stored
    faults = []
    if not re.fullmatch(rf"{re.escape(record.id)}(-\d+)?\.json", path):
        faults.append(f"path: expected {record.id}.json")
    if dt.datetime.fromisoformat(record.ended) < dt.datetime.fromisoformat(record.started):
        faults.append(f"ended: {record.ended}, before it started ({record.started})")
    faults += _score_faults(record) + _history_faults(record)
    if record.metrics is not None:
        faults += _best_faults(record, record.metrics.val)
    return faults + _speed_faults(record) + _hash_faults(record)


def _score_faults(record: Record) -> list[str]:
    metric = Metric(record.metric.name, record.metric.higher_is_better)
    faults = []
    if metric.kind != "number" and metric.higher_is_better != metric.is_share:
        faults.append(f"metric.higher_is_better: {str(metric.higher_is_better).lower()}, for {metric.name}")
    for split, metrics in dict(record.metrics or {}).items():
        if metrics is None:
            continue
        where = f"metrics.{split}"
        counted = record.data.counts.get(split)
        if split != "val" and counted is not None and counted < metrics.n:
            faults.append(f"{where}.n: {metrics.n}, but the {split} split has {counted}")
        faults += _share_faults(metrics, where) + _perplexity_faults(metrics, where)
        faults += _group_faults(metrics, where, metric)
        if metrics.answers is not None and metrics.answers < metrics.n:
            faults.append(f"{where}.answers: {metrics.answers}, of {metrics.n} questions")
    return faults


def _share_faults(metrics: Metrics, where: str) -> list[str]:
    """Every accuracy must be a fraction of the questions or of the answers."""
    counts = [count for count in (metrics.n, metrics.answers) if count]
    faults = []
    for name, value in metrics.scores.items():
        if value is None or metric_kind(name) != "share":
            continue
        # accuracies are computed in single precision
        if not any(abs(value * n - round(value * n)) <= 1e-3 + 1e-6 * n for n in counts):
            of = f"{metrics.n} examples" + (f", nor of {metrics.answers} answers" if metrics.answers else "")
            faults.append(f"{where}.scores.{name}: {value} is not a fraction of {of}")
    return faults


def _perplexity_faults(metrics: Metrics, where: str) -> list[str]:
    """A perplexity is that of the mean loss per answer or per question; bits per byte that per byte, of which a word
    has at least one."""
    faults = []
    scores, loss = metrics.scores, metrics.loss
    perplexity, byte, word = (scores.get(name) for name in ("perplexity", "byte_perplexity", "word_perplexity"))
    if perplexity is not None and loss is not None:
        means = [loss, loss * (metrics.answers or metrics.n) / metrics.n]
        if not any(math.isclose(math.log(perplexity), mean, rel_tol=1e-4, abs_tol=1e-4) for mean in means):
            faults.append(f"{where}.scores.perplexity: {perplexity}, but the mean loss is {loss}")
    bits = scores.get("bits_per_byte")
    if bits is not None and byte is not None and not math.isclose(bits, math.log2(byte), rel_tol=1e-4, abs_tol=1e-4):
        faults.append(f"{where}.scores.bits_per_byte: {bits}, but the perplexity per byte is {byte}")
    if byte is not None and word is not None and word < byte * (1 - 1e-6):
        faults.append(f"{where}.scores.word_perplexity: {word}, less than that of a byte, {byte}")
    return faults


def _group_faults(metrics: SplitMetrics, where: str, metric: Metric) -> list[str]:
    """The groups must add up to the split."""
    if not metrics.groups:
        return []
    faults = [f for k, group in enumerate(metrics.groups) for f in _share_faults(group, f"{where}.groups.{k}")]
    for key, whole, parts in (
        ("n", metrics.n, [group.n for group in metrics.groups]),
        ("answers", metrics.answers, [group.answers or 0 for group in metrics.groups]),
    ):
        if whole is not None and any(parts) and sum(parts) != whole:
            faults.append(f"{where}.groups: {key} of all of them {sum(parts)}, of the split {whole}")
    # a perplexity may be per word, whose number is not recorded
    if not faults and metric.is_share and metric.name in metrics.scores and weighting(metrics, metric) is None:
        score = metrics.scores[metric.name]
        faults.append(f"{where}.groups: their {metric.name} does not average to that of the split, {score}")
    return faults


def _best_faults(record: Record, val: SplitMetrics) -> list[str]:
    """The weights of language models are those of least validation loss, of others those of the best score."""
    curve = [point for point in record.history if point.split == "val"]
    if record.task.kind == "language_modeling":
        losses = [point.loss for point in curve if point.loss is not None]
        if losses and val.loss is not None and not math.isclose(val.loss, min(losses), rel_tol=1e-9):
            return [f"metrics.val.loss: {val.loss}, the least of the history is {min(losses)}"]
        return []
    name, values = record.metric.name, [point.metric for point in curve if point.metric is not None]
    score = val.scores.get(name)
    best = (max if record.metric.higher_is_better else min)(values, default=None)
    if score is not None and best is not None and not math.isclose(score, best, rel_tol=1e-9):
        return [f"metrics.val.scores.{name}: {score}, the best of the history is {best}"]
    return []


def _history_faults(record: Record) -> list[str]:
    faults = []
    curve = [point.samples for point in record.history if point.split == "val"]
    if any(later < earlier for earlier, later in pairwise(curve)):
        faults.append("history: not in the order of training")
    last = max((point.samples for point in record.history), default=0)
    if last > record.samples:
        faults.append(f"samples: {record.samples}, but the history reaches {last}")
    return faults


def _speed_faults(record: Record) -> list[str]:
    speed, seconds = record.tokens_per_second, record.seconds.train
    if speed is None or not seconds:
        return []
    # both were rounded when they were written: seconds to 1 ms, the speed to 0.1
    low, high = record.tokens / (seconds + 5e-4), record.tokens / max(seconds - 5e-4, 1e-9)
    if not low - 0.1 <= speed <= high + 0.1:
        return [f"tokens_per_second: {speed}, but {record.tokens} tokens took {seconds} s"]
    return []


def _hash_faults(record: Record) -> list[str]:
    """Whether the configuration is the one that was hashed, for tasks that are installed here."""
    from zoo.run.identity import config_hash, later_keys
    from zoo.spec.registry import registry

    task = record.task.name
    tasks = {e.provenance.distribution: e.record for e in registry().tasks.values() if e.record.name == task}
    key = f"{record.plugin.distribution}:{record.architecture.name}"
    archs = registry().architectures.values()
    arch = next((e.record for e in archs if f"{e.provenance.distribution}:{e.record.name}" == key), None)
    values: Mapping[str, object] = record.config
    expected = [
        config_hash(
            architecture=key,
            task=f"{distribution}:{task}",
            task_version=record.task.version,
            protocol=record.protocol,
            values=dict(values),
            later=later_keys(arch, tasks[distribution]),
        )
        for distribution in sorted(tasks)
    ]
    if expected and record.config_hash not in expected:
        return [f"config_hash: {record.config_hash}, its configuration gives {' or '.join(expected)}"]
    return []
