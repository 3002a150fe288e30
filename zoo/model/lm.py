"""The model for tasks whose answers are tokens. B batch, L seq_len, D d_model, N answers asked for, V vocabulary.

Logits are made only where something is asked: most positions of a recall question, or of the context of a passage,
never meet the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.data.module import Batch
from zoo.data.questions import IGNORE
from zoo.model.encoder import Encoder
from zoo.nn import at_least_float32
from zoo.nn.backbone import State
from zoo.run.compose import Experiment
from zoo.spec.errors import ConfigError


class LMOutput(NamedTuple):
    """What a model says to a batch.

    logits  (N, V), at least float32
    labels  (N,) the right tokens
    rows    (N,) which example of the batch asks
    aux     auxiliary losses by name
    state   what the next piece of the same texts needs, or None
    """

    logits: Tensor
    labels: Tensor
    rows: Tensor
    aux: dict[str, Tensor]
    state: State = None


class LMHeadModel(nn.Module):
    """An encoder and a linear head over the vocabulary; for seq2seq, the backbone's decoder between them."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.architecture = experiment.architecture.record.name
        self.objective = experiment.objective
        self.encoder = Encoder(experiment)
        self.head = nn.Linear(experiment.dims.d_model, experiment.vocab_size)

    def forward(self, batch: Batch, state: State = None) -> LMOutput:
        """`state` is what an earlier piece of the same rows left; None = nothing."""
        if self.objective == "seq2seq":
            return self._written(batch)
        chosen: list[Tensor] = []
        wanted: list[Tensor] = []
        rows: list[Tensor] = []
        aux: dict[str, Tensor] = {}
        segments = 0
        asked = batch.labels != IGNORE  # (B, L)

        def take(hidden: Tensor, start: int) -> None:
            stop = start + hidden.shape[1]
            here = asked[:, start:stop]
            chosen.append(hidden[here])
            wanted.append(batch.labels[:, start:stop][here])
            rows.append(here.nonzero()[:, 0])

        for segment in self.encoder(batch.inputs, batch.mask, state):
            segments += 1
            length = self.encoder.plan.length or batch.inputs.shape[1]
            stop = min(segment.start + length, batch.inputs.shape[1])
            first = stop - segment.hidden.shape[1]
            self._check_outputs(segment.hidden, stop - segment.start)
            take(segment.hidden, first)
            if first > segment.start and bool(asked[:, segment.start : first].any()):
                self._cover(batch, asked, first, take)
            for name, loss in segment.aux.items():
                aux[name] = aux[name] + loss if name in aux else loss
            state = segment.state
        aux = {name: loss / segments for name, loss in aux.items()}
        return LMOutput(self._logits(torch.cat(chosen)), torch.cat(wanted), torch.cat(rows), aux, state)

    def _cover(self, batch: Batch, asked: Tensor, stop: int, take: Callable[[Tensor, int], None]) -> None:
        """Outputs for positions before `stop`, of a backbone that has outputs for the last positions only (Perceiver
        AR): it is called again on ever shorter beginnings, so that each position is told with all that is before it."""
        x = self.encoder.embed(batch.inputs)
        while stop > 0 and bool(asked[:, :stop].any()):
            mask = None if batch.mask is None else batch.mask[:, :stop]
            hidden = self.encoder.backbone(x[:, :stop], mask=mask).hidden
            take(hidden, stop - hidden.shape[1])
            stop -= hidden.shape[1]

    def _check_outputs(self, hidden: Tensor, length: int) -> None:
        backbone = self.encoder.backbone
        fewer = hidden.shape[1] != length
        if backbone.returns_latents or (fewer and not self.encoder.causal):
            raise ConfigError("model.mode", f"{self.architecture} returns latents then, which stand for no token")
        if fewer and self.encoder.plan.length is not None:
            raise ConfigError("segments.length", f"{hidden.shape[1]} outputs for a segment of {length} tokens")

    def _written(self, batch: Batch) -> LMOutput:
        assert batch.target is not None
        x = self.encoder.embed(batch.inputs)
        backbone = self.encoder.backbone
        encoded = backbone(x, mask=batch.mask)
        out = backbone.decode(self.encoder.embed(batch.target), memory=encoded.hidden, memory_mask=batch.mask)
        asked = batch.labels != IGNORE  # (B, T)
        logits = self._logits(out.hidden[asked])
        return LMOutput(logits, batch.labels[asked], asked.nonzero()[:, 0], {**encoded.aux, **out.aux})

    def _logits(self, hidden: Tensor) -> Tensor:
        return at_least_float32(self.head(hidden.to(self.head.weight.dtype)))
