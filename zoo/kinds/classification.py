"""Tasks whose answer is a class, of one sequence or of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.kinds.base import TaskKind
from zoo.spec.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchmetrics import Metric

    from zoo.data.batch import Batch
    from zoo.data.module import Split, TaskData
    from zoo.model.spec import ModelSpec


class Classification(TaskKind):
    """Examples (ids or values (L,), label)."""

    pairs = False

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]:
        from zoo.data.batch import collate_sequences

        return partial(collate_sequences, channels=data.channels > 0)

    def build_model(self, spec: ModelSpec) -> nn.Module:
        from zoo.model.models import SequenceClassifier

        return SequenceClassifier(spec, pairs=self.pairs)

    def build_metrics(self, task: Task, split: Split, data: TaskData) -> Metric:
        from zoo.kinds.metrics import ClassificationMetrics

        return ClassificationMetrics(split)

    def example_batch(self, spec: ModelSpec) -> Batch:
        import torch

        from zoo.data.batch import Batch

        inputs = example_inputs(spec)
        if self.pairs:
            inputs = torch.stack([inputs, inputs], 1)
        return Batch(inputs, None, torch.zeros(1, dtype=torch.int64))

    def predict(
        self, model: nn.Module, data: TaskData, inputs: Sequence[Any], *, stateful: bool
    ) -> list[dict[str, Any]]:
        batch = self.build_collate_fn(data)([(each, 0) for each in inputs])
        shares = model(batch).logits.double().softmax(-1)
        names = data.label_names or range(shares.shape[1])
        return [
            {"label": names[int(row.argmax())], "probabilities": dict(zip(map(str, names), row.tolist(), strict=True))}
            for row in shares
        ]

    def example_to_json(self, data: TaskData, split: Split, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs, label = example
        return {"label": label, "length": inputs.shape[-1]}, {"inputs": inputs.tolist()}

    def split_stats(self, data: TaskData, split: Split) -> dict[str, Any]:
        from zoo.data.stats import class_stats

        return class_stats(data, split)


def example_inputs(spec: ModelSpec) -> Tensor:
    """Inputs of one example of full length: zeros (1, L), or (1, L, channels)."""
    import torch

    if not spec.channels:
        return torch.zeros(1, spec.seq_len, dtype=torch.int64)
    return torch.zeros(1, spec.seq_len, spec.channels)


class PairClassification(Classification):
    """Examples (ids (2, L), label), padded with id 0 inside an example."""

    pairs = True


class TokenClassification(Classification):
    """Examples (ids or values (L,) or (L, channels), labels (L,)): a class for each position."""

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]:
        from zoo.data.batch import collate_labelled

        return partial(collate_labelled, channels=data.channels > 0)

    def build_model(self, spec: ModelSpec) -> nn.Module:
        from zoo.model.models import LMHeadModel

        # there is nothing to pool, and a token in front would move the positions
        return LMHeadModel(replace(spec, pool="mean"), outputs=spec.n_classes)

    def build_metrics(self, task: Task, split: Split, data: TaskData) -> Metric:
        from zoo.kinds.metrics import TokenMetrics

        return TokenMetrics(split, [], data.score)

    def example_batch(self, spec: ModelSpec) -> Batch:
        import torch

        from zoo.data.batch import Batch

        return Batch(example_inputs(spec), None, torch.zeros(1, spec.seq_len, dtype=torch.int64))

    def predict(
        self, model: nn.Module, data: TaskData, inputs: Sequence[Any], *, stateful: bool
    ) -> list[dict[str, Any]]:
        import numpy as np

        batch = self.build_collate_fn(data)([(each, np.zeros(len(each), np.int64)) for each in inputs])
        output = model(batch)
        classes, rows = output.logits.argmax(-1), output.rows
        names = data.label_names or range(output.logits.shape[1])
        # the answers of a row are in the order of its positions
        return [{"labels": [names[k] for k in classes[rows == row].tolist()]} for row in range(len(inputs))]

    def example_to_json(self, data: TaskData, split: Split, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs, labels = example
        return {"length": len(inputs)}, {"inputs": inputs.tolist(), "labels": labels.tolist()}
