"""A kind of task that no part of zoo knows: regression, as a third-party plugin would bring it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchmetrics import Metric

from zoo.data.batch import Batch
from zoo.data.module import SPLITS, Split, TaskData
from zoo.kinds import TaskKind
from zoo.model.models import ModelOutput, SequenceClassifier
from zoo.model.spec import ModelSpec
from zoo.spec.task import Task


class SquaredError(Metric):
    """Mean squared error over the examples of a split."""

    sums: Tensor

    def __init__(self, split: Split) -> None:
        super().__init__(sync_on_compute=split == "train")
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: ModelOutput, batch: Batch, loss: Tensor) -> None:
        n = len(output.labels)
        self.sums += torch.stack([n * loss.double(), torch.full_like(loss, n).double()])

    def compute(self) -> dict[str, Any]:
        total, n = self.sums.tolist()
        return {"n": int(n), "loss": total / n, "scores": {"mse": total / n}}


class Regression(TaskKind):
    """Examples (ids (L,), a real number)."""

    selects_by_loss = True

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]:
        return collate_numbers

    def build_model(self, spec: ModelSpec) -> nn.Module:
        return SequenceClassifier(spec)

    def loss(self, output: ModelOutput) -> Tensor:
        return F.mse_loss(output.logits[:, 0], output.labels)

    def build_metrics(self, task: Task, split: Split, data: TaskData) -> Metric:
        return SquaredError(split)

    def example_batch(self, spec: ModelSpec) -> Batch:
        return Batch(torch.ones(1, spec.seq_len, dtype=torch.int64), None, torch.zeros(1))

    def example_to_json(self, data: TaskData, split: Split, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"value": example[1]}, {"inputs": example[0].tolist()}

    def split_stats(self, data: TaskData, split: Split) -> dict[str, Any]:
        return {"split": split, "n": len(data.dataset(split))}


def collate_numbers(examples: Sequence[tuple[np.ndarray, float]]) -> Batch:
    ids = torch.stack([torch.from_numpy(ids) for ids, _ in examples])
    return Batch(ids, None, torch.tensor([value for _, value in examples]))


class Rows(Dataset[Any]):
    def __init__(self, split: Split, n: int) -> None:
        rng = np.random.default_rng(SPLITS.index(split))
        self.ids = rng.integers(1, 5, size=(n, 12))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[np.ndarray, float]:
        return self.ids[i], float(np.mean(self.ids[i] == 1))


class RegressionData(TaskData):
    """The share of ones among the tokens."""

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def dataset(self, split: Split) -> Dataset[Any]:
        return Rows(split, self.options.train_size if split == "train" else 40)

    def majority(self) -> float | None:
        return None

    def provenance(self) -> dict[str, Any]:
        counts = {split: len(self.dataset(split)) for split in SPLITS}
        return {"kind": "regenerated", "version": "1", "seed": 0, "counts": counts}

    def verify(self) -> list[str]:
        return []
