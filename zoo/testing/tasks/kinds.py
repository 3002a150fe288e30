"""The one place where the checks distinguish kinds of tasks: what examples look like, and what makes one valid."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.batch import collate_sequences
from zoo.data.module import Example, Split
from zoo.data.questions import IGNORE, Continuation, Marked, Piece, Question
from zoo.spec.architecture import Objective
from zoo.spec.task import Task

if TYPE_CHECKING:
    from zoo.testing.tasks.subject import TaskSubject


class ClassExamples:
    """Examples (inputs, class label) with inputs (L,), or (2, L) for pairs.

    has_classes              answers are class labels; otherwise they are tokens, and the task computes the scores
    same_for_all_objectives  examples do not depend on the objective
    """

    has_classes = True
    same_for_all_objectives = True

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    def objectives(self, task: Task) -> tuple[Objective, ...]:
        """The objectives under which models are trained on the task."""
        return ("classify",)

    def inputs_and_answers(self, example: Any) -> tuple[np.ndarray, Any]:
        """What a model reads of an example, and what it has to predict."""
        return example[0], example[1]

    def example_faults(self, example: Any, split: Split, subject: TaskSubject) -> list[str]:
        """What is wrong with the dimensions, length, token ids and labels of an example."""
        inputs, label = np.asarray(example[0]), example[1]
        if inputs.ndim != self.dimensions:
            return [f"{inputs.ndim} dimensions, expected {self.dimensions}"]
        faults = _range_faults("length", [inputs.shape[-1]], 1, subject.longest)
        faults += _range_faults("label", [label], 0, subject.task.classes - 1)
        if not np.issubdtype(inputs.dtype, np.floating):
            return faults + _range_faults("token ids", inputs, 0, subject.vocab_size - 1)
        return faults + ([] if np.isfinite(inputs).all() else ["values that are not finite"])

    def assert_batches_right_padded(self, subject: TaskSubject) -> None:
        """Batches hold every example, and their masks cover exactly the real tokens."""
        rows = subject.examples("train", 16)
        batch = collate_sequences(rows)  # type: ignore[arg-type]
        sizes = batch.inputs.shape[0], batch.labels.shape[0]
        assert sizes == (len(rows), len(rows)), (
            f"{len(rows)} examples make a batch of {sizes[0]} with {sizes[1]} labels"
        )
        if self.dimensions == 1:
            lengths = [len(row[0]) for row in rows]
            masked = [batch.inputs.shape[1]] * len(rows) if batch.mask is None else batch.mask.sum(1).tolist()
            assert masked == lengths, f"the mask has {masked} real tokens, the examples {lengths}"


class TokenExamples:
    """Questions whose answers are tokens: `Marked`, `Continuation` or `Piece`. Methods as in `ClassExamples`."""

    has_classes = False

    def __init__(self, same_for_all_objectives: bool) -> None:
        self.same_for_all_objectives = same_for_all_objectives

    def objectives(self, task: Task) -> tuple[Objective, ...]:
        return task.objectives

    def inputs_and_answers(self, example: Any) -> tuple[np.ndarray, Any]:
        if isinstance(example, Continuation):
            return example.prompt, example.answer.tolist()
        return example.ids, example.labels.tolist()

    def example_faults(self, example: Any, split: Split, subject: TaskSubject) -> list[str]:
        if not isinstance(example, Marked | Continuation | Piece):
            return [f"{type(example).__name__}, expected Marked, Continuation or Piece"]
        longest = subject.longest
        if split == "train":  # seq_len bounds training examples; other splits may have longer ones
            longest = min(getattr(subject.data.options, "seq_len", longest), longest)
        slots, groups = subject.data.specials.slots, len(subject.data.groups(split))
        own = (subject.objective,)
        faults = [
            f"{objective}: {fault}"
            for objective in (subject.task.objectives if self.same_for_all_objectives else own)
            for fault in _question_faults(example, objective, subject.vocab_size, longest, slots)
        ]
        return faults + _range_faults("group", [getattr(example, "group", 0)], 0, max(groups, 1) - 1)

    def assert_batches_right_padded(self, subject: TaskSubject) -> None:
        for split in subject.splits:
            loader = subject.data.train_dataloader() if split == "train" else subject.data.eval_dataloader(split)
            batch = next(iter(loader))
            scored = batch.labels != IGNORE
            assert scored.any(), f"{split}: the first batch has no labels"
            read = batch.inputs if batch.target is None else batch.target
            shapes = f"{tuple(batch.labels.shape)} and {tuple(read.shape)}"
            assert batch.labels.shape == read.shape, f"{split}: labels and inputs have shapes {shapes}"
            if batch.mask is not None:
                pads = ~batch.mask
                assert not (pads[:, :-1] & batch.mask[:, 1:]).any(), f"{split}: a pad precedes a token"
                labelled_pads = batch.target is None and bool((scored & pads).any())
                assert not labelled_pads, f"{split}: a pad has a label"


class OtherExamples:
    """Examples of a plugin's own kind, of which only what `zoo.kinds.TaskKind` promises can be checked."""

    has_classes = True
    same_for_all_objectives = True

    def objectives(self, task: Task) -> tuple[Objective, ...]:
        kind = task.load_kind()
        return (kind.objective(kind.modes[0]),)

    def inputs_and_answers(self, example: Any) -> tuple[np.ndarray, Any]:
        return np.frombuffer(pickle.dumps(example), np.uint8), None

    def example_faults(self, example: Any, split: Split, subject: TaskSubject) -> list[str]:
        json.dumps(subject.task.load_kind().example_to_json(subject.data, split, example))
        return []

    def assert_batches_right_padded(self, subject: TaskSubject) -> None:
        for split in subject.splits:
            loader = subject.data.train_dataloader() if split == "train" else subject.data.eval_dataloader(split)
            batch = next(iter(loader))
            assert len(batch.inputs) == len(batch.labels), f"{split}: labels and inputs differ in number"
            if batch.mask is not None:
                pads = ~batch.mask
                assert not (pads[..., :-1] & batch.mask[..., 1:]).any(), f"{split}: a pad precedes a token"


Format = ClassExamples | TokenExamples | OtherExamples
FORMATS: dict[str, Format] = {
    "classification": ClassExamples(dimensions=1),
    "pair_classification": ClassExamples(dimensions=2),
    "language_modeling": TokenExamples(same_for_all_objectives=False),
    "recall": TokenExamples(same_for_all_objectives=True),
}


def is_distinctive(example: Example) -> bool:
    """Whether two examples like this one are no accident: running text may hold a bare heading twice."""
    return not isinstance(example, Piece) or len(example.ids) >= 64


def _question_faults(
    question: Question, objective: Objective | None, vocab_size: int, longest: int, slots: int
) -> list[str]:
    if isinstance(question, Continuation):
        inputs, answers = question.prompt, question.answer
        if objective != "causal_lm" and len(answers) + 1 > slots:
            return [f"an answer of {len(answers)} tokens and its end symbol for {slots} slots"]
        # of `longest` tokens the answer takes the slots, or all but its last token
        longest -= slots if objective == "infilling" else len(answers) - 1 if objective == "causal_lm" else 0
    else:
        inputs, answers = question.ids, question.labels[question.labels != IGNORE]
        if len(question.labels) != len(inputs):
            return [f"{len(question.labels)} labels for {len(inputs)} tokens"]
    return [
        *_range_faults("length", [len(inputs)], 1, longest),
        *([] if len(answers) else ["no token has a label"]),
        *_range_faults("token ids", inputs, 1, vocab_size - 1),
        *_range_faults("answers", answers, 1, vocab_size - 1),
    ]


def _range_faults(what: str, values: Any, lowest: int, highest: int) -> list[str]:
    """A message unless all values are in [lowest, highest]."""
    if not len(values) or (np.min(values) >= lowest and np.max(values) <= highest):
        return []
    least, most = int(np.min(values)), int(np.max(values))
    return [f"{what} {least if least == most else f'{least} to {most}'}, expected {lowest} to {highest}"]
