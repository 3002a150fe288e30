"""The conformance checks of tasks, in the order in which they run.

A task is tested under its smallest protocol, on the user's files or on the task's sample files. What differs between
kinds of tasks is seen in batches of one example, which every kind makes (`zoo.kinds.TaskKind.build_collate_fn`).
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from zoo.data.batch import Batch
from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, LoaderConfig, Split, TaskData, Totals
from zoo.data.paths import data_dir
from zoo.data.prepare import compose_options, open_task
from zoo.data.progress import quiet
from zoo.data.questions import IGNORE, Continuation, Piece
from zoo.kinds import TaskKind
from zoo.kinds.classification import Classification
from zoo.kinds.questions import Recall
from zoo.spec.architecture import Objective
from zoo.spec.errors import MissingFiles, did_you_mean
from zoo.spec.record import DataInfo
from zoo.spec.registry import Entry, registry
from zoo.spec.store import describe
from zoo.spec.task import PROTOCOLS, Task
from zoo.testing import expect
from zoo.testing.check import Checks, NoData, NotDeclared

EXAMPLES = 256
"""Examples of a split that are checked."""
COMPARED = 20_000
"""Examples of a split that are compared with those of the others."""


@dataclass
class TaskSubject:
    """A registered task, or one of its objectives, and its data.

    objective  the objective of a case; None for the task as a whole
    root       the data directory, once the data are prepared: the user's, or a temporary one with sample files
    """

    entry: Entry[Task]
    objective: Objective | None = None
    notes: list[str] = field(default_factory=list)
    root: Path | None = None
    sample_folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def find(cls, name: str) -> TaskSubject:
        """Look up a registered task. Raises UnknownName with the nearest names."""
        return cls(registry().task(name))

    @property
    def task(self) -> Task:
        return self.entry.record

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def label(self) -> str:
        return self.objective or ""

    @cached_property
    def kind(self) -> TaskKind:
        return self.task.load_kind()

    @property
    def has_token_answers(self) -> bool:
        """Whether answers are tokens, whose scores the task computes."""
        return isinstance(self.kind, Recall)

    @property
    def objectives(self) -> list[Objective]:
        """The objectives under which models are trained on the task."""
        of_kind = dict.fromkeys(self.kind.objective(mode) for mode in self.kind.modes)
        return [objective for objective in of_kind if objective in ("classify", *self.task.objectives)]

    # -- data ------------------------------------------------------------------------------------------------------

    def as_declared(self) -> list[TaskSubject]:
        """The task without its data."""
        return [self]

    def with_data(self) -> list[TaskSubject]:
        """The task with its data prepared. Raises NoData where neither files nor sample files exist."""
        if self.root is None:
            try:
                self.open(data_dir())
                self.root = data_dir()
            except MissingFiles as error:
                if not self.task.sample_files:
                    raise NoData(str(error)) from error
                self.sample_folder = tempfile.TemporaryDirectory(prefix=f"zoo-{self.name}-")
                self.root = Path(self.sample_folder.name)
                self.task.write_sample_files(self.root)
        if self.sample_folder is not None:
            self.notes.append("on generated sample files, because the published files are not on this machine")
        return [self]

    def per_objective(self) -> list[TaskSubject]:
        """The task with its data under each objective; the cases share the data directory and the notes."""
        self.with_data()
        return [replace(self, objective=objective) for objective in self.objectives]

    def open(self, root: Path | None = None) -> TaskData:
        """Open and prepare the data anew."""
        protocol = "smoke" if "smoke" in self.task.protocols else next(iter(self.task.protocols))
        objective = self.objective or self.objectives[0]
        loading = LoaderConfig(kind=self.kind, batch_size=8, eval_batch_size=8, max_samples=64, objective=objective)
        data = open_task(self.task, protocol, {}, root or self.root, loading)
        with quiet():
            data.prepare()
        return data

    @cached_property
    def data(self) -> TaskData:
        """The prepared data, opened once per case."""
        return self.open()

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits of every task, and "length_generalization" where the task has one."""
        return (*SPLITS, LENGTH_GENERALIZATION) if self.data.has(LENGTH_GENERALIZATION) else SPLITS

    def examples(self, split: Split, limit: int = EXAMPLES, data: TaskData | None = None) -> list[Any]:
        """The first examples of a split."""
        rows = (data or self.data).dataset(split)
        return [rows[i] for i in range(min(limit, len(rows)))]

    def collate(self, examples: Sequence[Any]) -> Batch:
        """A batch of the examples, as the loaders make it."""
        return self.kind.build_collate_fn(self.data)(examples)

    def digests(self, examples: Iterable[Any]) -> list[str]:
        """A hash of each example with its answers."""
        return [digest(t for t in self.collate([example]) if t is not None) for example in examples]


def digest(arrays: Iterable[Tensor | np.ndarray]) -> str:
    """A hash of the contents of some arrays."""
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


TASK_CHECKS = Checks()
check = TASK_CHECKS.add


# -- checks --------------------------------------------------------------------------------------------------------


@check(TaskSubject.as_declared)
def spec_without_torch(subject: TaskSubject) -> None:
    """The plugin and the task's options are importable without torch."""
    expect.importable_without_torch([subject.entry.plugin.entry_point, subject.task.options])


@check(TaskSubject.as_declared)
def protocol_keys_exist(subject: TaskSubject) -> None:
    """Every protocol is known, and its configuration keys and task options are valid."""
    task = subject.task
    assert task.protocols, "no protocols, so the task cannot be run"
    for protocol, values in task.protocols.items():
        assert protocol in PROTOCOLS, f"protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}"
        compose_options(task, protocol, {})
        expect.known_settings((key for key in values if not key.startswith("task.")), f"protocol {protocol}")


@check(TaskSubject.as_declared)
def chance_is_a_uniform_guess(subject: TaskSubject) -> None:
    """`chance` is one over the number of classes."""
    task = subject.task
    if subject.has_token_answers or task.metrics[0] != "accuracy":
        raise NotDeclared("not a classification task that is ranked by accuracy")
    of_one = task.classes * (task.chance or 0.0)
    assert abs(of_one - 1) < 1e-6, f"chance is {task.chance} with {task.classes} classes"


@check(TaskSubject.per_objective)
def examples_fit_the_task(subject: TaskSubject) -> None:
    """Token ids are in the vocabulary, labels among the classes, lengths within the task's."""
    for split in subject.splits:
        rows = subject.examples(split)
        assert rows, f"{split}: no examples"
        for i, row in enumerate(rows):
            try:
                assert_fits(subject, split, subject.collate([row]))
                json.dumps(subject.kind.example_to_json(subject.data, split, row))
            except (AssertionError, ValueError, TypeError) as error:
                raise AssertionError(f"{split} example {i}: {error}") from error


def assert_fits(subject: TaskSubject, split: Split, batch: Batch) -> None:
    """Assert that a batch of one example has the dimensions, length, token ids and answers that the task declares."""
    kind, inputs, labels, options = subject.kind, batch.inputs, batch.labels, subject.data.options
    vocab_size = getattr(options, "vocab_size", subject.task.vocab_size)
    longest = getattr(options, "longest", 0) or getattr(options, "seq_len", 0) or subject.task.length
    if subject.has_token_answers and split == "train":  # other splits may have longer examples
        longest = min(getattr(options, "seq_len", longest), longest)
    in_range("length", inputs.shape[-1], 1, longest)
    if inputs.is_floating_point():
        expect.finite(inputs, "values")
    else:
        in_range("token ids", inputs, int(subject.has_token_answers), vocab_size - 1)
    if isinstance(kind, Classification):
        expected = 2 if kind.pairs else 1
        assert inputs[0].ndim == expected, f"{inputs[0].ndim} dimensions, expected {expected}"
        in_range("label", labels, 0, subject.task.classes - 1)
    if isinstance(kind, Recall):
        read, answers = inputs if batch.target is None else batch.target, labels[labels != IGNORE]
        assert labels.shape == read.shape, f"{labels.shape[1]} labels for {read.shape[1]} tokens"
        assert len(answers), "no token has a label"
        in_range("answers", answers, 1, vocab_size - 1)
        if batch.groups is not None:
            in_range("group", batch.groups, 0, max(len(subject.data.groups(split)), 1) - 1)


def in_range(what: str, values: Tensor | int, lowest: int, highest: int) -> None:
    """Assert that all values are in [lowest, highest]."""
    least, most = (int(value) for value in torch.as_tensor(values).aminmax())
    assert lowest <= least <= most <= highest, (
        f"{what} {least if least == most else f'{least} to {most}'}, expected {lowest} to {highest}"
    )


@check(TaskSubject.as_declared)
def scores_match_declared_metrics(subject: TaskSubject) -> None:
    """`score` returns the declared metrics as finite numbers, better ones for better answers."""
    if not subject.has_token_answers:
        raise NotDeclared("classification tasks are scored by zoo")
    subject.with_data()
    perfect, poor = Totals(4, 8, 8, 4, 0.1, 0.01), Totals(4, 8, 1, 0, 30.0, 250.0)
    for split in subject.splits:
        good, bad = subject.data.score(split, perfect), subject.data.score(split, poor)
        assert good, f"{split}: no scores"
        assert good.keys() == bad.keys(), f"{split}: {sorted(good)} or {sorted(bad)}, depending on the answers"
        assert all(math.isfinite(value) for value in (*good.values(), *bad.values())), f"{split}: {good}, {bad}"
    name = subject.task.metrics[0]
    good, bad = subject.data.score("test", perfect), subject.data.score("test", poor)
    assert name in good, f"the declared metric {name} is not among the scores of test: {', '.join(good)}"
    better = good[name] > bad[name] if subject.task.higher_is_better else good[name] < bad[name]
    assert better, f"{name} is {good[name]} for right answers and {bad[name]} for wrong ones"


@check(TaskSubject.per_objective)
def examples_are_reproducible(subject: TaskSubject) -> None:
    """Data that are opened again, or pickled for another process, hold the same examples."""
    again = subject.open()
    for split in subject.splits:
        first = subject.digests(subject.examples(split))
        reopened = subject.digests(subject.examples(split, data=again))
        assert first == reopened, f"{split}: other examples when the data are opened again"
        unpickled = pickle.loads(pickle.dumps(subject.data.dataset(split)))
        rows = [unpickled[i] for i in range(min(EXAMPLES, len(unpickled)))]
        assert first == subject.digests(rows), f"{split}: other examples after pickling the data set"


@check(TaskSubject.with_data)
def splits_share_no_example(subject: TaskSubject) -> None:
    """No example is in two splits, whatever its answer."""
    seen: dict[str, str] = {}
    for split in subject.splits:
        own = set()
        for row in subject.examples(split, COMPARED):
            if isinstance(row, Piece) and len(row.ids) < 64:
                continue  # running text may hold a bare heading twice
            own.add(digest([row.prompt if isinstance(row, Continuation) else subject.collate([row]).inputs]))
        shared = own & seen.keys()
        assert not shared, f"{len(shared)} examples of {split} are in {seen[min(shared)]} too"
        seen |= dict.fromkeys(own, split)


@check(TaskSubject.per_objective)
def batches_are_padded_on_the_right(subject: TaskSubject) -> None:
    """Examples of a split make one batch, whose mask covers exactly the real tokens."""
    rows = subject.examples("train", 16)
    masked, lengths = real_tokens(subject.collate(rows)), [real_tokens(subject.collate([row]))[0] for row in rows]
    assert masked == lengths, f"the mask has {masked} real tokens, the examples {lengths}"
    for split in subject.splits:
        loader = subject.data.train_dataloader() if split == "train" else subject.data.eval_dataloader(split)
        batch = next(iter(loader))
        assert len(batch.inputs) == len(batch.labels), f"{split}: labels and inputs differ in number"
        if batch.mask is not None:
            assert not (~batch.mask[..., :-1] & batch.mask[..., 1:]).any(), f"{split}: a pad precedes a token"
        if subject.has_token_answers:
            scored = batch.labels != IGNORE
            assert scored.any(), f"{split}: the first batch has no labels"
            shapes = tuple(batch.labels.shape), tuple((batch.inputs if batch.target is None else batch.target).shape)
            assert shapes[0] == shapes[1], f"{split}: labels and inputs have shapes {shapes[0]} and {shapes[1]}"
            if batch.mask is not None and batch.target is None:
                assert not (scored & ~batch.mask).any(), f"{split}: a pad has a label"


@check(TaskSubject.with_data)
def examples_are_as_long_as_declared(subject: TaskSubject) -> None:
    """Lengths by which examples come together in a batch are those of all examples, in their order."""
    for split in subject.splits:
        lengths = subject.data.batch_lengths(split)
        if lengths is None:
            continue
        n = subject.data.n_examples(split)
        assert len(lengths) == n, f"{split}: {len(lengths)} lengths of {n} examples"
        if subject.has_token_answers:
            continue  # the objective adds to them
        rows = subject.examples(split, 16)
        read = [subject.collate([row]).inputs.shape[-1] for row in rows]
        longest = max(read)
        declared = [min(int(length), longest) for length in lengths[: len(rows)]]
        assert read == declared, f"{split}: examples of {read} tokens, declared as {declared}"


def real_tokens(batch: Batch) -> list[Any]:
    """The number of real tokens of each row, of each sequence of a pair."""
    mask = torch.ones_like(batch.inputs, dtype=torch.bool) if batch.mask is None else batch.mask
    return mask.sum(-1).tolist()


@check(TaskSubject.with_data)
def provenance_matches_record_schema(subject: TaskSubject) -> None:
    """`provenance()` is valid in a record, and its counts are the numbers of examples."""
    provenance = json.loads(json.dumps(subject.data.provenance()))
    try:
        DataInfo.model_validate(provenance)
    except ValidationError as error:
        raise AssertionError(f"provenance: {'; '.join(describe(error))}") from error
    for split in SPLITS:
        declared, n = provenance["counts"].get(split), subject.data.n_examples(split)
        assert declared == n, f"provenance counts {declared} examples in {split}, but there are {n}"


@check(TaskSubject.with_data)
def verify_accepts_prepared_data(subject: TaskSubject) -> None:
    """`verify()` finds no faults in data that were just prepared."""
    faults = subject.data.verify()
    assert not faults, "; ".join(faults[:3])
