"""What in the scores of a record of sound shape contradicts each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.board.rows import weighing
from zoo.board.scale import COUNTS, Scale, scale_of

Scores = Mapping[str, Any]


def score_faults(record: Mapping[str, Any]) -> list[str]:
    """Shares that are none, perplexities that no loss gives, groups that do not make the whole, a validation score
    that is not the best of its curve; one line each."""
    scale = scale_of(record)
    faults = []
    if scale.higher != (scale.kind not in ("perplexity", "bits")) and scale.kind != "number":
        faults.append(f"metric.higher_is_better: {str(scale.higher).lower()}, for {scale.name}")
    for split, scores in (record["metrics"] or {}).items():
        where = f"metrics.{split}"
        faults += _shares(scores, where) + _perplexities(scores, where) + _groups(scores, where, scale)
        if scores.get("answers", math.inf) < scores["n"]:
            faults.append(f"{where}.answers: {scores['answers']}, of {scores['n']} questions")
    return faults + (_best(record, scale) if record["metrics"] else [])


def _shares(scores: Scores, where: str) -> list[str]:
    """Every accuracy is a share of the questions or of the answers."""
    counts = [scores[key] for key in ("n", "answers") if key in scores]
    faults = []
    for name, value in scores.items():
        # accuracies are computed in single precision
        if name not in COUNTS and Scale(name).share and not any(_whole(value * n, 1e-3 + 1e-6 * n) for n in counts):
            of = f"{scores['n']} examples" + (f", nor of {scores['answers']} answers" if "answers" in scores else "")
            faults.append(f"{where}.{name}: {value} is no share of {of}")
    return faults


def _whole(value: float, tolerance: float) -> bool:
    return abs(value - round(value)) <= tolerance


def _perplexities(scores: Scores, where: str) -> list[str]:
    """A perplexity is that of the mean loss per answer or per question; bits per byte that per byte, of which a word
    has at least one."""
    faults = []
    found = {name: scores.get(name) for name in ("perplexity", "loss", "byte_perplexity", "word_perplexity")}
    told, loss, byte, word = found.values()
    if told is not None and loss is not None:
        means = [loss, loss * scores.get("answers", scores["n"]) / scores["n"]]
        if not any(math.isclose(math.log(told), mean, rel_tol=1e-4, abs_tol=1e-4) for mean in means):
            faults.append(f"{where}.perplexity: {told}, but the mean loss is {loss}")
    bits = scores.get("bits_per_byte")
    if bits is not None and byte is not None and not math.isclose(bits, math.log2(byte), rel_tol=1e-4, abs_tol=1e-4):
        faults.append(f"{where}.bits_per_byte: {bits}, but the perplexity per byte is {byte}")
    if byte is not None and word is not None and word < byte * (1 - 1e-6):
        faults.append(f"{where}.word_perplexity: {word}, less than that of a byte, {byte}")
    return faults


def _groups(scores: Scores, where: str, scale: Scale) -> list[str]:
    if "groups" not in scores:
        return []
    groups: Sequence[Scores] = scores["groups"]
    faults = [fault for k, group in enumerate(groups) for fault in _shares(group, f"{where}.groups.{k}")]
    for key in ("n", "answers"):
        together = sum(group.get(key, 0) for group in groups)
        if key in scores and any(key in group for group in groups) and together != scores[key]:
            faults.append(f"{where}.groups: {key} of all of them {together}, of the whole {scores[key]}")
    # a perplexity may be per word, of which nobody tells the number
    if not faults and scale.share and scale.name in scores and weighing(scores, scale) is None:
        faults.append(f"{where}.groups: their {scale.name} does not make that of the whole, {scores[scale.name]}")
    return faults


def _best(record: Mapping[str, Any], scale: Scale) -> list[str]:
    """Language models are chosen by the least validation loss, others by the best validation score."""
    val = record["metrics"]["val"]
    curve = [point for point in record["history"] if point["split"] == "val"]
    metrics = [point["metric"] for point in curve if point["metric"] is not None]
    losses = [point["loss"] for point in curve if point["loss"] is not None]
    by_score = by_loss = []
    if metrics and val.get(scale.name) is not None:
        best = max(metrics) if scale.higher else min(metrics)
        if not math.isclose(val[scale.name], best, rel_tol=1e-9):
            by_score = [f"metrics.val.{scale.name}: {val[scale.name]}, the best of its curve is {best}"]
    if losses and val["loss"] is not None and not math.isclose(val["loss"], min(losses), rel_tol=1e-9):
        by_loss = [f"metrics.val.loss: {val['loss']}, the least of its curve is {min(losses)}"]
    kind = _kind(record)
    if kind is None:
        # either may have chosen
        return by_score if by_score and by_loss else []
    return by_loss if kind == "language_modeling" else by_score


def _kind(record: Mapping[str, Any]) -> str | None:
    """The kind of task: as the record says, else as the task says where it is installed here."""
    from zoo.spec.registry import registry

    name = record["task"]["name"]
    offered = {entry.record.kind for entry in registry().tasks.values() if entry.record.name == name}
    return record["task"].get("kind") or (next(iter(offered)) if len(offered) == 1 else None)
