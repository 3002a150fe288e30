"""What a trained model writes after a prompt."""

from __future__ import annotations

from typing import Any

import torch

from zoo.model.generate import generate
from zoo.run.subject import Subject
from zoo.spec.errors import UserError


def continue_prompt(subject: Subject, prompt: str, max_new_tokens: int, **options: Any) -> tuple[list[int], str]:
    """Continue a prompt by a model: the new tokens, and the text that they stand for.

    prompt   a text for models of text; for others token ids, separated by blanks or commas
    options  temperature, top_k, top_p and seed, as of `zoo.generate`

    Raises UserError for a prompt that the model cannot read, and for a model that predicts no next token.
    """
    ids = encode_prompt(subject, prompt)
    options |= {"eos": subject.stops, "start": subject.end or None}
    try:
        new = generate(subject.model, torch.tensor([ids]), max_new_tokens, **options)[0].tolist()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{len(ids)} tokens and {max_new_tokens} new ones: {error}") from error
    return new, subject.decode([token for token in new if token != subject.stops])


def encode_prompt(subject: Subject, prompt: str) -> list[int]:
    """What a model reads for a prompt, as of `continue_prompt`. Raises UserError for one that it cannot read."""
    if subject.tokenizer is not None:
        ids = subject.encode(prompt)
        if not prompt.strip() or not ids:
            raise UserError("--prompt: expected a text with tokens")
        return ids
    try:
        ids = [int(word) for word in prompt.replace(",", " ").split()]
    except ValueError:
        ids = []
    if not ids or not 0 < min(ids) <= max(ids) < subject.vocab_size:
        raise UserError(f"--prompt: expected token ids from 1 to {subject.vocab_size - 1}, separated by blanks")
    return ids
