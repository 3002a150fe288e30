"""Tasks whose answer is a class, of one sequence or of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zoo.kinds.base import TaskKind
from zoo.spec.task import Task

if TYPE_CHECKING:
    from torch import nn
    from torchmetrics import Metric

    from zoo.data.batch import Batch
    from zoo.data.module import Split, TaskData
    from zoo.model.spec import ModelSpec


class Classification(TaskKind):
    """Examples (ids or values (L,), label)."""

    pairs = False

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]:
        from zoo.data.batch import collate_sequences

        return collate_sequences

    def build_model(self, spec: ModelSpec) -> nn.Module:
        from zoo.model.models import SequenceClassifier

        return SequenceClassifier(spec, pairs=self.pairs)

    def build_metrics(self, task: Task, split: Split, data: TaskData) -> Metric:
        from zoo.kinds.metrics import ClassificationMetrics

        return ClassificationMetrics(split)

    def example_batch(self, spec: ModelSpec) -> Batch:
        import torch

        from zoo.data.batch import Batch

        shape = (1, 2, spec.seq_len) if self.pairs else (1, spec.seq_len)
        inputs = torch.zeros(shape, dtype=torch.float32 if spec.values else torch.int64)
        return Batch(inputs, None, torch.zeros(1, dtype=torch.int64))

    def example_to_json(self, data: TaskData, split: Split, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs, label = example
        return {"label": label, "length": inputs.shape[-1]}, {"inputs": inputs.tolist()}

    def split_stats(self, data: TaskData, split: Split) -> dict[str, Any]:
        from zoo.data.stats import class_stats

        return class_stats(data, split)


class PairClassification(Classification):
    """Examples (ids (2, L), label), padded with id 0 inside an example."""

    pairs = True
