"""The record of a trained model's evaluation, apart from the run that trained it. No torch."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from zoo.spec.record import Amount, Count, Loss, Positive, RecordPart, Scores, Text, Time

EXTENSION_SCHEMA: Final = 1
"""The schema version that this zoo writes."""

AS_TRAINED: Final = "none"
"""The method that changes nothing."""


class Span(RecordPart):
    """What was predicted at the positions [start, stop) of an input: the mean loss, in nats."""

    start: Count
    stop: Positive
    n: Count
    loss: Loss


class ExtensionRecord(RecordPart):
    """A model at a length, by a method that extends its context.

    run             id of the record of the run that trained it
    weights         sha256 of its model.safetensors
    method          how its positions were extended; "none": as trained
    overrides       the settings that the method changed
    trained_len     longest training input, tokens
    seq_len         longest input here, tokens
    finetune_steps  optimiser steps at this length before the evaluation
    error           why it cannot be evaluated so; then there are no scores
    scores          perplexity, or the task's own
    loss            mean, nats per prediction
    n               predictions
    positions       of running text: the loss by position
    seconds         of the evaluation, fine-tuning included
    """

    schema_version: Annotated[int, Field(ge=1)] = EXTENSION_SCHEMA
    run: Text
    weights: Text
    architecture: Text
    task: Text
    protocol: Text
    seed: Count
    method: Text
    overrides: dict[str, str | int | float | bool]
    trained_len: Positive
    seq_len: Positive
    finetune_steps: Count
    error: str = ""
    scores: Scores = Field(default_factory=dict)
    loss: Loss = None
    n: Count = 0
    positions: tuple[Span, ...] = ()
    seconds: Amount
    ended: Time
    versions: dict[str, str]
