"""Records of a trained model's evaluation, apart from the run that trained it. No torch."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Literal

from pydantic import Field, RootModel

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
from zoo.spec.store import BesideRecord

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


class EvaluationRecord(Measured, Metrics, BesideRecord):
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

    folder = "evaluations"

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
        return f"{self.checkpoint}/{self.file.removesuffix('.json')}"


class Extensions(RootModel[Annotated[list[ExtensionRecord], Field(min_length=1)]], BesideRecord):
    """The records of one run beyond its training length, which share a file."""

    folder = "extensions"

    @property
    def id(self) -> str:
        return self.root[0].run
