"""The interface of a kind of task. Nothing here imports torch before a method needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.spec.architecture import Architecture, Mode, Objective
from zoo.spec.errors import ConfigError, UserError
from zoo.spec.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchmetrics import Metric

    from zoo.data.batch import Batch
    from zoo.data.module import Split, TaskData
    from zoo.model.models import ModelOutput
    from zoo.model.spec import ModelSpec


class TaskKind:
    """Everything that differs between kinds of tasks. A third-party kind is a subclass, which `Task.kind` names as
    "package.module:Class".

    modes            which of an architecture's modes is used where `model.mode` is auto, best first
    selects_by_loss  the best checkpoint is that of the least validation loss, else of the best validation metric
    running_text     successive batches continue the same texts, so a state may be carried from batch to batch
    """

    modes: ClassVar[tuple[Mode, ...]] = ("bidirectional", "causal", "seq2seq")
    selects_by_loss: ClassVar[bool] = False
    running_text: ClassVar[bool] = False

    def objective(self, mode: Mode) -> Objective:
        """How the task is put to an architecture in this mode."""
        return "classify"

    def check_mode(self, task: Task, architecture: Architecture, mode: Mode) -> None:
        """Raise ConfigError when the task cannot be put to the architecture in this mode."""
        if mode == "seq2seq":
            raise ConfigError("model.mode", f"{architecture.name} has no causal or bidirectional form for {task.name}")

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]:
        """A picklable function from examples of `data` to a batch, under `data.loading.objective`."""
        raise NotImplementedError

    def build_model(self, spec: ModelSpec) -> nn.Module:
        """A module that maps (Batch, state) to a ModelOutput; its attribute `encoder` is a zoo.model.models.Encoder."""
        raise NotImplementedError

    def loss(self, output: ModelOutput) -> Tensor:
        """The mean training loss over the answers of a batch, a scalar."""
        from torch.nn import functional as F

        # an evaluation batch may have no answers: all of its rows have run out of text
        return F.cross_entropy(output.logits, output.labels) if len(output.labels) else output.logits.sum()

    def build_metrics(self, task: Task, split: Split, data: TaskData) -> Metric:
        """A metric with `update(output, batch, loss)` whose `compute()` returns the scores of the split: the ranked
        metric first, then others by name, "loss" and "n" (how many examples)."""
        raise NotImplementedError

    def example_batch(self, spec: ModelSpec) -> Batch:
        """A batch of one example of `spec.seq_len` tokens, for counting FLOPs."""
        raise NotImplementedError

    def predict(
        self, model: nn.Module, data: TaskData, inputs: Sequence[Any], *, stateful: bool
    ) -> list[dict[str, Any]]:
        """The model's answer to each of a few inputs (`TaskData.encode`), as plain JSON values.

        stateful  whether a state is carried from piece to piece of a running text
        """
        raise UserError("answers to inputs of this kind are not written; zoo.load(RUN) gives the model")

    def example_to_json(self, data: TaskData, split: Split, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Facts about an example for a person, and what the model is given of it, both as plain JSON values."""
        raise NotImplementedError

    def split_stats(self, data: TaskData, split: Split) -> dict[str, Any]:
        """Number of examples, labels or answers, and lengths of a split (zoo.data.stats)."""
        raise NotImplementedError
