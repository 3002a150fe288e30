"""The declaration of a task: everything that is known before its data are touched. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo.spec.architecture import API, NAME, Objective, Paper, load_object, load_subclass
from zoo.spec.constraints import validate_config
from zoo.spec.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.data.module import TaskData
    from zoo.kinds import TaskKind

KINDS = {
    "classification": "zoo.kinds.classification:Classification",
    "pair_classification": "zoo.kinds.classification:PairClassification",
    "token_classification": "zoo.kinds.classification:TokenClassification",
    "regression": "zoo.kinds.regression:Regression",
    "language_modeling": "zoo.kinds.questions:LanguageModeling",
    "recall": "zoo.kinds.questions:Recall",
}
"""The kinds of tasks that zoo brings, by name."""
LABEL = "always the most frequent label of training"
TRIVIAL_ANSWERS = {
    "classification": LABEL,
    "pair_classification": LABEL,
    "token_classification": LABEL,
    "regression": "always the mean of training",
    "language_modeling": "each token as likely as it is in the training text, whatever precedes it",
}
"""What `TaskData.majority` answers, by the kind of the task, where a task's data do not say otherwise."""
PROTOCOLS = {"smoke": "2", "quick": "2", "paper": "2"}
"""Protocols and their versions: raised when a default or the meaning of a setting of the frame changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A public file.

    name    path below the data directory, where the task's reader looks for it: "passages/test.jsonl"
    urls    where it is (http or https), in the order in which they are tried; the same bytes at each
    sha256  as published, 64 hex digits; "": none was published, the content is counted and checked by the reader
    bytes   its size as published; 0: unknown
    """

    name: str
    urls: tuple[str, ...]
    sha256: str = ""
    bytes: int = 0

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if "" in parts or ".." in parts or "\\" in self.name or ":" in self.name:
            raise ValueError(f"file name {self.name!r}: expected a path below the data directory")
        if not self.urls or any(not url.startswith(("http://", "https://")) for url in self.urls):
            raise ValueError(f"{self.name}: expected one http or https address at least, got {list(self.urls)}")
        if self.sha256 and (len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef")):
            raise ValueError(f"{self.name}: sha256 {self.sha256!r}, expected 64 hexadecimal digits")


def published_size(files: Sequence[SourceFile]) -> str:
    """The size of some files together: "12.3 MB"."""
    size = sum(file.bytes for file in files)
    return f"{size / 1e6:,.1f} MB" if all(file.bytes for file in files) else "size not published"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a task's data come from.

    identifiers  public names and addresses, for a person to read
    files        what `zoo data prepare TASK` downloads where the user's own files are not there; empty: nothing
    instead      other sets of files that hold the same examples, tried in turn where `files` cannot be had
    """

    paper: Paper | None = None
    identifiers: Mapping[str, str] = field(default_factory=dict)
    files: tuple[SourceFile, ...] = ()
    instead: tuple[tuple[SourceFile, ...], ...] = ()

    @property
    def sets(self) -> tuple[tuple[SourceFile, ...], ...]:
        """All sets of files, each of which is enough."""
        return tuple(each for each in (self.files, *self.instead) if each)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task, as `zoo_tasks()` yields it.

    version     raised whenever the same seed or file would give other examples; part of every record
    kind        one of KINDS, or "package.module:Class" of a zoo.kinds.TaskKind of the plugin's own
    vocab_size  number of token ids including padding (0), or 0 for tasks of real values; a property of this name of
                the options class overrides it
    classes     number of labels
    channels    real numbers per position of the inputs, in place of token ids; 0 = token ids
    length      the longest example of the published task, in tokens
    metrics     names; the first is what is ranked
    chance      the score of a uniform guess, None where there is none; a property of this name of the options class
                overrides it
    data        "package.module:Class", a `zoo.data.TaskData`, built from (options, root)
    options     "package.module:Dataclass" of the `task.*` keys; a field's annotation says which values it may have
                (zoo/spec/constraints.py), the docstring under it is its help. `check(self)`, where it is defined,
                raises `zoo.ConfigError(field, why)` for impossible combinations
    description, suite_description
                what the task tests, and what the tasks of its suite have in common, each in a sentence for somebody
                who does not know it; shown on the leaderboard. All tasks of a suite give the same suite_description
    trivial_answer
                what the answer does whose score `TaskData.majority` is, in half a sentence, for the leaderboard; empty:
                that of its kind, if it has one
    needs       the files that a user must bring, with their public names and sizes; empty: it can be generated anywhere
    sample_files
                "package.module:function", called with an empty folder: writes a few made-up files in the published
                layout, as they would lie in the data directory, so that `zoo check` needs no downloads; empty: none
    objectives  of tasks with token answers: the objectives that they offer (zoo/data/questions.py)
    aliases     other names of this task; a warning names the canonical one
    cost_only   protocols whose budget is too small to learn the task: their records are shown as cost, not as a score
    protocols   per protocol the dotted configuration keys it sets (`task.seq_len`, `train.max_samples`, `optim.lr` …)
    """

    name: str
    suite: str
    title: str
    version: str
    kind: str
    vocab_size: int
    classes: int
    length: int
    metrics: tuple[str, ...]
    chance: float | None
    license: str
    source: Source
    data: str
    options: str
    protocols: Mapping[str, Mapping[str, Any]]
    objectives: tuple[Objective, ...] = ("causal_lm", "infilling", "seq2seq")
    higher_is_better: bool = True
    channels: int = 0
    description: str = ""
    suite_description: str = ""
    trivial_answer: str = ""
    needs: str = ""
    sample_files: str = ""
    aliases: tuple[str, ...] = ()
    cost_only: tuple[str, ...] = ()
    api: int = API

    def __post_init__(self) -> None:
        if isinstance(self.source, Mapping):  # as JSON has it
            object.__setattr__(self, "source", Source(**self.source))
        if not self.trivial_answer:
            object.__setattr__(self, "trivial_answer", TRIVIAL_ANSWERS.get(self.kind, ""))
        for name in (self.name, *self.aliases):
            if not NAME.fullmatch(name):
                raise ValueError(f"task name {name!r}: expected lower-case letters, digits and underscores")
        if self.kind not in KINDS and ":" not in self.kind:
            raise ValueError(f"task kind {self.kind!r}: expected one of {list(KINDS)} or 'package.module:Class'")
        if not self.metrics:
            raise ValueError("a task needs at least one metric")
        for name in self.cost_only:
            if name not in self.protocols:
                raise ValueError(f"cost_only {name!r}: expected one of the protocols {list(self.protocols)}")

    def load_options(self) -> type[Any]:
        """The dataclass of the task's named settings."""
        return load_object(self.options, what=f"options of {self.name}")

    def check(self, options: Any) -> None:
        """Raise ConfigError for options that are not of their types or contradict each other."""
        try:
            validate_config(options)
        except ConfigError as error:
            raise error.under("task") from error

    def load_kind(self) -> TaskKind:
        """The kind of the task. Raises ZooError when there is none of its name."""
        return load_subclass(KINDS.get(self.kind, self.kind), "zoo.kinds:TaskKind", what=f"kind of {self.name}")()

    def load_data(self) -> type[TaskData]:
        """The task's data class."""
        return load_object(self.data, what=f"data of {self.name}")

    def write_sample_files(self, folder: Path) -> None:
        """Write the task's sample files into `folder`, to be used as a data directory."""
        load_object(self.sample_files, what=f"sample files of {self.name}")(folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReader:
    """What makes a task of a user's own data, as `zoo_data_readers()` yields it.

    settings  "package.module:Dataclass" of the `data.*` keys
    read      "package.module:function", called with (folder or file, settings): checks and prepares the data, says on
              stderr what it has inferred, and returns the fields of the Task as JSON values. Raises UserError or
              DataError that names file and row
    """

    name: str
    settings: str
    read: str
    api: int = API

    def load_settings(self) -> type[Any]:
        """The dataclass of the settings of data."""
        return load_object(self.settings, what=f"settings of {self.name}")

    def declare(self, place: Path, settings: Any) -> dict[str, Any]:
        """The fields of the task of the data in `place`."""
        return load_object(self.read, what=f"reader {self.name}")(place, settings)
