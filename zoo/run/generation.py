"""What a trained model writes after a prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from zoo.data.language import LanguageData
from zoo.model.generate import generate
from zoo.run.trained import TrainedModel
from zoo.spec.errors import UserError


def continue_prompt(trained: TrainedModel, prompt: str, max_new_tokens: int, **options: Any) -> tuple[list[int], str]:
    """Continue a prompt by the model of a run: the new tokens, and the text that they stand for.

    prompt   a text for tasks on text; for others token ids, separated by blanks or commas
    options  temperature, top_k, top_p and seed, as of `zoo.generate`

    Raises UserError for a prompt that the model cannot read, and for a model that predicts no next token.
    """
    data = trained.data
    ids, end = encode_prompt(trained, prompt)
    try:
        new = generate(trained.model, torch.tensor([ids]), max_new_tokens, eos=end, **options)[0].tolist()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{len(ids)} tokens and {max_new_tokens} new ones: {error}") from error
    if isinstance(data, LanguageData):
        return new, data.decode(np.array([token for token in new if token != end]))
    return new, " ".join(map(str, new))


def encode_prompt(trained: TrainedModel, prompt: str) -> tuple[list[int], int | None]:
    """What a model reads for a prompt, as of `continue_prompt`, and the token that ends its texts, if one does.

    Raises UserError for a prompt that it cannot read.
    """
    data = trained.data
    try:
        if isinstance(data, LanguageData):
            end = data.specials.end  # begins every text, and ends it
            ids = data.encode([prompt]).ids.tolist()
            return ids if trained.experiment.mode == "seq2seq" else [end, *ids], end
        ids = [int(word) for word in prompt.replace(",", " ").split()]
        size = trained.experiment.vocab_size
        if not ids or not 0 < min(ids) <= max(ids) < size:
            raise ValueError(f"expected token ids from 1 to {size - 1}, separated by blanks")
        return ids, None
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from error
