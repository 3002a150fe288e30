"""Records of a trained model's evaluation, apart from the run that trained it. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, RootModel

from zoo.spec.cost import beside_results
from zoo.spec.record import (
    Amount,
    Count,
    DataInfo,
    GroupMetrics,
    JsonObject,
    Loss,
    MetricInfo,
    Metrics,
    Number,
    Positive,
    RecordPart,
    Scores,
    Text,
    Time,
)
from zoo.spec.store import Problem, dumps, read_folder

EXTENSION_SCHEMA: Final = 1
EVALUATION_SCHEMA: Final = 1
"""The schema versions that this zoo writes."""

AS_TRAINED: Final = "none"
"""The method that changes nothing."""
ROPE_METHODS: Final = ("linear", "ntk", "dynamic", "yarn", "llama3")
METHODS: Final = (AS_TRAINED, *ROPE_METHODS, "self_extend")
"""Methods that extend a context."""


class Measured(RecordPart):
    """What all of them say.

    weights  sha256 of the model's safetensors
    seconds  of the evaluation, fine-tuning included
    """

    weights: Text
    architecture: Text
    task: Text
    seconds: Amount
    ended: Time
    versions: dict[str, str]


class Span(RecordPart):
    """What was predicted at the positions [start, stop) of an input: the mean loss, in nats."""

    start: Count
    stop: Positive
    n: Count
    loss: Loss


class ExtensionRecord(Measured):
    """A model at a length, by a method that extends its context.

    run             id of the record of the run that trained it
    method          how its positions were extended; "none": as trained
    overrides       the settings that the method changed
    trained_len     longest training input, tokens
    seq_len         longest input here, tokens
    finetune_steps  optimiser steps at this length before the evaluation
    settings        what was set for the run
    longest         longest input of the study, tokens: its running text is in documents of that length
    max_tokens      of running text that the study reads; 0 = not known
    error           why it cannot be evaluated so; then there are no scores
    scores          perplexity, or the task's own
    loss            mean, nats per prediction
    n               predictions
    positions       of running text: the loss by position
    """

    schema_version: Annotated[int, Field(ge=1)] = EXTENSION_SCHEMA
    run: Text
    protocol: Text
    seed: Count
    method: Text
    overrides: dict[str, str | int | float | bool]
    trained_len: Positive
    seq_len: Positive
    finetune_steps: Count
    settings: JsonObject = Field(default_factory=dict)
    longest: Count = 0
    max_tokens: Count = 0
    error: str = ""
    scores: Scores = Field(default_factory=dict)
    loss: Loss = None
    n: Count = 0
    positions: tuple[Span, ...] = ()

    @property
    def study(self) -> str:
        """Equal where a record was measured in the same way: by the same weights, of the same task and running text."""
        text = (self.longest, self.max_tokens) if self.positions else ()
        return json.dumps([self.weights, self.task, self.trained_len, self.settings, *text], sort_keys=True)

    @property
    def label(self) -> str:
        """The method, with the steps of fine-tuning."""
        return f"{self.method}, {self.finetune_steps} steps" if self.finetune_steps else self.method


class ScoreInterval(RecordPart):
    """A 95 % interval over test questions: binomial (Wilson's) of a share, normal of a perplexity."""

    low: Number
    high: Number
    kind: Literal["binomial", "normal"]


class EvaluatedGroup(GroupMetrics):
    """Scores of the questions at one length, depth or position, with the interval of the ranked score."""

    interval: ScoreInterval | None = None


class TokenizerInfo(RecordPart):
    """The tokenizer that a model of text reads by; "" is the sha256 of bytes."""

    name: Text
    sha256: str


class EvaluationRecord(Measured, Metrics):
    """A trained model on the test split of a task for which it was not trained again.

    checkpoint    id of the record of the run that trained it, or the name of the checkpoint's folder
    form          a run of zoo, a checkpoint that zoo converted, a Hugging Face directory, or a module in Python
    parameters    of the model, embedding and head included
    trained_len   longest training input, tokens; None: not known
    tokenizer     None for a model that reads no text
    objective     how the questions were put
    stateful      whether a state was carried from piece to piece of running text
    overrides     the task's options that the user changed
    options       all of them
    metric        the score that the interval is of
    groups        of questions that have a length, depth or position
    """

    schema_version: Annotated[int, Field(ge=1)] = EVALUATION_SCHEMA
    kind: Literal["evaluated"] = "evaluated"
    checkpoint: Text
    form: Literal["run", "zoo", "huggingface", "module"]
    parameters: Count
    trained_len: Positive | None
    tokenizer: TokenizerInfo | None
    task_version: Text
    objective: Text
    stateful: bool
    overrides: JsonObject
    options: JsonObject
    data: DataInfo
    metric: MetricInfo
    interval: ScoreInterval | None
    groups: Annotated[tuple[EvaluatedGroup, ...], Field(strict=False)] = ()

    @property
    def file(self) -> str:
        """Name of its file beside others of the checkpoint: of the task, the weights and what decides the questions."""
        apart = ("path", "tokenizer")  # where something lies on one machine
        options = {key: value for key, value in self.options.items() if key not in apart}
        tokens = self.tokenizer.sha256 if self.tokenizer else ""
        identity = json.dumps([self.weights, self.task, self.task_version, tokens, options], sort_keys=True)
        return f"{self.task}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.json"

    @property
    def id(self) -> str:
        """The path of its file below the folder of a board, without suffix."""
        return f"{self.checkpoint}/{self.file.removesuffix('.json')}"


def evaluations_dir(results_dir: Path | str) -> Path:
    """The folder of evaluations of these results: leaderboard/results -> leaderboard/evaluations."""
    return beside_results(results_dir, "evaluations")


def read_evaluations(results_dir: Path | str) -> tuple[list[EvaluationRecord], list[Problem]]:
    """Every valid evaluation of these results, and every other JSON file among them with what is wrong with it."""
    return read_folder(evaluations_dir(results_dir), EvaluationRecord)


class Extensions(RootModel[Annotated[list[ExtensionRecord], Field(min_length=1)]]):
    """What a file of the records of one run holds."""

    @property
    def id(self) -> str:
        """The path of its file below the folder, without suffix."""
        return self.root[0].run


def extensions_dir(results_dir: Path | str) -> Path:
    """The folder of the extension records of these results: leaderboard/results -> leaderboard/extensions."""
    return beside_results(results_dir, "extensions")


def read_extensions(results_dir: Path | str) -> tuple[list[list[ExtensionRecord]], list[Problem]]:
    """The extension records of these results, run by run (RUN.json), and other JSON files with what is wrong."""
    found, problems = read_folder(extensions_dir(results_dir), Extensions)
    return [each.root for each in found], problems


def parse_extensions(text: str) -> list[ExtensionRecord]:
    """The records of a file by its text. Raises pydantic's ValidationError."""
    return Extensions.model_validate_json(text).root


def dump_extensions(records: Sequence[ExtensionRecord]) -> str:
    """The text of a file of records."""
    return dumps(Extensions(list(records)))
