"""What a task's data must keep. They are prepared under `smoke`, or under the task's first protocol.

A task whose files are not on this machine is said to be so, not passed.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from zoo.data.module import SPLITS, Totals, collate
from zoo.data.prepare import compose_options
from zoo.data.questions import IGNORE, Continuation, Marked, Piece
from zoo.spec.errors import did_you_mean
from zoo.spec.record import DataInfo
from zoo.spec.settings import SECTIONS
from zoo.spec.store import describe
from zoo.spec.task import PROTOCOLS
from zoo.testing.check import NotDeclared
from zoo.testing.checks_build import require_torch_free
from zoo.testing.task_subject import LOOK, TaskSubject, digests, question_faults, telling

COMPARE = 20_000
"""Splits larger than this are compared with each other in part."""


@dataclass(frozen=True)
class TaskCheck:
    """One promise of a task, as Check is one of an architecture."""

    name: str
    function: Callable[[TaskSubject], None]

    def __call__(self, subject: TaskSubject) -> None:
        self.function(subject)


def check(function: Callable[[TaskSubject], None]) -> TaskCheck:
    return TaskCheck(function.__name__, function)


@check
def spec_without_torch(subject: TaskSubject) -> None:
    """The plugin and its options are importable without torch."""
    named = [subject.entry.provenance.entry_point, subject.task.options]
    require_torch_free(sorted({target.partition(":")[0] for target in named if target}))


@check
def protocols_name_real_keys(subject: TaskSubject) -> None:
    """Every protocol is known, its keys exist, and its options can be."""
    task = subject.task
    assert task.protocols, "no protocols: nothing can be run"
    known = [f"{name}.{field.name}" for name, cls in SECTIONS.items() for field in dataclasses.fields(cls)]
    for protocol, values in task.protocols.items():
        assert protocol in PROTOCOLS, f"protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}"
        compose_options(task, protocol, {})
        for key in values:
            if not key.startswith("task."):
                assert key in known, f"protocol {protocol}: key {key!r}{did_you_mean(key, known)}"


@check
def chance_is_a_uniform_guess(subject: TaskSubject) -> None:
    """`chance` is one over the number of classes."""
    task = subject.task
    if not subject.classes or task.metrics[0] != "accuracy":
        raise NotDeclared("not a task of classes")
    assert abs(task.chance * task.classes - 1) < 1e-6, f"chance {task.chance} with {task.classes} classes"


@check
def examples_fit_the_task(subject: TaskSubject) -> None:
    """Ids are in the vocabulary, labels among the classes, lengths within the task's."""
    if not subject.classes:
        _questions_fit(subject)
        return
    task = subject.task
    for split in SPLITS:
        rows = subject.examples(split)
        assert rows, f"{split}: no examples"
        for i, (inputs, label) in enumerate(rows):  # type: ignore[misc]
            array = np.asarray(inputs)
            where = f"{split} example {i}"
            assert array.ndim == (2 if task.kind == "pair_classification" else 1), f"{where}: {array.ndim} dimensions"
            assert 1 <= array.shape[-1] <= subject.longest, (
                f"{where}: {array.shape[-1]} tokens, the longest is {subject.longest}"
            )
            assert 0 <= label < task.classes, f"{where}: label {label} of {task.classes} classes"
            if np.issubdtype(array.dtype, np.floating):
                assert np.isfinite(array).all(), f"{where}: values that are not finite"
            else:
                low, high = array.min(), array.max()
                assert low >= 0, f"{where}: id {low}"
                assert high < subject.vocab_size, f"{where}: id {high}, the vocabulary has {subject.vocab_size}"


def _questions_fit(subject: TaskSubject) -> None:
    for objective in subject.objectives:
        data = subject.open(objective)
        for split in subject.splits:
            groups = data.groups(split)
            rows = subject.examples(split, data=data)
            assert rows, f"{split}: no examples"
            # in training nothing is longer than seq_len; the longest of all may be in another split
            longest = min(getattr(data.options, "seq_len", subject.longest), subject.longest)
            for i, row in enumerate(rows):
                assert isinstance(row, Marked | Continuation | Piece), f"{split} example {i}: no question"
                bound = longest if split == "train" else subject.longest
                # a recall question is the same however it is put, and must fit every form
                for form in subject.task.objectives if subject.task.kind == "recall" else (objective,):
                    faults = question_faults(row, form, subject.vocab_size, bound, data.specials.slots)
                    assert not faults, f"{form}, {split} example {i}: {'; '.join(faults)}"
                group = getattr(row, "group", 0)
                assert 0 <= group < max(len(groups), 1), f"{split} example {i}: group {group} of {len(groups)}"


@check
def scores_are_the_tasks_own(subject: TaskSubject) -> None:
    """`score` gives what the task says it is ranked by, and finite numbers."""
    if subject.classes:
        raise NotDeclared("a task of classes is scored by the frame")
    perfect, poor = Totals(4, 8, 8, 4, 0.1, 0.01), Totals(4, 8, 1, 0, 30.0, 250.0)
    for split in subject.splits:
        good, bad = subject.data.score(split, perfect), subject.data.score(split, poor)
        assert good, f"{split}: no scores"
        assert good.keys() == bad.keys(), f"{split}: {sorted(good)} or {sorted(bad)}"
        assert all(math.isfinite(value) for value in (*good.values(), *bad.values())), f"{split}: {good}, {bad}"
    name = subject.task.metrics[0]
    good, bad = subject.data.score("test", perfect), subject.data.score("test", poor)
    assert name in good, f"test is ranked by {name}, scored are {', '.join(good)}"
    better = good[name] > bad[name] if subject.task.higher_is_better else good[name] < bad[name]
    assert better, f"{name} of right answers {good[name]}, of wrong ones {bad[name]}"


@check
def examples_come_back(subject: TaskSubject) -> None:
    """Opened again, the same examples; and a data set can be sent to another process."""
    for objective in subject.objectives:
        data, again = subject.open(objective), subject.open(objective)
        for split in subject.splits:
            first = digests(subject.examples(split, data=data))
            assert first == digests(subject.examples(split, data=again)), f"{split}: other examples when opened again"
            sent = pickle.loads(pickle.dumps(data.dataset(split)))
            rows = [sent[i] for i in range(min(LOOK, len(sent)))]
            assert first == digests(rows), f"{split}: other examples in another process"


@check
def splits_share_no_example(subject: TaskSubject) -> None:
    """What is tested was not trained or validated on."""
    seen: dict[str, str] = {}
    for split in subject.splits:
        own = set(digests(filter(telling, subject.examples(split, COMPARE)), answers=False))
        shared = [d for d in own if d in seen]
        assert not shared, f"{len(shared)} examples of {split} are in {seen[shared[0]]} too"
        seen |= dict.fromkeys(own, split)


@check
def batches_are_padded_on_the_right(subject: TaskSubject) -> None:
    """Examples of a split make one batch, whose mask covers exactly what is real."""
    rows = subject.examples("train", 16)
    if not subject.classes:
        _questions_make_batches(subject)
        return
    batch = collate(rows)  # type: ignore[arg-type]
    assert batch.inputs.shape[0] == batch.labels.shape[0] == len(rows), "a batch lost examples"
    if subject.task.kind == "pair_classification":
        return
    lengths = [np.asarray(row[0]).shape[-1] for row in rows]
    found = [batch.inputs.shape[1]] * len(rows) if batch.mask is None else batch.mask.sum(1).tolist()
    assert found == lengths, f"mask counts {found}, the examples have {lengths}"


def _questions_make_batches(subject: TaskSubject) -> None:
    recall = subject.task.kind == "recall"
    for objective in subject.task.objectives if recall else subject.objectives:
        data = subject.open(objective)
        for split in subject.splits:
            loader = data.train_dataloader() if split == "train" else data.eval_dataloader(split)
            batch = next(iter(loader))
            asked = batch.labels != IGNORE
            assert asked.any(), f"{objective}, {split}: the first batch asks nothing"
            read = batch.inputs if batch.target is None else batch.target
            assert batch.labels.shape == read.shape, f"{objective}, {split}: labels and inputs differ in shape"
            if batch.mask is not None:
                pads = ~batch.mask
                assert not (pads[:, :-1] & batch.mask[:, 1:]).any(), f"{objective}, {split}: a pad before a token"
                silent = batch.target is not None or not (asked & pads).any()
                assert silent, f"{objective}, {split}: a pad is asked"


@check
def provenance_fits_a_record(subject: TaskSubject) -> None:
    """`provenance()` is what a record holds, and its counts are true."""
    told = subject.data.provenance()
    try:
        DataInfo.model_validate(told)
    except ValidationError as error:
        wrong = describe(error, told)
        raise AssertionError(f"provenance: {'; '.join(wrong)}") from error
    for split in SPLITS:
        n = len(subject.data.dataset(split))  # type: ignore[arg-type]
        assert told["counts"].get(split) == n, (
            f"provenance counts {told['counts'].get(split)} in {split}, there are {n}"
        )


@check
def prepared_data_verify(subject: TaskSubject) -> None:
    """`verify()` finds nothing wrong with what was just prepared."""
    wrong = subject.data.verify()
    assert not wrong, "; ".join(wrong[:3])


TASK_CHECKS: tuple[TaskCheck, ...] = (
    spec_without_torch,
    protocols_name_real_keys,
    chance_is_a_uniform_guess,
    examples_fit_the_task,
    scores_are_the_tasks_own,
    examples_come_back,
    splits_share_no_example,
    batches_are_padded_on_the_right,
    provenance_fits_a_record,
    prepared_data_verify,
)
