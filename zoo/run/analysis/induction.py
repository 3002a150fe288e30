"""Induction heads, and what they are said to be for (Olsson et al. 2022, arXiv 2209.11895).

On random tokens that are repeated, an induction head attends to what followed the present token the last times (prefix
matching) and makes it more likely (copying). Learning in context is the loss at a late token of a text minus that at an
early one; it needs no heads.

Prefix matching is theirs ("head activation evaluators"): 25 random tokens without the most and the least common ones,
four times, behind the symbol that begins a text where the model's texts stand behind one; the mean attention on what
followed the present token before. Of copying they take what the head adds where it attends as it does, unembed it
directly, and scale the share of the attended token to -1 … 1; `copying` says what is measured here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.language import LanguageData
from zoo.data.module import TaskData
from zoo.data.questions import IGNORE, Piece, lay_out
from zoo.nn.heads import HeadTrace, trace_heads
from zoo.run.analysis.context import TOKENS_PER_BATCH, call_model, draw_texts, nats_of
from zoo.run.compose import Experiment
from zoo.spec.analysis import HeadScores, InductionAnalysis, LearningInContext
from zoo.spec.errors import UserError

BLOCK, REPEATS, SEQUENCES = 25, 4, 16
LATE = 500
"""The late token; the early one is at a tenth of it."""
COUNTED = 512
"""Examples in which tokens are counted."""


def refusal(experiment: Experiment) -> str:
    """Why induction is not defined for what a run learned; empty where it is."""
    if experiment.objective == "causal_lm":
        return ""
    return f"induction: defined for models that predict the next token; {experiment.task} is {experiment.objective}"


@torch.inference_mode()
def analyze_induction(
    experiment: Experiment, model: Any, data: TaskData, *, max_tokens: int, seed: int, step: int | None = None
) -> InductionAnalysis:
    """Score the heads of a model, and its learning in context.

    Raises UserError for inputs that are too short to repeat two tokens.
    """
    sequences, block = draw_repeated(experiment, data, seed)
    first = sequences.shape[1] - REPEATS * block
    traces = head_traces(model, sequences)
    scores = [
        (prefix_matching(trace, block, first), copying(model, trace, sequences, block, first)) for trace in traces
    ]
    heads = [
        HeadScores(layer=layer, head=head, prefix_matching=float(matching[head]), copying=float(copied[head]))
        for layer, (matching, copied) in enumerate(scores)
        for head in range(len(matching))
    ]
    in_context = None
    if isinstance(data, LanguageData) and experiment.kind.running_text:
        in_context = learning_in_context(experiment, model, data, max_tokens, seed)
    return InductionAnalysis(
        step=step,
        block=block,
        repeats=REPEATS,
        sequences=len(sequences),
        heads=tuple(heads),
        in_context=in_context,
    )


def head_traces(model: Any, tokens: Tensor) -> list[HeadTrace]:
    """The attention layers of a model over whole inputs: tokens (B, L)."""
    with trace_heads(model) as traces:
        model.next_logits(tokens)
    return [trace for trace in traces if trace.weights.shape[-1] == tokens.shape[1]]


def draw_repeated(experiment: Experiment, data: TaskData, seed: int) -> tuple[Tensor, int]:
    """Draw sequences of random tokens that stand there REPEATS times (SEQUENCES, first + REPEATS block), and the block;
    of running text behind the symbol that begins one: first = 1.

    Tokens of the test split, without the tenth that is most common and the tenth that is least; none twice in a block.
    """
    dataset: Any = data.dataset("test")
    some = [lay_out(dataset[i], "causal_lm", data.specials).inputs for i in range(min(len(dataset), COUNTED))]
    counts = np.bincount(np.concatenate(some), minlength=2)
    counts[[0, *(i for i in (data.specials.end, data.specials.slot) if i < len(counts))]] = 0
    common = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    common = common[len(common) // 10 : len(common) - len(common) // 10]
    begin = [data.specials.end] if isinstance(data, LanguageData) else []
    block = min(BLOCK, len(common), (experiment.seq_len - len(begin)) // REPEATS)
    if block < 2:
        raise UserError(f"induction: {experiment.seq_len} tokens are too few to repeat two {REPEATS} times")
    draws = np.random.default_rng(seed)
    rows = [np.append(begin, np.tile(draws.permutation(common)[:block], REPEATS)) for _ in range(SEQUENCES)]
    return torch.from_numpy(np.stack(rows).astype(np.int64)), block


def prefix_matching(trace: HeadTrace, block: int, first: int = 0) -> Tensor:
    """The mean share of attention on the tokens that followed the present one before: (H,).

    The first block, which begins at `first`, is left out.
    """
    seq_len = trace.weights.shape[-1]
    i, j = torch.arange(seq_len)[:, None], torch.arange(seq_len)
    followed = ((i - j + 1) % block == 0) & (j <= i) & (j > first)
    return (trace.weights * followed).sum(-1)[..., first + block :].mean((0, 2))


def copying(model: Any, trace: HeadTrace, tokens: Tensor, block: int, first: int = 0) -> Tensor:
    """The share of each token in what a head adds to the logits of the block where it attends to it alone: (H,).

    What it moves goes through the last norm and the unembedding; logits are counted from their mean over the
    vocabulary, and only where they are raised.
    """
    norm = getattr(getattr(model.backbone, "stack", None), "final_norm", None)
    once = slice(first, first + block)
    moved = trace.moved[:, :, once]
    both = torch.cat([moved, torch.zeros_like(moved[:, :, :1])], dim=2)
    logits = model.compute_logits(both if norm is None else norm(both, None))
    added = logits[:, :, :-1] - logits[:, :, -1:]  # without what is there for nothing
    added = added - added.mean(-1, keepdim=True)
    index = tokens[:, None, None, once].expand(*added.shape[:3], block)
    raised = added.gather(-1, index).clamp_min(0)  # (B, H, block, block)
    total = raised.sum(-1)
    share = raised.diagonal(dim1=-2, dim2=-1) / total.clamp_min(torch.finfo(total.dtype).tiny)
    return share.mean((0, 2))


def learning_in_context(
    experiment: Experiment, model: Any, data: LanguageData, max_tokens: int, seed: int
) -> LearningInContext:
    """The loss at token 500, or the last that there is, minus that at token 50, or a tenth."""
    late = min(LATE, experiment.seq_len)
    early = max(late // 10, 1)
    n = max(max_tokens // late, 2)
    collate = experiment.kind.build_collate_fn(data)
    pieces = []
    for tokens in draw_texts(data, late, n, (seed, "in context")):
        labels = np.full(late, IGNORE, np.int64)
        labels[[early - 1, late - 1]] = tokens[[early, late]]
        pieces.append(Piece(tokens[:-1], labels))
    rows = max(TOKENS_PER_BATCH // late, 1)
    parts = [nats_of(call_model(model, collate(pieces[at : at + rows]))) for at in range(0, n, rows)]
    difference = torch.cat(parts).view(n, -1).double().diff(dim=1).squeeze(1)
    stderr = float(difference.std() / n**0.5)
    return LearningInContext(early=early, late=late, score=float(difference.mean()), stderr=stderr, n=n)
