"""What a language model makes of texts in tokens: log likelihoods and continuations, in batches, as
lm-evaluation-harness asks for them. Ids are those of tasks on text (zoo/data/tokens.py). B batch, L tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo.data.batch import Batch, QuestionCollator
from zoo.data.questions import IGNORE, Continuation, Piece, Question, Specials
from zoo.model.generate import generate
from zoo.nn.backbone import State
from zoo.nn.state import return_state
from zoo.run.subject import Subject
from zoo.spec.errors import UserError


def _rows_that_end(stop: Callable[[list[int]], bool], written: Tensor) -> Tensor:
    """(B, n) new tokens -> (B,) bool"""
    return torch.tensor([stop(row) for row in written.tolist()], device=written.device)


class Likelihood(NamedTuple):
    """The log likelihood of some tokens, in nats, and whether each is the most likely one."""

    log: float
    greedy: bool


@dataclass(frozen=True)
class Scorer:
    """A language model with the tokens that it reads at once and the texts that it reads side by side.

    max_length  of what is longer the end is read; a text that is scored whole is read in pieces of this length, with
                the state carried from piece to piece where the architecture carries one, else each with as much of the
                text before it as fits
    """

    subject: Subject
    model: Any
    max_length: int
    batch_size: int

    @classmethod
    def of(cls, subject: Subject, *, max_length: int, batch_size: int, device: str = "cpu") -> Scorer:
        """A scorer of a model. Raises UserError for one that predicts no next token or reads no text, and ConfigError
        for a length that it has no weights for."""
        if subject.tokenizer is None or subject.objective != "causal_lm":
            what = "reads no text" if subject.tokenizer is None else f"was trained for {subject.objective}"
            raise UserError(f"{subject.name} {what}: texts are scored by a model that predicts their next token")
        return cls(subject, subject.for_length(max_length).to(device), max_length, batch_size)

    def log_likelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Likelihood]:
        """The likelihood of each continuation (n >= 1) after its context (n >= 1)."""
        questions = []
        for context, continuation in pairs:
            if len(continuation) > self.max_length:
                raise UserError(f"a continuation of {len(continuation)} tokens, and max_length is {self.max_length}")
            room = self.max_length + 1 - len(continuation)
            questions.append(Continuation(np.asarray(context, np.int64)[-room:], np.asarray(continuation, np.int64)))
        found = [Likelihood(0.0, True)] * len(questions)
        for rows in self._batches([len(question.prompt) + len(question.answer) for question in questions]):
            likelihoods, _ = self._score([questions[i] for i in rows])
            for i, each in zip(rows, likelihoods, strict=True):
                found[i] = each
        return found

    def rolling(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """The log likelihood of each whole text, whose first token follows the begin symbol."""
        if not self.subject.carries:
            windows = [(i, window) for i, text in enumerate(texts) for window in self._windows(list(text))]
            totals = [0.0] * len(texts)
            likelihoods = self.log_likelihoods([window for _, window in windows])
            for (i, _), each in zip(windows, likelihoods, strict=True):
                totals[i] += each.log
            return totals
        totals = [0.0] * len(texts)
        for rows in self._batches([len(text) for text in texts]):
            # longest first, so that those which go on are the first ones
            labels = [np.asarray(texts[i], np.int64) for i in rows if len(texts[i])]
            read = [np.append(self.subject.end, text[:-1]) for text in labels]
            state: State = None
            for start in range(0, max(map(len, labels), default=0), self.max_length):
                alive = sum(len(text) > start for text in labels)
                stop = start + self.max_length
                pieces = [Piece(read[k][start:stop], labels[k][start:stop], fresh=not start) for k in range(alive)]
                state = pytree.tree_map(lambda leaf, n=alive: None if leaf is None else leaf[:n], state)
                likelihoods, state = self._score(pieces, state, carries=True)
                for i, each in zip(rows, likelihoods, strict=False):
                    totals[i] += each.log
        return totals

    def continuations(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop: Callable[[list[int]], bool] | None = None,
        **options: Any,
    ) -> list[list[int]]:
        """What the model writes after each prompt (n >= 1), without the symbol that ends it.

        stop     whether these new tokens are enough
        options  temperature, top_k, top_p and seed of `zoo.generate`
        """
        room = self.max_length - max_new_tokens
        if room < 1:
            raise UserError(f"{max_new_tokens} new tokens, and max_length is {self.max_length}: no room for a prompt")
        cut = [list(prompt)[-room:] for prompt in prompts]
        found: list[list[int]] = [[] for _ in prompts]
        ends = self.subject.stops
        for rows in self._batches([len(prompt) for prompt in cut]):
            lengths = torch.tensor([len(cut[i]) for i in rows])
            tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
            for k, i in enumerate(rows):
                tokens[k, : len(cut[i])] = torch.tensor(cut[i])
            mask = torch.arange(tokens.shape[1]) < lengths[:, None]
            new = generate(
                self.model,
                tokens.to(self._device),
                max_new_tokens,
                mask=None if bool(mask.all()) else mask.to(self._device),
                eos=ends,
                stop=None if stop is None else partial(_rows_that_end, stop),
                **options,
            )
            for i, row in zip(rows, new.tolist(), strict=True):
                found[i] = row[: row.index(ends)] if ends in row else [token for token in row if token]
        return found

    # -- batches -----------------------------------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices in batches of about the same length, the longest first: memory runs out at once or never."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        return [order[k : k + self.batch_size] for k in range(0, len(order), self.batch_size)]

    def _windows(self, text: list[int]) -> list[tuple[list[int], list[int]]]:
        """Contexts and what is predicted after them, so that every token of a text is predicted once: pieces of
        max_length, of which the last is read with as much before it as fits."""
        m, whole = self.max_length, [self.subject.end, *text]
        ends = [(start, min(start + m, len(text))) for start in range(0, len(text), m)]
        return [(whole[max(stop - m, 0) : start + 1], text[start:stop]) for start, stop in ends]

    @torch.inference_mode()
    def _score(
        self, questions: Sequence[Question], state: State = None, *, carries: bool = False
    ) -> tuple[list[Likelihood], State]:
        """Likelihoods of what is labelled in each question, and the state after them."""
        batch = QuestionCollator("causal_lm", Specials(slot=0, end=self.subject.end, slots=0))(questions)
        batch = Batch._make(part.to(self._device) if isinstance(part, Tensor) else part for part in batch)
        with return_state(carries):
            output = self.model(batch, state)
        logs = -torch.nn.functional.cross_entropy(output.logits, output.labels, reduction="none").double()
        right = output.logits.argmax(-1) == output.labels
        total = logs.new_zeros(len(questions)).index_add_(0, output.rows, logs)
        hits = logs.new_zeros(len(questions)).index_add_(0, output.rows, right.double())
        expected = (batch.labels != IGNORE).sum(1)
        greedy = (hits == expected).tolist()
        likelihoods = [Likelihood(log, bool(all_)) for log, all_ in zip(total.tolist(), greedy, strict=True)]
        return likelihoods, output.state
