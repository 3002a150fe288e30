"""A backbone with the embedding and head of a Hugging Face checkpoint.

Separate from the models of `zoo.model` on purpose: their embeddings and heads belong to a benchmark protocol, these
belong to published weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.convert.conversion import Conversion, HFConfig
from zoo.convert.keymap import HFTensor, export_tensors, import_tensors, match_keys
from zoo.convert.modules import LMHead
from zoo.nn.backbone import State
from zoo.spec.architecture import OBJECTIVES, Architecture
from zoo.spec.constraints import build_config
from zoo.spec.errors import ConfigError


class ModelOutput(NamedTuple):
    """logits (B, L, vocab_size) or (B, n_classes), without a head hidden vectors (B, L, d_model); the carried state."""

    logits: Tensor
    state: State


class PretrainedModel(nn.Module):
    """The model that a checkpoint's config.json describes. B batch, L seq_len.

    config, dims    what the backbone was built with
    sources         our tensors -> the checkpoint's keys
    aliases         further keys of the checkpoint -> the key of the same tensor
    unused_tensors  tensors of the checkpoint that the model does not use, by their keys
    """

    def __init__(self, architecture: Architecture, conversion: Conversion, hf_config: HFConfig) -> None:
        super().__init__()
        values, self.dims = conversion.import_config(hf_config)
        parts = conversion.build_parts(hf_config)
        try:
            self.config: Any = build_config(architecture.load_config(), values)
        except TypeError as error:
            raise ConfigError("arch", f"{architecture.name}: {error}") from error
        self.backbone = architecture.build(self.config, self.dims)
        for name in parts.removed:
            self.backbone.set_submodule(name, nn.Identity(), strict=True)
        self.embed, self.head = parts.embedding, parts.head
        self.architecture, self.capabilities = architecture.name, architecture.capabilities

        key_map = {f"backbone.{ours}": theirs for ours, theirs in conversion.key_map(self.config).items()}
        prefix = conversion.prefix if parts.head is None else ""
        sources = match_keys({**key_map, **parts.weights}, self.state_dict(), strip_prefix=prefix)
        first = self._first_names()
        self.sources = {name: source for name, source in sources.items() if first[name] == name}
        tied = {sources[name].sources[0]: sources[first[name]].sources[0] for name in sources if first[name] != name}
        self.aliases = {**tied, **parts.aliases}
        self.unused_tensors: dict[str, Tensor] = {}
        self._unused = parts.unused

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        state: State = None,
        *,
        decoder_ids: Tensor | None = None,
    ) -> ModelOutput:
        """Compute logits for each token, or for each of `decoder_ids` in an encoder-decoder.

        ids (B, L), or vectors (B, L, d_model) for a model without an embedding; mask (B, L), True = real token;
        decoder_ids (B, T).
        """
        out = self.backbone(self._embed(ids), mask=mask, **({} if state is None else {"state": state}))
        if self.dims.mode == "seq2seq":
            if decoder_ids is None:
                raise ValueError("an encoder-decoder needs decoder_ids")
            out = self.backbone.decode(self._embed(decoder_ids), memory=out.hidden, memory_mask=mask)
        return ModelOutput(self.compute_logits(out.hidden), out.state)

    def logits(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """ids (B, L), mask (B, L) -> (B, L, vocab_size) or (B, n_classes), what `forward` gives."""
        return self(ids, mask).logits

    @property
    def objective(self) -> str:
        """How the model predicts tokens, as of a model that zoo trains; "hidden" without a language model's head."""
        return OBJECTIVES[self.dims.mode] if isinstance(self.head, LMHead) else "hidden"

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """hidden (…, D) -> logits (…, V)."""
        return hidden if self.head is None else self.head(hidden)

    def next_logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, V) after the last real token of each row: tokens (B, L), mask (B, L), pads at the end."""
        last = torch.full_like(tokens[:, 0], tokens.shape[1]) if mask is None else mask.sum(1)
        return self(tokens, mask).logits[torch.arange(len(tokens), device=tokens.device), last - 1]

    def _embed(self, ids: Tensor) -> Tensor:
        return ids if self.embed is None else self.embed(ids)

    def _first_names(self) -> dict[str, str]:
        """Map each key of the state dict to the first key of the same tensor; they differ for tied parameters."""
        first: dict[int, str] = {}
        return {name: first.setdefault(id(tensor), name) for name, tensor in self.state_dict(keep_vars=True).items()}

    def own_tensors(self) -> dict[str, Tensor]:
        """Return the state dict with tied parameters under one key."""
        return {name: tensor for name, tensor in self.state_dict().items() if name in self.sources}

    def load_own_tensors(self, tensors: Mapping[str, Tensor], *, where: str) -> None:
        """Load what `own_tensors` returned, in its dtype (float32 if it has several).

        Raises DataError that lists every tensor of the checkpoint `where` that does not fit.
        """
        self._load(tensors, {name: HFTensor(name) for name in self.sources}, {}, where)

    def import_tensors(self, theirs: Mapping[str, Tensor], *, where: str) -> None:
        """Load a Hugging Face checkpoint's tensors; dtype and errors as in `load_own_tensors`."""
        unused = {key for key in theirs if any(fnmatch(key, pattern) for pattern in self._unused)}
        used = {key: tensor for key, tensor in theirs.items() if key not in unused}
        self._load(used, self.sources, self.aliases, where)
        self.unused_tensors = {key: theirs[key] for key in unused}

    def _load(
        self, theirs: Mapping[str, Tensor], sources: Mapping[str, HFTensor], aliases: Mapping[str, str], where: str
    ) -> None:
        """Load tensors that are stored under the keys of `sources`."""
        shapes = {name: tensor.shape for name, tensor in self.own_tensors().items()}
        tensors = import_tensors(theirs, sources, shapes, aliases=aliases, where=where)
        dtypes = {t.dtype for t in tensors.values() if t.is_floating_point()}
        self.to(dtypes.pop() if len(dtypes) == 1 else torch.float32)
        self.load_state_dict({name: tensors[first] for name, first in self._first_names().items()}, strict=True)

    def export_tensors(self) -> dict[str, Tensor]:
        """Make the tensors of a Hugging Face checkpoint, unused ones included."""
        return export_tensors(self.own_tensors(), self.sources) | self.unused_tensors
