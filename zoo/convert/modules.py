"""Embeddings and heads of Hugging Face models. B batch, L seq_len, D d_model, V vocab_size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from zoo.convert.conversion import HFConfig, ModelParts
from zoo.nn import LayerNorm


class TokenEmbedding(nn.Module):
    """Token vectors plus absolute positions and token type 0, then a layer norm; all but the tokens are optional.

    scale           factor of the token vectors
    n_positions     rows of the position table; 0 = none
    first_position  row of the first token
    n_types         rows of the token type table; 0 = none
    norm_eps        epsilon of the layer norm; None = no norm
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        *,
        scale: float = 1.0,
        n_positions: int = 0,
        first_position: int = 0,
        n_types: int = 0,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.first_position = scale, first_position
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Embedding(n_positions, d_model) if n_positions else None
        self.types = nn.Embedding(n_types, d_model) if n_types else None
        self.norm = LayerNorm(d_model, norm_eps) if norm_eps is not None else None

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but a table of tokens."""
        return self.positions is None and self.types is None and self.norm is None

    def forward(self, ids: Tensor, mask: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """ids (B, L), padded on the right, from position `start` (B,) of their texts -> (B, L, D)."""
        x = self.tokens(ids) * self.scale
        if self.positions is not None:
            n_tokens = ids.shape[1] + (0 if start is None else int(start.max()))
            first, rows = self.first_position, self.positions.num_embeddings
            if first + n_tokens > rows:
                raise ValueError(f"{n_tokens} tokens, but positions for {rows - first}")
            index = first + torch.arange(ids.shape[1], device=ids.device)
            x = x + self.positions(index if start is None else start[:, None] + index)
        if self.types is not None:
            x = x + self.types.weight[0]
        return x if self.norm is None else self.norm(x)


class LMHead(nn.Module):
    """A linear map of `scale * hidden` to logits, without bias: (B, L, D) -> (B, L, V)."""

    def __init__(self, d_model: int, vocab_size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.decoder = nn.Linear(d_model, vocab_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.decoder(hidden * self.scale)


def language_model(
    tokens: str,
    *,
    d_model: str,
    lm_head: str = "",
    scale: Callable[[HFConfig], float] = lambda hf_config: 1.0,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[HFConfig], ModelParts]:
    """Make the parts of a model that embeds tokens without positions, with or without a language model's head.

    tokens, lm_head  keys of the embedding and of the head, tied unless config.json says otherwise; "" = no head
    d_model          key of the width in config.json
    scale            config.json -> factor of the hidden vectors
    aliases          further keys of the embedding, as in ModelParts
    """

    def build(hf_config: HFConfig) -> ModelParts:
        vocab_size, width = hf_config["vocab_size"], hf_config[d_model]
        embedding = TokenEmbedding(vocab_size, width)
        head = LMHead(width, vocab_size, scale(hf_config)) if lm_head else None
        if head is not None and hf_config["tie_word_embeddings"]:
            head.decoder.weight = embedding.tokens.weight
        weights = {"embed.tokens": tokens, "head.decoder": lm_head}
        return ModelParts(embedding=embedding, head=head, weights=weights, aliases=aliases)

    return build
