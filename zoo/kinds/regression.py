"""Tasks whose answer is a real number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.kinds.classification import Classification, example_inputs
from zoo.spec.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchmetrics import Metric

    from zoo.data.batch import Batch
    from zoo.data.module import Split, TaskData
    from zoo.model.models import ModelOutput
    from zoo.model.spec import ModelSpec


class Regression(Classification):
    """Examples (ids or values, number), the number in units of `TaskData.target_scale`."""

    selects_by_loss = True

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]:
        import torch

        from zoo.data.batch import collate_sequences

        return partial(collate_sequences, channels=data.channels > 0, dtype=torch.float32)

    def loss(self, output: ModelOutput) -> Tensor:
        from torch.nn import functional as F

        return F.mse_loss(output.logits[:, 0], output.labels.to(output.logits.dtype))

    def build_metrics(self, task: Task, split: Split, data: TaskData) -> Metric:
        from zoo.kinds.metrics import RegressionMetrics

        return RegressionMetrics(split, data.target_scale[1])

    def example_batch(self, spec: ModelSpec) -> Batch:
        import torch

        from zoo.data.batch import Batch

        return Batch(example_inputs(spec), None, torch.zeros(1))

    def predict(
        self, model: nn.Module, data: TaskData, inputs: Sequence[Any], *, stateful: bool
    ) -> list[dict[str, Any]]:
        batch = self.build_collate_fn(data)([(each, 0.0) for each in inputs])
        mean, scale = data.target_scale
        return [{"value": mean + scale * value} for value in model(batch).logits[:, 0].double().tolist()]

    def split_stats(self, data: TaskData, split: Split) -> dict[str, Any]:
        return {"split": split, "n": data.n_examples(split)}
