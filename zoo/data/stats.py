"""What a task's data look like: labels or answers, lengths, groups, what is cut."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeGuard

import numpy as np

from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, Split, TaskData
from zoo.data.questions import IGNORE, Continuation, Question

LOOK = 2_000
"""Examples that are looked at, evenly spread, where the task does not know without decoding them."""
BINS = 10


def split_stats(data: TaskData) -> list[dict[str, Any]]:
    """One row per split.

    labels     how often each class is the answer; of questions instead
    answers    {"asked": tokens asked for, "distinct", "most": share of the commonest}, of the examples looked at
    groups     what the questions are told apart by, and how many there are of each, of the examples looked at
    looked_at  how many examples were measured for lengths, answers and groups
    lengths    {"edges": [BINS + 1], "counts": [BINS]}: tokens before anything is cut, for matching of both documents
    truncated  examples that lose their end (of a text before an answer: their beginning) because they are longer than
               the task allows
    left_out   examples of the user's files that are not used, a line each
    """
    left_out, majority = data.left_out(), data.majority()
    rows = []
    for split in (*SPLITS, LENGTH_GENERALIZATION):
        if data.has(split):
            row = _questions(data, split) if _asks(data) else _classes(data, split)
            row |= {"majority": None if majority is None else round(majority, 4), "left_out": left_out}
            rows.append(row)
    return rows


def _asks(data: TaskData) -> bool:
    """Whether the answers are tokens."""
    return is_question(data.dataset("train")[0])


def is_question(example: Any) -> TypeGuard[Question]:
    """Whether an example is a question, which classification and matching have not."""
    return isinstance(example, Question)


def _classes(data: TaskData, split: Split) -> dict[str, Any]:
    labels, known = data.labels(split), data.lengths(split)
    if known is None:
        examples = data.dataset(split)
        known = np.array([examples[i][0].shape[-1] for i in spread(len(labels))])
    return {"split": split, "n": len(labels), "labels": np.bincount(labels).tolist(), **_measured(data, split, known)}


def _questions(data: TaskData, split: Split) -> dict[str, Any]:
    examples, groups = data.dataset(split), data.groups(split)
    size = len(examples)  # type: ignore[arg-type]
    looked: list[Question] = [examples[i] for i in spread(size)]  # type: ignore[misc]
    answers = np.concatenate([answer_of(question) for question in looked])
    counts = np.unique(answers, return_counts=True)[1]
    told = Counter(getattr(question, "group", 0) for question in looked)
    known = data.lengths(split)
    if known is None:
        known = np.array([tokens_of(question) for question in looked])
    return {
        "split": split,
        "n": size,
        "looked_at": len(looked),
        "answers": {
            "asked": len(answers),
            "distinct": len(counts),
            "most": round(float(counts.max() / len(answers)), 4) if len(answers) else 0.0,
        },
        "groups": [{**what, "n": told[i]} for i, what in enumerate(groups)],
        **_measured(data, split, known),
    }


def _measured(data: TaskData, split: Split, found: np.ndarray) -> dict[str, Any]:
    lengths = np.asarray(found)
    top = int(lengths.max())
    edges = sorted({int(e) for e in np.ceil(np.linspace(int(lengths.min()), top + 1, BINS + 1))})
    longest = lengths.reshape(len(lengths), -1).max(1)
    # what the model is built for, where that is more than in training
    room = int(getattr(data.options, "longest", 0) or getattr(data.options, "seq_len", 0))
    return {
        "mean length": round(float(lengths.mean()), 1),
        "longest": top,
        "truncated": int((longest > room).sum()) if room else 0,
        "lengths": {"edges": edges, "counts": np.histogram(lengths, edges)[0].tolist()},
    }


def answer_of(question: Question) -> np.ndarray:
    """The tokens that a question asks for, (k,)."""
    if isinstance(question, Continuation):
        return question.answer
    return question.labels[question.labels != IGNORE]


def tokens_of(question: Question) -> int:
    """Tokens of a question with its answer."""
    return len(question[0]) + (len(question.answer) if isinstance(question, Continuation) else 0)


def spread(size: int, most: int = LOOK) -> list[int]:
    """At most `most` indices below `size`, evenly."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64)).tolist()
