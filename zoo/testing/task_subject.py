"""A task under check, and how its examples are compared: classes and labels, or questions whose answers are tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, Example, Split, TaskData
from zoo.data.prepare import open_task
from zoo.data.questions import IGNORE, Continuation, Marked, Piece, Question
from zoo.spec.architecture import Objective
from zoo.spec.errors import DataError
from zoo.spec.registry import Entry
from zoo.spec.task import Task
from zoo.testing.check import NotDeclared

LOOK = 256
"""Examples of a split that are looked at."""


@dataclass
class TaskSubject:
    """One registered task and its data."""

    entry: Entry[Task]

    def __post_init__(self) -> None:
        self.notes: list[str] = []

    @property
    def task(self) -> Task:
        return self.entry.record

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def protocol(self) -> str:
        return "smoke" if "smoke" in self.task.protocols else next(iter(self.task.protocols))

    @property
    def classes(self) -> bool:
        """Whether its answers are classes; else they are tokens."""
        return self.task.kind in ("classification", "pair_classification")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """In which forms its examples come."""
        if self.classes:
            return ("classify",)
        # a recall question is the same question however it is put
        return self.task.objectives[:1] if self.task.kind == "recall" else self.task.objectives

    def open(self, objective: Objective | None = None) -> TaskData:
        """The data anew, prepared."""
        data = open_task(self.task, self.protocol, {})
        data.configure(
            batch_size=8,
            eval_batch_size=8,
            seed=0,
            round_of=lambda: (0, 64),
            objective=objective or self.objectives[0],
        )
        try:
            data.prepare()
        except DataError as error:
            raise NotDeclared(f"no data on this machine: {error}") from error
        return data

    @cached_property
    def data(self) -> TaskData:
        return self.open()

    @property
    def longest(self) -> int:
        """The longest example that the options allow, in any split."""
        options = self.data.options
        return int(getattr(options, "longest", 0) or getattr(options, "seq_len", 0) or self.task.length)

    @property
    def vocab_size(self) -> int:
        return int(getattr(self.data.options, "vocab_size", self.task.vocab_size))

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those of every task, and "length_generalization" where there is one."""
        return (*SPLITS, LENGTH_GENERALIZATION) if self.data.has(LENGTH_GENERALIZATION) else SPLITS

    def examples(self, split: Split, limit: int = LOOK, data: TaskData | None = None) -> list[Example]:
        """The first examples of a split."""
        rows = (data or self.data).dataset(split)
        return [rows[i] for i in range(min(limit, len(rows)))]  # type: ignore[arg-type]


def telling(row: Example) -> bool:
    """Whether an example is long enough that having it twice is no accident: a piece of text may be a bare heading."""
    return not isinstance(row, Piece) or len(row.ids) >= 64


def digests(rows: Iterable[Example], *, answers: bool = True) -> list[str]:
    """A name for each example that is different when the example is, with its answers or without."""
    return [_digest(row, answers) for row in rows]


def _digest(row: Example, answers: bool) -> str:
    if isinstance(row, Continuation):
        read, told = row.prompt, row.answer.tolist()
    elif isinstance(row, Marked | Piece):
        read, told = row.ids, row.labels.tolist()
    else:
        read, told = row[0], row[1]
    name = hashlib.sha256(np.ascontiguousarray(read).tobytes()).hexdigest()
    return name + str(told) if answers else name


def question_faults(question: Question, objective: Objective, vocab_size: int, longest: int, slots: int) -> list[str]:
    """What is wrong with a question: ids and answers within the vocabulary, lengths within the task's."""
    if isinstance(question, Continuation):
        read, told = question.prompt, question.answer
        room = longest - {"infilling": slots, "causal_lm": len(told) - 1}.get(objective, 0)
        if objective != "causal_lm" and len(told) + 1 > slots:
            return [f"an answer of {len(told)} tokens and its end symbol for {slots} slots"]
    else:
        read, room = question.ids, longest
        if len(question.labels) != len(read):
            return [f"{len(question.labels)} labels for {len(read)} tokens"]
        told = question.labels[question.labels != IGNORE]
    faults = []
    if not 1 <= len(read) <= room:
        faults.append(f"{len(read)} tokens, the longest may have {room}")
    if not len(told):
        faults.append("nothing is asked")
    for what, ids in (("id", read), ("answer", told)):
        if len(ids) and not (int(ids.min()) >= 1 and int(ids.max()) < vocab_size):
            faults.append(f"{what}s {int(ids.min())} to {int(ids.max())}, expected 1 to {vocab_size - 1}")
    return faults
