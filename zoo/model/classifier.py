"""The models of an experiment: an encoder, and what is above it for classes. B batch, L seq_len, D d_model.

The model pools while the segment driver runs, so a long input never needs all its hidden vectors at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.data.module import Batch
from zoo.model.encoder import Encoder
from zoo.model.lm import LMHeadModel
from zoo.nn import at_least_float32
from zoo.run.compose import Experiment
from zoo.spec.errors import ConfigError


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
            weighted = (wide * real[..., None]).sum(1)  # (B, D)
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
    """An encoder and a classifier; for matching, one encoder for both documents and [a, b, a*b, a-b] above it."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        task, tree = experiment.task.record, experiment.tree
        self.encoder = Encoder(experiment)
        self.pool = tree.model.pool
        self.matching = task.kind == "pair_classification"
        d_in = tree.model.d_model * (4 if self.matching else 1)
        if tree.model.head == "mlp":
            d_head = tree.model.d_head or 2 * tree.model.d_model
            self.head: nn.Module = nn.Sequential(nn.Linear(d_in, d_head), nn.ReLU(), nn.Linear(d_head, task.classes))
        else:
            self.head = nn.Linear(d_in, task.classes)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """-> logits (B, classes), auxiliary losses by name."""
        if not self.matching:
            pooled, aux = self.pooled(batch.inputs, batch.mask)
            return self._classify(pooled), aux
        b = batch.inputs.shape[0]
        both = batch.inputs.transpose(0, 1).flatten(0, 1)  # (2B, L)
        mask = None if batch.mask is None else batch.mask.transpose(0, 1).flatten(0, 1)
        pooled, aux = self.pooled(both, mask)
        u, v = pooled[:b], pooled[b:]  # (B, D) each
        return self._classify(torch.cat([u, v, u * v, u - v], dim=-1)), aux

    def pooled(self, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """inputs (B, L), mask (B, L) -> (B, D), auxiliary losses summed over segments / their number."""
        encoder = self.encoder
        length = inputs.shape[1] + (encoder.cls is not None)
        pool = Pool(self.pool)
        aux: dict[str, Tensor] = {}
        segments = 0
        for segment in encoder(inputs, mask):
            segments += 1
            whole = encoder.plan.length is None
            fewer = whole and not encoder.causal and segment.hidden.shape[1] != length
            latent = fewer or encoder.backbone.returns_latents
            if latent and self.pool != "mean":
                raise ConfigError("model.pool", f"{self.pool} has no meaning for latents; use mean")
            if encoder.causal and whole:
                self._refuse_lost_outputs(mask, segment.mask)
            pool.update(segment.hidden, segment.mask)
            for name, loss in segment.aux.items():
                aux[name] = aux[name] + loss if name in aux else loss
        return pool.result(), {name: loss / segments for name, loss in aux.items()}

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

    def _classify(self, pooled: Tensor) -> Tensor:
        logits = self.head(pooled.to(next(self.head.parameters()).dtype))
        return at_least_float32(logits)


def build_model(experiment: Experiment) -> SequenceClassifier | LMHeadModel:
    """The model that the experiment's task needs."""
    return SequenceClassifier(experiment) if experiment.classifies else LMHeadModel(experiment)


def count_parameters(experiment: Experiment) -> int:
    """Parameters of the whole model of an experiment, as its record will count them."""
    with torch.random.fork_rng(devices=[]):
        return sum(p.numel() for p in build_model(experiment).parameters())
