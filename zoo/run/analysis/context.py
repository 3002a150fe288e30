"""How much of its context a model uses, whatever its architecture.

The same predictions are made with the last 1, 2, 4 … tokens only (the loss by length), and with all of them, those
before the last k shuffled (Khandelwal et al. 2018, arXiv 1805.04623, measured both of LSTMs); and the gradient of their
loss says how far back the embeddings matter to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.batch import Batch
from zoo.data.language import LanguageData
from zoo.data.module import TaskData
from zoo.data.questions import IGNORE, Piece, lay_out
from zoo.data.splits import hashed_number
from zoo.kinds.classification import Classification, PairClassification, TokenClassification
from zoo.kinds.regression import Regression
from zoo.model.models import ModelOutput
from zoo.nn.state import return_state
from zoo.run.compose import Experiment
from zoo.spec.analysis import ContextAnalysis, GradientAt, LossAt, effective_context
from zoo.spec.errors import UserError

TOKENS_PER_BATCH = 1 << 14

Rebuild = Callable[[np.ndarray], Any]
"""Makes an example of other inputs with the same answer."""


def refusal(experiment: Experiment) -> str:
    """Why a context is not defined for what a run learned; empty where it is."""
    others = (PairClassification, TokenClassification, Regression)
    classes = isinstance(experiment.kind, Classification) and not isinstance(experiment.kind, others)
    if classes or experiment.objective == "causal_lm":
        return ""
    what = "defined where a model predicts the next token or the class of one input"
    return f"context: {what}; {experiment.task} as {experiment.objective} is neither"


def analyze_context(
    experiment: Experiment, model: Any, data: TaskData, *, max_tokens: int, seed: int
) -> ContextAnalysis:
    """Measure a model on predictions of the test split, as many as have `max_tokens` tokens before them together.

    Raises UserError for running text that is too short.
    """
    examples = list(_examples(experiment, data, max_tokens, seed))
    longest = max(len(inputs) for inputs, _ in examples)
    lengths = [1 << k for k in range(longest.bit_length()) if 1 << k < longest] + [longest]
    collate = experiment.kind.build_collate_fn(data)
    order = np.random.default_rng(seed)
    permutations = [order.permutation(len(inputs)) for inputs, _ in examples]

    def losses(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        changed = [
            rebuild(change(inputs, permutation))
            for (inputs, rebuild), permutation in zip(examples, permutations, strict=True)
        ]
        rows = _rows(changed, longest)
        return torch.cat([nats_of(call_model(model, collate(batch))) for batch in rows]).double().numpy()

    with torch.inference_mode():
        truncated = [losses(partial(_last, k)) for k in lengths]
        shuffled = [losses(partial(_shuffle, k)) for k in lengths[:-1]]
    shuffled.append(truncated[-1])
    batches = (collate(batch) for batch in _rows([rebuild(inputs) for inputs, rebuild in examples], longest))
    return ContextAnalysis(
        predictions=len(examples),
        longest=longest,
        truncated=_points(lengths, truncated),
        shuffled=_points(lengths, shuffled),
        gradient=_gradients(model, batches, longest),
        effective=effective_context(lengths, [float(each.mean()) for each in truncated]),
    )


def _examples(
    experiment: Experiment, data: TaskData, max_tokens: int, seed: int
) -> Iterator[tuple[np.ndarray, Rebuild]]:
    """What is read before each prediction, at most `seq_len` tokens, and how it is put to the model."""
    n = max(max_tokens // experiment.seq_len, 1)
    if isinstance(data, LanguageData) and experiment.kind.running_text:
        for tokens in draw_texts(data, experiment.seq_len, n, (seed, "context")):
            yield tokens[:-1], partial(_answered, int(tokens[-1]))
        return
    dataset: Any = data.dataset("test")
    for i in np.random.default_rng(seed).permutation(len(dataset))[:n]:
        example = dataset[int(i)]
        if experiment.objective == "classify":
            inputs, label = example
            yield inputs, partial(_labelled, label)
        else:
            row = lay_out(example, experiment.objective, data.specials)
            last = int(np.flatnonzero(row.labels != IGNORE)[-1])
            yield row.inputs[: last + 1], partial(_answered, int(row.labels[last]))


def draw_texts(data: LanguageData, seq_len: int, n: int, key: tuple[Any, ...]) -> Iterator[np.ndarray]:
    """Draw n stretches of `seq_len` + 1 tokens from the test split; the end symbol stands before a document.

    Raises UserError where no document is as long.
    """
    text, end = data.text("test"), data.specials.end
    starts, room = text.starts, np.maximum(text.ends - text.starts - seq_len + 1, 0)
    before = np.cumsum(room)
    if not before[-1]:
        raise UserError(f"{data.name}: no document of the test split has {seq_len:,} tokens, the training length")
    for k in range(n):
        place = hashed_number(int(before[-1]), *key, k)
        document = int(np.searchsorted(before, place, "right"))
        start = int(starts[document]) + place - int(before[document] - room[document])
        first = start == int(starts[document])
        tokens = text.read(start if first else start - 1, start + seq_len)
        yield np.append(end, tokens) if first else tokens


def _labelled(label: int, inputs: np.ndarray) -> tuple[np.ndarray, int]:
    return inputs, label


def _answered(answer: int, inputs: np.ndarray) -> Piece:
    labels = np.full(len(inputs), IGNORE, np.int64)
    labels[-1] = answer
    return Piece(inputs, labels)


def _last(k: int, inputs: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    return inputs[-k:]


def _shuffle(k: int, inputs: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    """Shuffle all but the last k tokens."""
    older = permutation[permutation < len(inputs) - k]
    return np.concatenate([inputs[older], inputs[-k:]])


def _rows(examples: Sequence[Any], longest: int) -> Iterator[Sequence[Any]]:
    rows = max(TOKENS_PER_BATCH // longest, 1)
    for start in range(0, len(examples), rows):
        yield examples[start : start + rows]


def call_model(model: Any, batch: Batch) -> ModelOutput:
    """Call a model on fresh texts, its answers row by row."""
    with return_state(False):
        output: ModelOutput = model(batch)
    order = output.rows.argsort(stable=True)
    return output._replace(logits=output.logits[order], labels=output.labels[order])


def nats_of(output: ModelOutput) -> Tensor:
    """The loss of each answer (N,)."""
    return F.cross_entropy(output.logits, output.labels, reduction="none")


def _points(lengths: Sequence[int], losses: Sequence[np.ndarray]) -> tuple[LossAt, ...]:
    return tuple(
        LossAt(tokens=k, loss=float(nats.mean()), stderr=float(nats.std() / len(nats) ** 0.5))
        for k, nats in zip(lengths, losses, strict=True)
    )


def _gradients(model: Any, batches: Iterator[Batch], longest: int) -> tuple[GradientAt, ...]:
    """The norms by distance, in octaves."""
    total, count = np.zeros(longest), np.zeros(longest, np.int64)
    for batch in batches:
        embedded: list[Tensor] = []
        hook = model.encoder.embedding.register_forward_hook(lambda *call, kept=embedded: kept.append(call[-1]))
        try:
            loss = nats_of(call_model(model, batch)).sum()
        finally:
            hook.remove()
        # an architecture with outputs for some positions only embeds its input more than once
        parts = torch.autograd.grad(loss, embedded, allow_unused=True)
        width = batch.inputs.shape[1]
        gradient = sum(part[:, :width] for part in parts if part is not None)
        assert isinstance(gradient, Tensor)
        norms = gradient.norm(dim=-1).double().numpy()
        real = np.ones(norms.shape, bool) if batch.mask is None else batch.mask.numpy()
        for row, here in zip(norms, real, strict=True):
            backwards = row[here][::-1]
            total[: len(backwards)] += backwards
            count[: len(backwards)] += 1
    edges = [0, *(1 << k for k in range(longest.bit_length()) if 1 << k < longest), longest]
    return tuple(
        GradientAt(start=a, stop=b, n=int(count[a:b].sum()), norm=float(total[a:b].sum() / count[a:b].sum()))
        for a, b in pairwise(edges)
    )
