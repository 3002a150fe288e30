"""The record of what a trained model does with its context (`zoo analyze`). No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from zoo.spec.record import Amount, Count, Loss, Number, Positive, RecordPart, Spread, Text, Time
from zoo.spec.store import BesideRecord

ANALYSIS_SCHEMA: Final = 2
"""The schema version that this zoo writes. 2: repeated tokens stand behind the symbol that begins a text."""
ANALYSES: Final = ("context", "induction", "positions")
PLACES: Final = ("depth", "position")
"""What tasks call the place of an answer: from 0 to 1, or counted from 0."""

ENOUGH: Final = 0.95
"""Of the gain from one token to all."""

Share = Annotated[float, Field(ge=0, le=1)]


class LossAt(RecordPart):
    """The mean loss of the predictions, in nats, where the last `tokens` tokens are as they were."""

    tokens: Positive
    loss: Loss
    stderr: Spread


class GradientAt(RecordPart):
    """The mean norm of the gradient of a prediction's loss by the embedding of a token [start, stop) tokens before the
    last one, over n such tokens."""

    start: Count
    stop: Positive
    n: Positive
    norm: Amount


class ContextAnalysis(RecordPart):
    """How much of its context a model uses.

    predictions  whose loss it is, the same everywhere
    longest      the longest context, tokens
    truncated    by how many tokens before the prediction are there
    shuffled     by how many are in their order; those before them are shuffled
    gradient     by distance
    effective    the fewest tokens that give 95 % of what all give beyond one; None where all give nothing
    """

    predictions: Positive
    longest: Positive
    truncated: tuple[LossAt, ...]
    shuffled: tuple[LossAt, ...]
    gradient: tuple[GradientAt, ...]
    effective: Positive | None


def effective_context(lengths: Sequence[int], losses: Sequence[float]) -> int | None:
    """The fewest tokens that give 95 % of the gain from one to all; None where all give nothing."""
    gain = losses[0] - losses[-1]
    if not gain > 0:
        return None
    return next(k for k, loss in zip(lengths, losses, strict=True) if losses[0] - loss >= ENOUGH * gain)


class HeadScores(RecordPart):
    """An attention head.

    layer, head      counted from 0, layers among those with heads
    prefix_matching  the share of its attention, at tokens that came before, on what followed them then
    copying          the share of the token that it attends to in what it adds to the logits of the sequence's tokens
    """

    layer: Count
    head: Count
    prefix_matching: Amount
    copying: Share


class LearningInContext(RecordPart):
    """The loss at a late token of a text minus that at an early one, nats; over n texts."""

    early: Positive
    late: Positive
    score: Number
    stderr: Amount
    n: Positive


class InductionAnalysis(RecordPart):
    """Induction heads, of one checkpoint.

    step         of training; None = the weights that were kept, the best ones
    block        random tokens, which are repeated
    repeats      times that they stand there
    sequences    over which the scores are averaged
    heads        empty where the architecture has none over the whole input
    in_context   None for tasks that are no running text
    """

    step: Count | None = None
    block: Positive
    repeats: Positive
    sequences: Positive
    heads: tuple[HeadScores, ...]
    in_context: LearningInContext | None


class AccuracyAt(RecordPart):
    """The share of n questions that were answered right, those of a group of the test split, with Wilson's interval."""

    at: dict[str, int | float]
    n: Positive
    accuracy: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.low <= self.accuracy <= self.high:
            raise ValueError(f"expected low <= accuracy <= high, got {self.low}, {self.accuracy}, {self.high}")
        return self


class AnalysisRecord(RecordPart, BesideRecord):
    """What a trained model does with its context.

    run          id of the record of the run that trained it
    weights      sha256 of its model.safetensors
    seed         of the run
    trained_len  longest training input, tokens
    draw_seed    of what the analyses draw
    induction    of the checkpoints that were kept, in their order, and of the model last
    score        the score of `positions`
    seconds      of the analyses
    """

    folder = "analyses"

    schema_version: Annotated[int, Field(ge=1)] = ANALYSIS_SCHEMA
    run: Text
    weights: Text
    architecture: Text
    task: Text
    protocol: Text
    seed: Count
    trained_len: Positive
    draw_seed: Count
    context: ContextAnalysis | None = None
    induction: tuple[InductionAnalysis, ...] = ()
    positions: tuple[AccuracyAt, ...] = ()
    score: str = ""
    seconds: Amount
    ended: Time
    versions: dict[str, str]

    @property
    def id(self) -> str:
        return self.run
