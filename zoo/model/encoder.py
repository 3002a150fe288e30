"""What stands below every head: embedding, positions and backbone. B batch, L seq_len, D d_model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.model.segments import Segment, SegmentPlan, drive
from zoo.nn import param_options
from zoo.nn.backbone import State
from zoo.run.compose import Experiment


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
        position = torch.arange(max_len, dtype=torch.float64)[:, None]
        frequency = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * (-math.log(10000.0) / d_model))
        table = torch.zeros(max_len, d_model, dtype=torch.float64)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency)[:, : d_model // 2]
        self.register_buffer("table", table.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.table.shape[0]:
            raise ValueError(f"a sequence of {x.shape[1]} tokens, but positions for {self.table.shape[0]}")
        return x + self.table[: x.shape[1]].to(x.dtype)


class Encoder(nn.Module):
    """Ids or values -> hidden vectors, segment by segment: embedding, positions, dropout, backbone."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        arch, tree = experiment.architecture.record, experiment.tree
        dims = experiment.dims
        d_model = dims.d_model
        self.values = getattr(experiment.task_options, "input", "tokens") == "values"
        if self.values:
            self.embedding: nn.Module = nn.Linear(1, d_model)
        else:
            self.embedding = nn.Embedding(experiment.vocab_size, d_model)
            # unit variance per feature, as LRA's flax models and the S4 code have it
            nn.init.normal_(self.embedding.weight)
        self.cls: nn.Parameter | None = None
        if tree.model.pool == "cls" and experiment.classifies:
            self.cls = nn.Parameter(torch.zeros(d_model))
        longest = experiment.longest + (self.cls is not None)
        external = arch.capabilities.positions == "external"
        self.positions = Positions(tree.model.positions, d_model, longest) if external else None
        self.dropout = nn.Dropout(tree.model.dropout)
        self.backbone = arch.build(experiment.arch_config, dims)
        self.plan = segment_plan(experiment)
        self.causal = dims.mode == "causal"

    def embed(self, inputs: Tensor) -> Tensor:
        """inputs (B, L) -> (B, L, D), with positions where the architecture has none of its own."""
        x = self.embedding(inputs[..., None].to(self.dtype) if self.values else inputs)
        if self.cls is not None:
            x = torch.cat([self.cls.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        if self.positions is not None:
            x = self.positions(x)
        return self.dropout(x)

    def forward(self, inputs: Tensor, mask: Tensor | None, state: State = None) -> Iterator[Segment]:
        """inputs (B, L), mask (B, L), state from an earlier piece -> the segments' hidden vectors."""
        if self.cls is not None and mask is not None:
            mask = torch.cat([mask.new_ones(mask.shape[0], 1), mask], dim=1)
        return drive(self.backbone, self.embed(inputs), mask, state, self.plan)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def segment_plan(experiment: Experiment) -> SegmentPlan:
    """How this experiment's inputs are driven through its backbone; one call where no segments are needed."""
    settings = experiment.tree.segments
    if not experiment.architecture.record.capabilities.segment:
        return SegmentPlan()
    return SegmentPlan(
        length=settings.length,
        align=settings.align,
        tbptt=settings.tbptt or None,
        activation_checkpointing=settings.activation_checkpointing,
    )
