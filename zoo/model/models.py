"""A backbone with what stands around it: the encoder (encoder.py), pooling, head.

B batch, L seq_len, T segment length, D d_model, N scored answers, V outputs (classes or vocabulary).

Pooling and heads run while the segment driver does, so a long input never needs all its hidden vectors at once, and
logits are computed only at positions that have a label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.data.batch import Batch
from zoo.data.questions import IGNORE
from zoo.model.encoder import Encoder, pack_inputs
from zoo.model.spec import ModelSpec
from zoo.nn import at_least_float32
from zoo.nn.backbone import Backbone, State
from zoo.nn.masks import unpack_rows
from zoo.spec.errors import ConfigError


class ModelOutput(NamedTuple):
    """What a model returns for a batch.

    logits  (N, V), at least float32
    labels  (N,) the right classes or tokens
    rows    (N,) the example of the batch that each answer belongs to
    aux     auxiliary losses by name, each a scalar
    state   what the next piece of the same texts needs, or None
    """

    logits: Tensor
    labels: Tensor
    rows: Tensor
    aux: dict[str, Tensor]
    state: State = None


class Pool:
    """Streaming pooling over the segments of a sequence, in at least float32.

    mean  over all real tokens (over all latents when the backbone returns latents)
    last  the last real token of each row
    cls   the first token
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.total: Tensor | None = None
        self.count: Tensor | None = None

    def update(self, hidden: Tensor, mask: Tensor | None) -> None:
        """hidden (B, T, D), mask (B, T) of the same rows or None."""
        wide = at_least_float32(hidden)
        real = torch.ones(wide.shape[:2], dtype=torch.bool, device=wide.device) if mask is None else mask
        if self.kind == "mean":
            weighted = wide.masked_fill(~real[..., None], 0.0).sum(1)  # (B, D)
            counted = real.sum(1)
            self.total = weighted if self.total is None else self.total + weighted
            self.count = counted if self.count is None else self.count + counted
        elif self.kind == "cls":
            self.total = wide[:, 0] if self.total is None else self.total
        else:
            positions = torch.arange(wide.shape[1], device=wide.device)
            last = torch.where(real, positions, -1).amax(1)  # (B,)
            rows = torch.arange(wide.shape[0], device=wide.device)
            picked = wide[rows, last.clamp_min(0)]  # (B, D)
            keep = (last >= 0)[:, None]
            self.total = torch.where(keep, picked, torch.zeros_like(picked) if self.total is None else self.total)

    def result(self) -> Tensor:
        """(B, D)"""
        if self.total is None:
            raise ValueError("nothing was pooled")
        if self.kind == "mean":
            assert self.count is not None
            return self.total / self.count.clamp_min(1)[:, None]
        return self.total


class SequenceClassifier(nn.Module):
    """An encoder, pooling and a classifier.

    pairs  the input holds two sequences: one encoder reads both, and the classifier reads [a, b, a*b, a-b]
    """

    def __init__(self, spec: ModelSpec, *, pairs: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.pool, self.pairs = spec.pool, pairs
        d_in = spec.dims.d_model * (4 if pairs else 1)
        if spec.d_head:
            self.head: nn.Module = nn.Sequential(
                nn.Linear(d_in, spec.d_head), nn.ReLU(), nn.Linear(spec.d_head, spec.n_classes)
            )
        else:
            self.head = nn.Linear(d_in, spec.n_classes)

    def forward(self, batch: Batch, state: State = None) -> ModelOutput:
        """One answer per example; `state` is not used."""
        if self.pairs:
            inputs = batch.inputs.transpose(0, 1).flatten(0, 1)  # (2B, L)
            mask = None if batch.mask is None else batch.mask.transpose(0, 1).flatten(0, 1)
            pooled, aux = self.pooled(inputs, mask)
            a, b = pooled.chunk(2)  # (B, D) each
            features = torch.cat([a, b, a * b, a - b], dim=-1)
        else:
            features, aux = self.pooled(batch.inputs, batch.mask)
        logits = at_least_float32(self.head(features.to(next(self.head.parameters()).dtype)))
        return ModelOutput(logits, batch.labels, torch.arange(logits.shape[0], device=logits.device), aux)

    def logits(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """inputs (B, L) or (B, L, channels), of pairs (B, 2, L), mask (B, L) or (B, 2, L) or None -> (B, n_classes)"""
        return self(Batch(inputs, mask, inputs.new_zeros(inputs.shape[0], dtype=torch.int64))).logits

    def pooled(self, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """inputs (B, L), mask (B, L) -> (B, D), auxiliary losses (`AuxLosses`)."""
        encoder = self.encoder
        if mask is not None:
            inputs, mask, _ = pack_inputs(inputs, mask)
        seq_len = inputs.shape[1] + (encoder.cls is not None)
        pool, losses = Pool(self.pool), AuxLosses(encoder.segments)
        for segment in encoder(inputs, mask):
            whole = encoder.plan.length is None
            fewer = whole and not encoder.causal and segment.hidden.shape[1] != seq_len
            if (fewer or encoder.backbone.returns_latents) and self.pool != "mean":
                raise ConfigError("model.pool", f"{self.pool} has no meaning for latents; use mean")
            if encoder.causal and whole:
                self._refuse_lost_outputs(mask, segment.mask)
            pool.update(segment.hidden, segment.mask)
            losses.add(segment.aux)
        return pool.result(), losses.mean()

    def _refuse_lost_outputs(self, mask: Tensor | None, kept: Tensor | None) -> None:
        """Raise where pads would decide what is pooled: mask (B, L) of the input, kept (B, out_len) of the outputs.

        A causal backbone with outputs for the last positions only (Perceiver AR) has fewer of them, or none, for a
        row that ends in pads; how many depends on what else is in the batch.
        """
        if mask is None or kept is None or kept.shape == mask.shape:
            return
        whole = kept[:, -1] if self.pool == "mean" else kept.any(1)
        if bool((mask.any(1) & ~whole).any()):
            raise ConfigError(
                "model.mode",
                f"causal, this architecture has outputs for the last {kept.shape[1]} of {mask.shape[1]} positions, "
                "and a shorter example of the batch would lose some to its pads; use bidirectional",
            )


class LMHeadModel(nn.Module):
    """An encoder and a linear head over the vocabulary; for seq2seq, the backbone's decoder between them.

    outputs  the head's, where they are no tokens of the vocabulary
    """

    def __init__(self, spec: ModelSpec, *, outputs: int = 0) -> None:
        super().__init__()
        self.architecture, self.objective, self.max_len = spec.architecture.name, spec.objective, spec.max_len
        self.capabilities = spec.architecture.capabilities
        if spec.segment_plan.align == "right":  # each token moves all segments
            self.capabilities = replace(self.capabilities, step=False)
        self.encoder = Encoder(spec)
        self.head = nn.Linear(spec.dims.d_model, outputs or spec.vocab_size)

    def forward(self, batch: Batch, state: State = None) -> ModelOutput:
        """One answer per label; `state` is what an earlier piece of the same rows returned, None = nothing."""
        if self.objective == "seq2seq":
            return self._decode(batch)
        scored = batch.labels != IGNORE  # (B, L)
        chosen: list[tuple[Tensor, Tensor, Tensor]] = []

        def collect(hidden: Tensor, start: int) -> None:
            stop = start + hidden.shape[1]
            here = scored[:, start:stop]
            chosen.append((hidden[:, : here.shape[1]][here], batch.labels[:, start:stop][here], here.nonzero()[:, 0]))

        losses = AuxLosses(self.encoder.segments)
        for segment in self.encoder(batch.inputs, batch.mask, state):
            length = self.encoder.plan.length or batch.inputs.shape[1]
            stop = min(segment.start + length, batch.inputs.shape[1])
            first = stop - segment.hidden.shape[1]
            self.check_outputs(segment.hidden, stop - segment.start)
            if first == segment.start:
                collect(segment.hidden, first)
            else:
                self._collect_in_parts(batch, scored, segment.hidden, collect)
            losses.add(segment.aux)
            state = segment.state
        hidden, labels, rows = (torch.cat(parts) for parts in zip(*chosen, strict=True))
        return ModelOutput(self.compute_logits(hidden), labels, rows, losses.mean(), state)

    def logits(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """inputs (B, L) or (B, L, channels), mask (B, L) or None -> (B, L, V), what is predicted at each position.

        Not for seq2seq.
        """
        order = None
        if mask is not None:
            inputs, mask, order = pack_inputs(inputs, mask)
        parts = [segment.hidden for segment in self.encoder(inputs, mask)]
        hidden = torch.cat(parts, 1)
        self.check_outputs(hidden, inputs.shape[1])
        if order is not None:
            hidden = unpack_rows(hidden, order)
        if hidden.shape[1] != inputs.shape[1]:
            raise ConfigError("model.mode", f"{self.architecture} has outputs for the last positions only")
        return self.compute_logits(hidden)

    @property
    def backbone(self) -> Backbone:
        """The backbone, without embedding and head."""
        return self.encoder.backbone

    def embed(self, tokens: Tensor, mask: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """Embed tokens, as `Encoder.embed`."""
        return self.encoder.embed(tokens, mask, start)

    def next_logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, V) after the last real token of each row: tokens (B, L), mask (B, L), pads at the end."""
        last = torch.full_like(tokens[:, 0], tokens.shape[1]) if mask is None else mask.sum(1)
        labels = torch.full_like(tokens, IGNORE).scatter(1, last[:, None] - 1, 0)
        out = self(Batch(tokens, mask, labels))
        return out.logits[out.rows.argsort()]

    def _collect_in_parts(
        self, batch: Batch, scored: Tensor, hidden: Tensor, collect: Callable[[Tensor, int], None]
    ) -> None:
        """Outputs of a backbone that has them for the last positions only (Perceiver AR): it is called on ever longer
        prefixes, so that each position is predicted from all before it.

        hidden  (B, K, D), the outputs for the whole input

        The prefixes end at multiples of K and at the longest input there is, wherever the batch ends: what a row is
        given must not depend on the length of others. Pads make the last one whole.
        """
        L, K = batch.inputs.shape[1], hidden.shape[1]
        longest = max(min(-(-L // K) * K, self.max_len), L)
        inputs, mask = batch.inputs, batch.mask
        if longest > L:
            mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device) if mask is None else mask
            channels = (0, 0) * (inputs.ndim - 2)
            inputs, mask = (
                nn.functional.pad(inputs, (*channels, 0, longest - L)),
                nn.functional.pad(mask, (0, longest - L)),
            )
        x: Tensor | None = None
        for start in range(0, L, K):
            if not bool(scored[:, start : start + K].any()):
                continue
            stop = min(start + K, longest)
            if stop != L:
                x = self.encoder.embed(inputs) if x is None else x
                real = None if mask is None else mask[:, :stop]
                part = self.encoder.backbone(x[:, :stop], mask=real).hidden
            else:
                part = hidden
            collect(part[:, start - stop :], start)

    def check_outputs(self, hidden: Tensor, length: int) -> None:
        backbone = self.encoder.backbone
        fewer = hidden.shape[1] != length
        if backbone.returns_latents or (fewer and not self.encoder.causal):
            raise ConfigError("model.mode", f"{self.architecture} returns latents then, which stand for no token")
        if fewer and self.encoder.plan.length is not None:
            raise ConfigError("segments.length", f"{hidden.shape[1]} outputs for a segment of {length} tokens")

    def _decode(self, batch: Batch) -> ModelOutput:
        assert batch.target is not None
        backbone = self.encoder.backbone
        encoded = backbone(self.encoder.embed(batch.inputs, batch.mask), mask=batch.mask)
        out = backbone.decode(self.encoder.embed(batch.target), memory=encoded.hidden, memory_mask=batch.mask)
        scored = batch.labels != IGNORE  # (B, T)
        logits = self.compute_logits(out.hidden[scored])
        return ModelOutput(logits, batch.labels[scored], scored.nonzero()[:, 0], {**encoded.aux, **out.aux})

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """hidden (…, D) -> logits (…, V), at least float32."""
        return at_least_float32(self.head(hidden.to(self.head.weight.dtype)))


class AuxLosses:
    """Auxiliary losses, summed over the segments of a sequence and divided by those of the longest training example.

    Not by those of the batch at hand, which would make a row's part depend on how long the others of its batch are.
    """

    def __init__(self, segments: int) -> None:
        self.total: dict[str, Tensor] = {}
        self.segments = segments

    def add(self, aux: dict[str, Tensor]) -> None:
        for name, loss in aux.items():
            self.total[name] = self.total[name] + loss if name in self.total else loss

    def mean(self) -> dict[str, Tensor]:
        return {name: loss / self.segments for name, loss in self.total.items()}
