"""The conformance checks of a task's declaration and data."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle

from pydantic import ValidationError

from zoo.data.module import SPLITS, Totals
from zoo.data.prepare import compose_options
from zoo.spec.errors import did_you_mean
from zoo.spec.record import DataInfo
from zoo.spec.settings import SECTIONS
from zoo.spec.store import describe
from zoo.spec.task import PROTOCOLS
from zoo.testing import expect
from zoo.testing.check import check
from zoo.testing.tasks.kinds import is_distinctive
from zoo.testing.tasks.subject import (
    DATA,
    EXAMPLES,
    METADATA,
    PER_DISTINCT_OBJECTIVE,
    PER_OBJECTIVE,
    SCORED_BY_TASK,
    UNIFORM_CHANCE,
    TaskSubject,
)

COMPARED = 20_000
"""Examples of a split that are compared with those of the others."""


@check(METADATA)
def spec_without_torch(subject: TaskSubject) -> None:
    """The plugin and the task's options are importable without torch."""
    expect.importable_without_torch([subject.entry.plugin.entry_point, subject.task.options])


@check(METADATA)
def protocol_keys_exist(subject: TaskSubject) -> None:
    """Every protocol is known, and its configuration keys and task options are valid."""
    task = subject.task
    assert task.protocols, "no protocols, so the task cannot be run"
    known = [f"{name}.{field.name}" for name, cls in SECTIONS.items() for field in dataclasses.fields(cls)]
    for protocol, values in task.protocols.items():
        assert protocol in PROTOCOLS, f"protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}"
        compose_options(task, protocol, {})
        for key in values:
            if not key.startswith("task."):
                assert key in known, f"protocol {protocol}: key {key!r}{did_you_mean(key, known)}"


@check(UNIFORM_CHANCE)
def chance_is_a_uniform_guess(subject: TaskSubject) -> None:
    """`chance` is one over the number of classes."""
    task = subject.task
    assert abs(task.chance * task.classes - 1) < 1e-6, f"chance is {task.chance} with {task.classes} classes"


@check(PER_DISTINCT_OBJECTIVE)
def examples_fit_the_task(subject: TaskSubject) -> None:
    """Token ids are in the vocabulary, labels among the classes, lengths within the task's."""
    for split in subject.splits:
        rows = subject.examples(split)
        assert rows, f"{split}: no examples"
        for i, row in enumerate(rows):
            faults = subject.format.example_faults(row, split, subject)
            assert not faults, f"{split} example {i}: {'; '.join(faults)}"


@check(SCORED_BY_TASK)
def scores_match_declared_metrics(subject: TaskSubject) -> None:
    """`score` returns the declared metrics as finite numbers, better ones for better answers."""
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


@check(PER_DISTINCT_OBJECTIVE)
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


@check(DATA)
def splits_share_no_example(subject: TaskSubject) -> None:
    """No example is in two splits."""
    seen: dict[str, str] = {}
    for split in subject.splits:
        rows = filter(is_distinctive, subject.examples(split, COMPARED))
        own = set(subject.digests(rows, answers=False))
        shared = [digest for digest in own if digest in seen]
        assert not shared, f"{len(shared)} examples of {split} are in {seen[shared[0]]} too"
        seen |= dict.fromkeys(own, split)


@check(PER_OBJECTIVE)
def batches_are_padded_on_the_right(subject: TaskSubject) -> None:
    """Examples of a split make one batch, whose mask covers exactly the real tokens."""
    subject.format.assert_batches_right_padded(subject)


@check(DATA)
def provenance_matches_record_schema(subject: TaskSubject) -> None:
    """`provenance()` is valid in a record, and its counts are the numbers of examples."""
    provenance = json.loads(json.dumps(subject.data.provenance()))
    try:
        DataInfo.model_validate(provenance)
    except ValidationError as error:
        raise AssertionError(f"provenance: {'; '.join(describe(error))}") from error
    for split in SPLITS:
        declared, n = provenance["counts"].get(split), len(subject.data.dataset(split))  # type: ignore[arg-type]
        assert declared == n, f"provenance counts {declared} examples in {split}, but there are {n}"


@check(DATA)
def verify_accepts_prepared_data(subject: TaskSubject) -> None:
    """`verify()` finds no faults in data that were just prepared."""
    faults = subject.data.verify()
    assert not faults, "; ".join(faults[:3])
