"""Metrics that add up over the examples of a split. N answers, B batch, G groups.

In evaluation every process of a distributed run has all examples, so sums are combined over processes in training only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from zoo.data.batch import Batch
from zoo.data.module import Split, Totals
from zoo.model.models import ModelOutput

Scores = dict[str, Any]
"""The fields of zoo.spec.record.SplitMetrics: "n", "loss", "scores" (the ranked metric first), "groups" …; and "right"
(n,) bool: which questions of a test split were answered right, in their order of evaluation."""
TESTED: tuple[Split, ...] = ("test", "length_generalization")
"""Splits of which it is kept which questions were answered right."""


class ClassificationMetrics(Metric):
    """Accuracy and mean loss over the examples of a split; float64."""

    full_state_update = False
    sums: Tensor
    right: list[Tensor]

    def __init__(self, split: Split) -> None:
        super().__init__(sync_on_compute=split == "train")
        self.split = split
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")  # examples, hits, loss
        self.add_state("right", [], dist_reduce_fx=None)

    def update(self, output: ModelOutput, batch: Batch, loss: Tensor) -> None:
        """Count one batch; `loss` is the mean over its answers."""
        n = len(output.labels)
        right = output.logits.argmax(-1) == output.labels
        hits = right.sum().double()
        self.sums += torch.stack([torch.full_like(hits, n), hits, n * loss.double()])
        if self.split in TESTED:
            self.right.append(right)

    def compute(self) -> Scores:
        n, hits, loss = self.sums.tolist()
        scores: Scores = {"n": int(n), "loss": loss / n, "scores": {"accuracy": hits / n}}
        return scores | ({"right": torch.cat(self.right).cpu().numpy()} if self.right else {})


class RegressionMetrics(Metric):
    """Mean squared error and R² over the examples of a split; float64. The loss stays in the units of training.

    scale  a unit of the labels, in the units of the user's numbers
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, split: Split, scale: float) -> None:
        super().__init__(sync_on_compute=split == "train")
        self.scale = scale
        zeros = torch.zeros(4, dtype=torch.float64)  # examples, squared errors, labels, squared labels
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, output: ModelOutput, batch: Batch, loss: Tensor) -> None:
        """Count one batch."""
        labels = output.labels.double()
        error = (output.logits[:, 0].double() - labels).square().sum()
        self.sums += torch.stack([torch.full_like(error, len(labels)), error, labels.sum(), labels.square().sum()])

    def compute(self) -> Scores:
        n, error, total, squares = self.sums.tolist()
        spread = squares - total * total / n
        scores = {"mse": error / n * self.scale**2}
        # numbers that are all alike have nothing to be explained
        scores |= {"r2": 1 - error / spread} if spread > 1e-12 * squares else {}
        return {"n": int(n), "loss": error / n, "scores": scores}


class TokenMetrics(Metric):
    """Sums over the questions of a split, and over each of its groups; float64.

    running_text  whether the rows are pieces of a text, not questions that are right or wrong
    """

    full_state_update = False
    sums: Tensor
    right: list[Tensor]

    def __init__(
        self,
        split: Split,
        groups: Sequence[dict[str, Any]],
        score: Callable[..., dict[str, float]],
        *,
        running_text: bool = False,
    ) -> None:
        super().__init__(sync_on_compute=split == "train")
        self.keeps_right = split in TESTED and not running_text
        self.split, self.groups, self.score = split, list(groups), score
        zeros = torch.zeros(max(len(self.groups), 1), len(Totals._fields), dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")
        self.add_state("right", [], dist_reduce_fx=None)

    def update(self, output: ModelOutput, batch: Batch, loss: Tensor) -> None:
        """Count one batch of questions, whose groups are `batch.groups` (B,)."""
        logits, labels, n_rows = output.logits, output.labels, batch.inputs.shape[0]
        nats = F.cross_entropy(logits, labels, reduction="none").double()
        hits = (logits.argmax(-1) == labels).double()
        each = torch.zeros(n_rows, 3, dtype=torch.float64, device=logits.device)  # answers, hits, nats
        each.index_add_(0, output.rows, torch.stack([torch.ones_like(hits), hits, nats], dim=1))
        answers, right, lost = each.unbind(1)
        some = (answers > 0).double()
        if self.keeps_right:
            self.right.append((right == answers) & (answers > 0))
        columns = (some, answers, right, some * (right == answers), lost, lost.square())  # the fields of Totals
        groups = torch.zeros(n_rows, dtype=torch.int64, device=logits.device)
        if self.groups and batch.groups is not None:
            groups = batch.groups
        self.sums.index_add_(0, groups, torch.stack(columns, dim=1))

    def compute(self) -> Scores:
        scores = self._scores(_totals(self.sums.sum(0)))
        if self.groups:
            parts = [(group, _totals(row)) for group, row in zip(self.groups, self.sums, strict=True)]
            scores["groups"] = [{"at": group, **self._scores(part)} for group, part in parts if part.questions]
        return scores | ({"right": torch.cat(self.right).cpu().numpy()} if self.right else {})

    def _scores(self, part: Totals) -> Scores:
        scores = dict(self.score(self.split, part))
        stderr = scores.pop("stderr", None)
        loss = part.nats / part.answers if part.answers else math.nan
        answers = part.answers or None
        return {"n": part.questions, "answers": answers, "loss": loss, "stderr": stderr, "scores": scores}


def _totals(row: Tensor) -> Totals:
    """(6,) -> Totals"""
    *counts, nats, squares = row.tolist()
    questions, answers, hits, whole = map(int, counts)
    return Totals(questions, answers, hits, whole, nats, squares)
