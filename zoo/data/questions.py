"""Questions whose answers are tokens, and their layout under each objective. n, k, L, T count tokens.

causal_lm   a causal model reads the prompt and the answer and predicts each token of the answer from all before it.
            An answer is right when every token is the most likely one, which is what greedy generation gives
infilling   for architectures in which every output sees every input: the prompt is followed by a fixed number of
            slots; slot j is to become token j of the answer, and the slot after the answer the end symbol, so the
            number of slots does not reveal the length of the answer
seq2seq     an encoder reads the prompt, a decoder writes the answer and the end symbol

Where answers are marked in place (`Marked`), the inputs hold no answer, and causal and bidirectional models are given
the same tokens; a decoder writes the answers in the order of their positions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo.spec.architecture import Objective

IGNORE = -100
"""The label of a position that is not scored, as torch's cross entropy has it."""


class Marked(NamedTuple):
    """Answers at positions of the input.

    ids     (n,) token ids, none of them padding
    labels  (n,) the token to predict at each position, IGNORE where nothing is scored
    group   row of `TaskData.groups`
    """

    ids: np.ndarray
    labels: np.ndarray
    group: int = 0


class Continuation(NamedTuple):
    """A prompt (n >= 1,) and the answer (k >= 1,) that follows it; group as in `Marked`."""

    prompt: np.ndarray
    answer: np.ndarray
    group: int = 0


class Piece(NamedTuple):
    """A piece of running text.

    ids     (n,) the tokens that are read
    labels  (n,) the token after each, IGNORE where it is not scored
    fresh   a text begins here; else this piece continues the same row of the batch before
    """

    ids: np.ndarray
    labels: np.ndarray
    fresh: bool = True


Question = Marked | Continuation | Piece


class Specials(NamedTuple):
    """Ids of the special tokens, and the number of slots under `infilling`, the end symbol included."""

    slot: int
    end: int
    slots: int


class Layout(NamedTuple):
    """One question as a model is given it.

    inputs  (L,) ids
    labels  (L,), or (T,) beside `target`
    target  (T,) the decoder's input, for seq2seq
    """

    inputs: np.ndarray
    labels: np.ndarray
    target: np.ndarray | None = None
    fresh: bool = True
    group: int = 0


def lay_out(question: Question, objective: Objective, specials: Specials) -> Layout:
    """Lay a question out under an objective. Raises ValueError for an answer that does not fit into the slots."""
    if isinstance(question, Piece):
        if objective != "causal_lm":
            raise ValueError(f"running text has no {objective} form")
        return Layout(question.ids, question.labels, fresh=question.fresh)
    if isinstance(question, Marked):
        if objective != "seq2seq":
            return Layout(question.ids, question.labels, group=question.group)
        written = question.labels[question.labels != IGNORE]
        return Layout(question.ids, written, _shifted(written, specials.end), group=question.group)
    prompt, answer = question.prompt, question.answer
    if objective == "causal_lm":
        inputs = np.concatenate([prompt, answer[:-1]])
        labels = np.full(len(inputs), IGNORE, np.int64)
        labels[len(prompt) - 1 :] = answer
        return Layout(inputs, labels, group=question.group)
    written = np.append(answer, specials.end).astype(np.int64)
    if objective == "seq2seq":
        return Layout(prompt, written, _shifted(written, specials.end), group=question.group)
    if len(written) > specials.slots:
        raise ValueError(f"an answer of {len(answer)} tokens and its end symbol for {specials.slots} slots")
    inputs = np.concatenate([prompt, np.full(specials.slots, specials.slot, prompt.dtype)])
    labels = np.full(len(inputs), IGNORE, np.int64)
    labels[len(prompt) : len(prompt) + len(written)] = written
    return Layout(inputs, labels, group=question.group)


def _shifted(written: np.ndarray, end: int) -> np.ndarray:
    """The decoder's input for the output `written`: the end symbol, which also begins, then all but the last token."""
    return np.concatenate([[end], written[:-1]]).astype(np.int64)
