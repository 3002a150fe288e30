"""A backbone with the embedding and the head that a checkpoint of others has. B batch, L seq_len, D d_model.

Apart from the frame's own models on purpose: their embeddings, positions and heads are part of a protocol, these are
part of somebody's weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.convert.conversion import Conversion, Embedding, Head, HeadLayer, HeadModule, Outside, Weight
from zoo.nn import ACTIVATIONS, LayerNorm
from zoo.nn.backbone import State
from zoo.spec.architecture import Architecture, ModelDims
from zoo.spec.errors import ConfigError
from zoo.spec.loading import load_object


class Logits(NamedTuple):
    """logits (B, L, vocab_size or D), or (B, classes) of a head that reads the first token; the carried state."""

    logits: Tensor
    state: State


class Embed(nn.Module):
    """ids (B, L) -> vectors (B, L, D). Pads stand on the right."""

    def __init__(self, spec: Embedding, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        self.tokens = nn.Embedding(spec.vocab_size, d_model)
        self.positions = nn.Embedding(spec.n_positions, d_model) if spec.positions else None
        self.types = nn.Embedding(spec.n_types, d_model) if spec.types else None
        self.norm = LayerNorm(d_model, spec.norm_eps) if spec.norm else None

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) * self.spec.scale
        if self.positions is not None:
            first, rows = self.spec.first_position, self.spec.n_positions
            if first + ids.shape[1] > rows:
                raise ValueError(f"{ids.shape[1]} tokens, but positions for {rows - first}")
            x = x + self.positions.weight[first : first + ids.shape[1]]
        if self.types is not None:
            x = x + self.types.weight[0]
        return x if self.norm is None else self.norm(x)

    def weights(self) -> list[Weight]:
        """Names of ours within this module and of theirs within the base model."""
        named = {"tokens.weight": self.spec.tokens, "positions.weight": self.spec.positions}
        named |= {"types.weight": self.spec.types}
        if self.spec.norm:
            named |= {f"norm.{kind}": f"{self.spec.norm}.{kind}" for kind in ("weight", "bias")}
        return [Weight(ours=ours, theirs=theirs) for ours, theirs in named.items() if theirs]


class HeadModel(nn.Module):
    """hidden (B, L, D) -> logits (B, L, ...), or (B, ...) where only the first token is read."""

    def __init__(self, spec: Head, d_model: int, module: str) -> None:
        super().__init__()
        self.spec = spec
        self.module: nn.Module | None = None
        width = d_model
        if spec.module is not None:
            self.module = load_object(module, what="module of a head")(**spec.module.settings)
            width = spec.module.d_out
        self.layers = nn.ModuleDict()
        for i, layer in enumerate(spec.layers):
            if layer.kind == "linear" and layer.weight:
                self.layers[str(i)] = nn.Linear(width, layer.d_out, bias=bool(layer.bias))
            elif layer.kind == "linear" and layer.bias:
                self.layers[str(i)] = Bias(layer.d_out)
            elif layer.kind == "norm":
                self.layers[str(i)] = LayerNorm(width, layer.eps)
            width = layer.d_out or width

    def forward(self, hidden: Tensor, tied: Tensor | None) -> Tensor:
        """tied: the embedding's weight (V, D), for a layer that has none of its own."""
        hidden = hidden if self.module is None else self.module(hidden)
        x = (hidden[:, 0] if self.spec.first else hidden) * self.spec.scale
        for i, layer in enumerate(self.spec.layers):
            own = dict(self.layers.items()).get(str(i))
            if layer.kind == "linear" and not layer.weight:
                assert tied is not None
                x = F.linear(x, tied, None if own is None else own.bias)  # type: ignore[arg-type]
            elif own is not None:
                x = own(x)
            else:
                x = torch.tanh(x) if layer.kind == "tanh" else ACTIVATIONS[layer.kind](x)
        return x

    def weights(self) -> list[Weight]:
        """Names of ours within this module and of theirs within the whole checkpoint."""
        found = []
        if self.spec.module is not None:
            found = [replace(w, ours=f"module.{w.ours}") for w in self.spec.module.weights]
        for i, layer in enumerate(self.spec.layers):
            for kind, theirs in (("weight", layer.weight), ("bias", layer.bias)):
                if theirs and str(i) in self.layers:
                    found.append(Weight(ours=f"layers.{i}.{kind}", theirs=theirs))
        return found


class Bias(nn.Module):
    """A bias alone, of a layer whose weight is the embedding's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))


class Converted(nn.Module):
    """The whole model of a checkpoint.

    forward(ids, mask=None, state=None) -> Logits; of an encoder-decoder forward(ids, mask, decoder_ids=...). A model
    without an embedding takes vectors (B, L, D) instead of ids.
    """

    def __init__(self, architecture: Architecture, arch: dict[str, Any], dims: ModelDims, outside: Outside) -> None:
        super().__init__()
        self.architecture, self.arch, self.dims, self.outside = architecture, arch, dims, outside
        try:
            self.config = architecture.load_config()(**arch)
        except TypeError as error:
            raise ConfigError("arch", f"{architecture.name}: {error}") from error
        self.backbone = architecture.build(self.config, dims)
        for name in outside.without:
            self.backbone.set_submodule(name, nn.Identity(), strict=True)
        self.carried: dict[str, Tensor] = {}
        self.embed = None if outside.embedding is None else Embed(outside.embedding, dims.d_model)
        self.head: HeadModel | None = None
        if outside.head is not None:
            self.head = HeadModel(outside.head, dims.d_model, architecture.load_conversion().head_module)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        state: State = None,
        *,
        decoder_ids: Tensor | None = None,
    ) -> Logits:
        """ids (B, L), mask (B, L) with True = real token, decoder_ids (B, T) -> logits for each of the decoder's."""
        out = self.backbone(self._vectors(ids), mask=mask, **({} if state is None else {"state": state}))
        if self.dims.mode == "seq2seq":
            if decoder_ids is None:
                raise ValueError("an encoder-decoder needs decoder_ids")
            out = self.backbone.decode(self._vectors(decoder_ids), memory=out.hidden, memory_mask=mask)
        if self.head is None:
            return Logits(out.hidden, out.state)
        tied = None if self.embed is None else self.embed.tokens.weight
        return Logits(self.head(out.hidden, tied), out.state)

    def _vectors(self, ids: Tensor) -> Tensor:
        return ids if self.embed is None else self.embed(ids)

    def weights(self, conversion: Conversion) -> tuple[Weight, ...]:
        """Every tensor of ours and where a checkpoint of the same class keeps it."""
        prefix = "" if self.outside.bare else conversion.prefix
        base = [("backbone.", list(conversion.weights(self.config, self.dims)))]
        if self.embed is not None:
            base.append(("embed.", self.embed.weights()))
        found = [
            replace(w, ours=part + w.ours, theirs=tuple(prefix + source for source in w.sources))
            for part, of_part in base
            for w in of_part
        ]
        if self.head is not None:
            found += [replace(w, ours=f"head.{w.ours}") for w in self.head.weights()]
        return tuple(found)


def outside_from(values: dict[str, Any]) -> Outside:
    """What stands around a backbone, from its plain containers."""
    values = dict(values)
    embedding, head = values.get("embedding"), values.get("head")
    if embedding is not None:
        values["embedding"] = Embedding(**embedding)
    if head is not None:
        layers, module = tuple(HeadLayer(**layer) for layer in head["layers"]), head.get("module")
        if module is not None:
            module = HeadModule(**module | {"weights": tuple(_weight(weight) for weight in module["weights"])})
        values["head"] = Head(**head | {"layers": layers, "module": module})
    values["without"] = tuple(values.get("without", ()))
    return Outside(**values)


def _weight(values: dict[str, Any]) -> Weight:
    tuples: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Weight(**tuples)
