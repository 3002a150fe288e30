"""LAMBADA's score of any causal language model, from this project or not, as lm-evaluation-harness defines it.

from zoo_lambada.scoring import score
score(lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits, tokenizer.encode, passages, max_len=1024)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.module import perplexity
from zoo_lambada.passages import Encode, encode_parts, split_passage


class LambadaScore(NamedTuple):
    """Scores of a model on LAMBADA.

    accuracy    share of passages in which every token of the last word is the most likely one
    perplexity  exp of the mean over passages of the last word's nats
    nats        (n,) -log probability of the last word of each passage, float64
    right       (n,) bool
    """

    accuracy: float
    perplexity: float
    nats: Tensor
    right: Tensor


def score(
    logits_of: Callable[[Tensor, Tensor], Tensor],
    encode: Encode,
    passages: Sequence[str],
    *,
    max_len: int,
    batch_size: int = 16,
    begin: Sequence[int] = (),
) -> LambadaScore:
    """Score the last word of every passage.

    logits_of  ids (B, L) int64, right-padded with 0, and mask (B, L) bool, True = real -> logits (B, L, V): position i
               predicts the token after it
    encode     text -> ids, without special tokens
    max_len    tokens that the model can read; of longer passages it is given the last ones
    begin      ids that stand before every passage
    Raises ValueError for a passage without context or word, and for a word that is longer than the model.
    """
    if not passages:
        raise ValueError("no passages")
    inputs, answers = [], []
    for number, text in enumerate(passages):
        try:
            before, after = encode_parts(encode, *split_passage(text))
        except ValueError as error:
            raise ValueError(f"passage {number}: {error}") from error
        if len(after) > max_len:
            raise ValueError(f"passage {number}: a last word of {len(after)} tokens for a model of {max_len}")
        inputs.append([*begin, *before, *after][-max_len - 1 :][:-1])
        answers.append(after)
    nats, right = torch.empty(len(passages), dtype=torch.float64), torch.empty(len(passages), dtype=torch.bool)
    # of like length together; longest first, so that memory runs out at once or never
    order = sorted(range(len(passages)), key=lambda i: -len(inputs[i]))
    with torch.no_grad():
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            ids = torch.zeros(len(batch), max(len(inputs[i]) for i in batch), dtype=torch.int64)
            lengths = torch.tensor([len(inputs[i]) for i in batch])
            for row, i in enumerate(batch):
                ids[row, : len(inputs[i])] = torch.tensor(inputs[i])
            logits = logits_of(ids, torch.arange(ids.shape[1]) < lengths[:, None])
            for row, i in enumerate(batch):
                answer = torch.tensor(answers[i], device=logits.device)
                predictions = logits[row, len(inputs[i]) - len(answer) : len(inputs[i])]  # (answer, V)
                log_probabilities = predictions.double().log_softmax(-1)
                nats[i] = -log_probabilities.gather(1, answer[:, None]).sum()
                right[i] = bool((predictions.argmax(-1) == answer).all())
    return LambadaScore(float(right.double().mean()), perplexity(float(nats.mean())), nats, right)


__all__ = ["LambadaScore", "score"]
