"""Inputs to hidden vectors: embedding, positions, backbone. B batch, L seq_len, D d_model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from zoo.model.segments import Segment, drive
from zoo.model.spec import ModelSpec
from zoo.nn import SegmentBackbone, derived_buffer, param_options
from zoo.nn.backbone import State
from zoo.nn.masks import pack_rows
from zoo.ops.positions import sinusoidal


class Positions(nn.Module):
    """Absolute positions added to the embedding, for architectures that have none of their own.

    sinusoidal  Vaswani et al. 2017, §3.5: sin and cos interleaved, frequency 10000^(-2u/D)
    learned     a table of `max_len` rows, N(0, 0.02²)
    """

    def __init__(self, kind: str, d_model: int, max_len: int) -> None:
        super().__init__()
        self.table: Tensor
        if kind == "learned":
            self.table = nn.Parameter(torch.randn(max_len, d_model) * 0.02)
            param_options(self, "table", weight_decay=0.0)
            return
        derived_buffer(self, "table", partial(sinusoids, max_len, d_model))

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """x (B, L, D) at positions from 0, or from `start` (B,). ValueError where the table ends; on a device, which
        would have to be waited for, the start is left to its own check of indices."""
        known = 0 if start is None or start.device.type != "cpu" else int(start.max())
        n_positions = x.shape[1] + known
        if n_positions > self.table.shape[0]:
            raise ValueError(f"a sequence of {n_positions} tokens, but positions for {self.table.shape[0]}")
        if start is None:
            return x + self.table[: x.shape[1]].to(x.dtype)
        return x + self.table[start[:, None] + torch.arange(x.shape[1], device=x.device)].to(x.dtype)


def sinusoids(max_len: int, d_model: int) -> Tensor:
    """The fixed positions (max_len, D) of `sinusoidal`, in float32."""
    return sinusoidal(torch.arange(max_len), d_model).float()


class Encoder(nn.Module):
    """Ids or values -> hidden vectors, segment by segment: embedding, positions, dropout, backbone."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        d_model = spec.dims.d_model
        self.channels = spec.channels
        if self.channels:
            self.embedding: nn.Module = nn.Linear(self.channels, d_model)
        else:
            self.embedding = nn.Embedding(spec.vocab_size, d_model)
            # unit variance per feature, as LRA's flax models and the S4 code have it
            nn.init.normal_(self.embedding.weight)
        self.cls: nn.Parameter | None = None
        if spec.pool == "cls" and spec.objective == "classify":
            self.cls = nn.Parameter(torch.zeros(d_model))
        max_len = spec.max_len + (self.cls is not None)
        self.positions = None if spec.positions in ("", "none") else Positions(spec.positions, d_model, max_len)
        self.dropout = nn.Dropout(spec.dropout)
        self.backbone = spec.architecture.build(spec.arch_config, spec.dims)
        self.plan = spec.segment_plan
        # a generated text is cut where a text that is read whole is, also beyond the longest of training
        if isinstance(self.backbone, SegmentBackbone) and self.plan.length is not None:
            self.backbone.segment_len = self.plan.length
        self.segments = math.ceil(spec.seq_len / self.plan.length) if self.plan.length else 1
        self.causal = spec.dims.mode == "causal"

    def embed(self, inputs: Tensor, mask: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """inputs (B, L) or (B, L, channels), mask (B, L) -> (B, L, D), with positions where the architecture has none.

        start  (B,) position of the first token of each row; None = 0
        What pads hold, NaN too, reaches no gradient.
        """
        if self.channels:
            inputs = inputs.to(self.dtype) if inputs.ndim == 3 else inputs[..., None].to(self.dtype)
        if mask is not None:
            inputs = inputs.masked_fill(~mask[..., None] if self.channels else ~mask, 0)
        x = self.embedding(inputs)
        if self.cls is not None:
            x = torch.cat([self.cls.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        if self.positions is not None:
            x = self.positions(x, start)
        return self.dropout(x)

    def forward(self, inputs: Tensor, mask: Tensor | None, state: State = None) -> Iterator[Segment]:
        """inputs as in `embed`, mask (B, L), state from an earlier piece -> the segments' hidden vectors."""
        x = self.embed(inputs, mask)
        if self.cls is not None and mask is not None:
            mask = torch.cat([mask.new_ones(mask.shape[0], 1), mask], dim=1)
        return drive(self.backbone, x, mask, state, self.plan)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def pack_inputs(inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move each row's real tokens to its beginning: positions and segments count them alone, wherever the pads stand.

    inputs (B, L) or (B, L, channels), mask (B, L) -> the same, and source indices (B, L) for `zoo.nn.masks.unpack_rows`
    """
    x, mask, order = pack_rows(inputs if inputs.ndim == 3 else inputs[..., None], mask)
    return x.view_as(inputs), mask, order
