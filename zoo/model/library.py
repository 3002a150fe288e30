"""Architectures as parts of other programs: backbones, and models with a head that take and give what transformers' do.

B batch, L seq_len, T target length, V vocab_size. `input_ids`, `attention_mask` and `labels` have the meaning, and
outputs the names, that Hugging Face's models have, so that a loop of your own, Lightning, and `transformers.Trainer`
take them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.batch import Batch
from zoo.data.questions import IGNORE
from zoo.model.encoder import pack_inputs
from zoo.model.models import AuxLosses, LMHeadModel, SequenceClassifier
from zoo.model.segments import SegmentPlan
from zoo.model.spec import ModelSpec, Pooling
from zoo.nn.backbone import Backbone, State
from zoo.nn.masks import unpack_rows
from zoo.nn.state import return_state
from zoo.spec.architecture import OBJECTIVES, Architecture, Mode, ModelDims, Objective
from zoo.spec.config import nest, validate_layer
from zoo.spec.constraints import build_config
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry


def build(name: str, *, d_model: int, n_layers: int, max_len: int, mode: Mode = "causal", **config: Any) -> Backbone:
    """Build the backbone of an architecture: (B, L, d_model) -> (B, L, d_model).

    max_len  the longest input of one call
    config   fields of the architecture's configuration (`zoo show NAME`); nested ones as a mapping

    Raises UnknownName, or ConfigError for an impossible configuration.
    """
    architecture = registry().architecture(name).record
    dims = ModelDims(d_model=d_model, n_layers=n_layers, mode=mode, max_len=max_len)
    return architecture.build(_config(architecture, config), dims)


class Outputs(dict[str, Any]):
    """What a model gives, by name: `out.loss` and `out["loss"]` are the same. Nothing that is None is in it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"these outputs have no {name}; there are {', '.join(self)}") from None


class LanguageModel(nn.Module):
    """A model of tokens: a token embedding, an architecture's backbone, and a linear head over the vocabulary.

    mode         causal: predicts the next token. bidirectional: predicts tokens in place (masked language modelling).
                 seq2seq: a decoder writes over the encoded input
    max_len      the longest input
    segment_len  tokens of a segment, for architectures that read segment by segment (Transformer-XL …)
    positions    "sinusoidal" | "learned" | "none", for architectures that have none of their own
    dropout      on the embeddings
    config       fields of the architecture's configuration

    `zoo.generate` continues texts by a causal or seq2seq one.
    """

    def __init__(
        self,
        architecture: str,
        *,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        max_len: int,
        mode: Mode = "causal",
        segment_len: int = 256,
        positions: str = "sinusoidal",
        dropout: float = 0.0,
        **config: Any,
    ) -> None:
        super().__init__()
        self.lm = LMHeadModel(
            _spec(
                architecture,
                config,
                OBJECTIVES[mode],
                d_model=d_model,
                n_layers=n_layers,
                mode=mode,
                max_len=max_len,
                segment_len=segment_len,
                positions=positions,
                vocab_size=vocab_size,
                dropout=dropout,
            )
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        state: State = None,
        use_cache: bool = False,
    ) -> Outputs:
        """Compute logits and, with labels, the loss.

        input_ids          (B, L)
        attention_mask     (B, L), 1 or True = real token; pads anywhere
        labels             (B, L), -100 where nothing is predicted. Causal: the tokens themselves, shifted here, as in
                           transformers. seq2seq: (B, T), what the decoder is to write
        decoder_input_ids  (B, T), seq2seq only; by default 0 and all labels but the last
        state, use_cache   a state to go on from, and whether the one after this input is returned; causal only

        Returns `loss` (with labels; auxiliary losses are in it), `logits` (B, L or T, V), `state` (with use_cache). An
        architecture with outputs for the last positions only (Perceiver) gives logits for those.
        """
        mask = None if attention_mask is None else attention_mask.bool()
        if self.lm.objective == "seq2seq":
            return self._write(input_ids, mask, labels, decoder_input_ids)
        order = None
        if mask is not None:
            labels = None if labels is None else pack_inputs(labels, mask)[0]
            input_ids, mask, order = pack_inputs(input_ids, mask)
        with return_state(use_cache):
            segments = list(self.lm.encoder(input_ids, mask, state))
        hidden = torch.cat([segment.hidden for segment in segments], 1)
        self.lm.check_outputs(hidden, input_ids.shape[1])
        logits = self.lm.compute_logits(hidden)
        outputs = Outputs(logits=logits if order is None else unpack_rows(logits, order))
        if labels is not None:
            labels = labels if mask is None else labels.masked_fill(~mask, IGNORE)
            labels = labels[:, -logits.shape[1] :]
            causal = self.lm.objective == "causal_lm"
            predicted, right = (logits[:, :-1], labels[:, 1:]) if causal else (logits, labels)
            losses = AuxLosses(self.lm.encoder.segments)
            for segment in segments:
                losses.add(segment.aux)
            outputs = Outputs(loss=_loss(predicted, right) + sum(losses.mean().values()), **outputs)
        if use_cache:
            outputs["state"] = segments[-1].state
        return outputs

    def _write(
        self, input_ids: Tensor, mask: Tensor | None, labels: Tensor | None, decoder_input_ids: Tensor | None
    ) -> Outputs:
        """Encode the input, and decode the target."""
        if decoder_input_ids is None:
            if labels is None:
                raise ConfigError("decoder_input_ids", "an encoder-decoder needs them, or labels")
            first = torch.zeros_like(labels[:, :1])
            decoder_input_ids = torch.cat([first, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE, 0)], 1)
        backbone = self.lm.backbone
        if mask is not None:
            input_ids, mask, _ = pack_inputs(input_ids, mask)
        source = backbone(self.lm.embed(input_ids, mask), mask=mask)
        out = backbone.decode(self.lm.embed(decoder_input_ids), memory=source.hidden, memory_mask=mask)
        logits = self.lm.compute_logits(out.hidden)
        if labels is None:
            return Outputs(logits=logits)
        aux = [*source.aux.values(), *out.aux.values()]
        return Outputs(loss=_loss(logits, labels) + sum(aux), logits=logits)


class Classifier(nn.Module):
    """A classifier of sequences: an embedding, an architecture's backbone, pooling, and a linear head.

    vocab_size   of token ids; 0 with channels
    channels     real numbers at each position, in place of token ids
    mode         by default bidirectional where the architecture has it, else causal
    pool         "mean" | "last" | "cls"
    others       as of `LanguageModel`
    """

    def __init__(
        self,
        architecture: str,
        *,
        n_classes: int,
        vocab_size: int = 0,
        channels: int = 0,
        d_model: int,
        n_layers: int,
        max_len: int,
        mode: Mode | None = None,
        pool: Pooling = "mean",
        segment_len: int = 256,
        positions: str = "sinusoidal",
        dropout: float = 0.0,
        **config: Any,
    ) -> None:
        super().__init__()
        if bool(vocab_size) == bool(channels):
            raise ConfigError("vocab_size", "a classifier reads token ids (vocab_size) or numbers (channels)")
        self.model = SequenceClassifier(
            _spec(
                architecture,
                config,
                "classify",
                d_model=d_model,
                n_layers=n_layers,
                mode=mode,
                max_len=max_len,
                segment_len=segment_len,
                positions=positions,
                vocab_size=vocab_size,
                n_classes=n_classes,
                channels=channels,
                pool=pool,
                dropout=dropout,
            )
        )
        self.channels = channels

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_values: Tensor | None = None,
    ) -> Outputs:
        """Compute logits and, with labels, the loss.

        input_ids       (B, L), or input_values (B, L) or (B, L, channels)
        attention_mask  (B, L), 1 or True = real; pads anywhere
        labels          (B,) classes

        Returns `loss` (with labels; auxiliary losses are in it) and `logits` (B, n_classes).
        """
        inputs = input_values if self.channels else input_ids
        if inputs is None:
            raise ConfigError("input_values" if self.channels else "input_ids", "missing")
        mask = None if attention_mask is None else attention_mask.bool()
        none = torch.zeros(inputs.shape[0], dtype=torch.int64, device=inputs.device)
        out = self.model(Batch(inputs, mask, none))
        if labels is None:
            return Outputs(logits=out.logits)
        return Outputs(loss=F.cross_entropy(out.logits, labels) + sum(out.aux.values()), logits=out.logits)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over what is labelled; 0 where nothing is."""
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp_min(1)


def _config(architecture: Architecture, config: dict[str, Any]) -> Any:
    """The architecture's configuration with some fields. Raises ConfigError for unknown ones and wrong values."""
    cls = architecture.load_config()
    return build_config(cls, nest(validate_layer({"arch": config}, {"arch": cls}, "arguments")).get("arch", {}))


def _spec(
    name: str,
    config: dict[str, Any],
    objective: Objective,
    *,
    d_model: int,
    n_layers: int,
    mode: Mode | None,
    max_len: int,
    segment_len: int,
    positions: str,
    **fields: Any,
) -> ModelSpec:
    """The specification of a model, as a run composes it."""
    architecture = registry().architecture(name).record
    capabilities = architecture.capabilities
    if mode is None:
        mode = "bidirectional" if "bidirectional" in capabilities.modes else "causal"
    one_call = max_len + (fields.get("pool") == "cls")
    if capabilities.segment:
        one_call = min(one_call, segment_len)
    return ModelSpec(
        architecture=architecture,
        arch_config=_config(architecture, config),
        dims=ModelDims(d_model=d_model, n_layers=n_layers, mode=mode, max_len=one_call),
        seq_len=max_len,
        max_len=max_len,
        objective=objective,
        positions=positions if capabilities.positions == "external" else "",
        segment_plan=SegmentPlan(one_call if capabilities.segment else None),
        **fields,
    )
