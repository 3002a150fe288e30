"""Statistics of a task's data: labels or answers, lengths, groups, truncation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, Split, TaskData
from zoo.data.questions import IGNORE, Continuation, Question
from zoo.data.splits import evenly_spaced

SAMPLE_SIZE = 2_000
"""Examples that are decoded, evenly spaced, where the task does not know its lengths otherwise."""
BINS = 10


def split_stats(data: TaskData, kind: Any) -> list[dict[str, Any]]:
    """Compute one row per split: the statistics of the task's kind (zoo.kinds.TaskKind), and

    majority  see TaskData.majority
    left_out  examples of the user's files that are not used, a line each
    """
    left_out, majority = data.left_out(), data.majority()
    common = {"majority": None if majority is None else round(majority, 4), "left_out": left_out}
    return [kind.split_stats(data, split) | common for split in (*SPLITS, LENGTH_GENERALIZATION) if data.has(split)]


def class_stats(data: TaskData, split: Split) -> dict[str, Any]:
    """Compute the statistics of a split whose labels are classes.

    labels     examples of each class
    lengths    {"edges": [BINS + 1], "counts": [BINS]}: tokens before truncation, of both documents of a pair
    truncated  examples that lose their end because they are longer than the task allows
    """
    labels, lengths = data.labels(split), data.lengths(split)
    if lengths is None:
        examples = data.dataset(split)
        lengths = np.array([examples[i][0].shape[-1] for i in evenly_spaced(len(labels), SAMPLE_SIZE)])
    return {"split": split, "n": len(labels), "labels": np.bincount(labels).tolist()} | _length_stats(data, lengths)


def question_stats(data: TaskData, split: Split) -> dict[str, Any]:
    """Compute the statistics of a split of questions.

    looked_at  number of sampled examples
    answers    {"tokens": of the answers, "distinct", "most": share of the commonest}, of the sampled examples
    groups     the groups of questions and the number of each, of the sampled examples
    lengths    {"edges": [BINS + 1], "counts": [BINS]}: tokens before truncation
    truncated  examples that lose their beginning or end because they are longer than the task allows
    """
    examples, lengths = data.dataset(split), data.lengths(split)
    size = len(examples)
    sample: list[Question] = [examples[i] for i in evenly_spaced(size, SAMPLE_SIZE)]
    answers = np.concatenate([answer_of(question) for question in sample])
    counts = np.unique(answers, return_counts=True)[1]
    groups = Counter(getattr(question, "group", 0) for question in sample)
    if lengths is None:
        lengths = np.array([question_length(question) for question in sample])
    return {
        "split": split,
        "n": size,
        "looked_at": len(sample),
        "answers": {
            "tokens": len(answers),
            "distinct": len(counts),
            "most": round(float(counts.max() / len(answers)), 4) if len(answers) else 0.0,
        },
        "groups": [{**group, "n": groups[i]} for i, group in enumerate(data.groups(split))],
        **_length_stats(data, lengths),
    }


def _length_stats(data: TaskData, lengths: np.ndarray) -> dict[str, Any]:
    top = int(lengths.max())
    edges = sorted({int(e) for e in np.ceil(np.linspace(int(lengths.min()), top + 1, BINS + 1))})
    longest = lengths.reshape(len(lengths), -1).max(1)
    # what the model is built for, where that is more than in training
    limit = int(getattr(data.options, "longest", 0) or getattr(data.options, "seq_len", 0))
    return {
        "mean length": round(float(lengths.mean()), 1),
        "longest": top,
        "truncated": int((longest > limit).sum()) if limit else 0,
        "lengths": {"edges": edges, "counts": np.histogram(lengths, edges)[0].tolist()},
    }


def answer_of(question: Question) -> np.ndarray:
    """The tokens of a question's answer, (k,)."""
    if isinstance(question, Continuation):
        return question.answer
    return question.labels[question.labels != IGNORE]


def question_length(question: Question) -> int:
    """Tokens of a question with its answer."""
    return len(question[0]) + (len(question.answer) if isinstance(question, Continuation) else 0)
