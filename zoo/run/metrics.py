"""What is counted over the examples of a split, and made into scores. N answers, B batch, G groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from zoo.data.module import Split, Totals

Found = dict[str, Any]
"""Metrics by name, "loss", "n", and what else a record's scores hold."""


class ClassScores(torch.nn.Module):
    """Accuracy and mean loss over the examples of a split."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        # by default the meter leaves NaN out of the mean, and so hides it
        self.loss = MeanMetric(nan_strategy="disable")
        self.n = 0

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """logits (B, classes), labels (B,), loss the mean over the B examples."""
        self.accuracy.update(logits, labels)
        self.loss.update(loss, labels.shape[0])
        self.n += labels.shape[0]

    def take(self, copies: int) -> Found:
        """What was added since the last time, on all processes; `copies` of them had examples of their own."""
        n = self.n * copies
        # the meter divides in float32; hits are whole numbers
        found: Found = {
            "accuracy": round(float(self.accuracy.compute()) * n) / n,
            "loss": float(self.loss.compute()),
            "n": n,
        }
        self.accuracy.reset()
        self.loss.reset()
        self.n = 0
        return found


class AnswerScores(Metric):
    """Sums over the questions of a split, and over each of its groups; float64."""

    full_state_update = False
    sums: Tensor

    def __init__(self, split: Split, groups: Sequence[dict[str, Any]], score: Callable[..., dict[str, float]]) -> None:
        # in evaluation every process has all examples
        super().__init__(sync_on_compute=split == "train")
        self.split, self.groups, self.score = split, list(groups), score
        zeros = torch.zeros(max(len(self.groups), 1), len(Totals._fields), dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor, rows: Tensor, batch: int, groups: Tensor | None) -> None:
        """logits (N, V), labels (N,), rows (N,) of a batch of `batch` rows whose groups are (B,)."""
        if not len(labels):
            return
        nats = F.cross_entropy(logits, labels, reduction="none").double()
        hits = (logits.argmax(-1) == labels).double()
        each = torch.zeros(batch, 3, dtype=torch.float64, device=logits.device)  # answers, hits, nats
        each.index_add_(0, rows, torch.stack([torch.ones_like(hits), hits, nats], dim=1))
        answers, right, lost = each.unbind(1)
        some = (answers > 0).double()
        columns = (some, answers, right, some * (right == answers), lost, lost.square())
        where = torch.zeros(batch, dtype=torch.int64, device=logits.device)
        if self.groups and groups is not None:
            where = groups
        self.sums.index_add_(0, where, torch.stack(columns, dim=1))

    def compute(self) -> Tensor:
        """(G, 6), the fields of `Totals`."""
        return self.sums

    def take(self, copies: int) -> Found:
        """What was added since the last time. `copies` as in `ClassScores`; the sums know it by themselves."""
        sums: Tensor = self.compute()
        whole = totals(sums.sum(0))
        found: Found = self._of(whole)
        if self.groups:
            parts = [totals(row) for row in sums]
            found["groups"] = [
                {**about, **self._of(part)} for about, part in zip(self.groups, parts, strict=True) if part.questions
            ]
        self.reset()
        return found

    def _of(self, part: Totals) -> Found:
        loss = part.nats / part.answers if part.answers else math.nan
        return {**self.score(self.split, part), "loss": loss, "n": part.questions, "answers": part.answers}


def totals(row: Tensor) -> Totals:
    """(6,) -> Totals"""
    *counts, nats, squares = row.tolist()
    questions, answers, hits, whole = map(int, counts)
    return Totals(questions, answers, hits, whole, nats, squares)
