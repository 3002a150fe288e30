"""A question in words as tokens: bytes, or those of a tokenizer.json."""

from __future__ import annotations

import numpy as np

from zoo.data.questions import Continuation
from zoo.data.tokens import BYTES, load_tokenizer


class Wording:
    """The tokenizer of a task with form=text. Ids are the tokenizer's own shifted by one: 0 stays padding."""

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer = load_tokenizer(tokenizer)

    def encode(self, text: str) -> np.ndarray:
        """Ids (n,) int64 of a text."""
        return np.asarray(self.tokenizer.encode(text).ids, np.int64) + 1

    def decode(self, ids: np.ndarray) -> str:
        """The text of such ids."""
        return self.tokenizer.decode((np.asarray(ids) - 1).tolist())

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text).ids)

    def ask(self, context: str, answer: str) -> Continuation:
        """A question that continues `context` by `answer`.

        Bytes are those of the two. A tokenizer joins a blank with the word behind it, so there the answer is what
        follows the tokens of the context without its last blank: a blank and the word, as lm-evaluation-harness asks.
        """
        if self.tokenizer.name == BYTES:
            return Continuation(self.encode(context), self.encode(answer))
        context = context.rstrip()
        prompt = self.encode(context)
        return Continuation(prompt, self.encode(f"{context} {answer}")[len(prompt) :])
