"""A task under test: opens its data, from the user's files or from the task's sample files."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, Example, LoaderConfig, Split, TaskData
from zoo.data.paths import data_dir
from zoo.data.prepare import open_task
from zoo.data.progress import quiet
from zoo.spec.architecture import Objective
from zoo.spec.errors import MissingFiles
from zoo.spec.registry import Entry, registry
from zoo.spec.task import Task
from zoo.testing.check import NoData, Scope
from zoo.testing.tasks.kinds import FORMATS, Format, OtherExamples

EXAMPLES = 256
"""Examples of a split that are checked."""


@dataclass
class TaskSubject:
    """A registered task, or one of its objectives, and its data under its smallest protocol.

    objective      the objective of a case; None for the task as a whole
    sample_folder  the temporary data directory, where the task's sample files stand in for the user's
    """

    entry: Entry[Task]
    objective: Objective | None = None
    notes: list[str] = field(default_factory=list)
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

    @property
    def protocol(self) -> str:
        """ "smoke", or the first protocol of a task that has none of this name."""
        return "smoke" if "smoke" in self.task.protocols else next(iter(self.task.protocols))

    @property
    def format(self) -> Format:
        """What examples of the task's kind look like."""
        return FORMATS.get(self.task.kind) or OtherExamples()

    # -- data ------------------------------------------------------------------------------------------------------

    def with_data(self) -> TaskSubject:
        """Prepare the data and return this subject. Raises NoData where neither files nor sample files exist."""
        self.root  # noqa: B018  (prepares)
        if self.sample_folder is not None:
            self.notes.append("on generated sample files, because the published files are not on this machine")
        return self

    def per_objective(self, objectives: Sequence[Objective]) -> list[TaskSubject]:
        """One case per objective; they share the data directory and the notes."""
        self.with_data()
        cases = [copy.copy(self) for _ in objectives]
        for case, objective in zip(cases, objectives, strict=True):
            case.objective = objective
            case.__dict__.pop("data", None)
        return cases

    @cached_property
    def root(self) -> Path:
        """The user's data directory if the task can be prepared from it, else one with the task's sample files."""
        try:
            self.open(data_dir())
            return data_dir()
        except MissingFiles as error:
            if not self.task.sample_files:
                raise NoData(str(error)) from error
        self.sample_folder = tempfile.TemporaryDirectory(prefix=f"zoo-{self.name}-")
        folder = Path(self.sample_folder.name)
        self.task.write_sample_files(folder)
        return folder

    def open(self, root: Path | None = None) -> TaskData:
        """Open and prepare the data anew."""
        loading = LoaderConfig(
            kind=self.task.load_kind(),
            batch_size=8,
            eval_batch_size=8,
            max_samples=64,
            objective=self.objective or self.format.objectives(self.task)[0],
        )
        data = open_task(self.task, self.protocol, {}, root or self.root, loading)
        with quiet():
            data.prepare()
        return data

    @cached_property
    def data(self) -> TaskData:
        """The prepared data, opened once per case."""
        return self.open()

    @property
    def longest(self) -> int:
        """Tokens of the longest example that the options allow, in any split."""
        options = self.data.options
        return int(getattr(options, "longest", 0) or getattr(options, "seq_len", 0) or self.task.length)

    @property
    def vocab_size(self) -> int:
        """Token ids under the task's options."""
        return int(getattr(self.data.options, "vocab_size", self.task.vocab_size))

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits of every task, and "length_generalization" where the task has one."""
        return (*SPLITS, LENGTH_GENERALIZATION) if self.data.has(LENGTH_GENERALIZATION) else SPLITS

    def digests(self, examples: Iterable[Example], *, answers: bool = True) -> list[str]:
        """A hash of each example, with its answers or without."""
        pairs = [self.format.inputs_and_answers(example) for example in examples]
        hashes = [hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest() for inputs, _ in pairs]
        return [f"{hashed} {answer}" for hashed, (_, answer) in zip(hashes, pairs, strict=True)] if answers else hashes

    def examples(self, split: Split, limit: int = EXAMPLES, data: TaskData | None = None) -> list[Example]:
        """The first examples of a split."""
        rows = (data or self.data).dataset(split)
        return [rows[i] for i in range(min(limit, len(rows)))]  # type: ignore[arg-type]


# -- what checks apply to ------------------------------------------------------------------------------------------

METADATA: Scope[TaskSubject] = Scope(lambda subject: [subject])
DATA: Scope[TaskSubject] = Scope(lambda subject: [subject.with_data()])
PER_OBJECTIVE: Scope[TaskSubject] = Scope(lambda s: s.per_objective(s.format.objectives(s.task)))
PER_DISTINCT_OBJECTIVE: Scope[TaskSubject] = Scope(
    lambda s: s.per_objective(s.format.objectives(s.task)[: 1 if s.format.same_for_all_objectives else None])
)
"""One objective is enough where examples do not depend on it."""
UNIFORM_CHANCE: Scope[TaskSubject] = Scope(
    lambda s: [s] if s.format.has_classes and s.task.metrics[0] == "accuracy" else [],
    "not a classification task that is ranked by accuracy",
)
SCORED_BY_TASK: Scope[TaskSubject] = Scope(
    lambda s: [] if s.format.has_classes else [s.with_data()], "classification tasks are scored by zoo"
)
