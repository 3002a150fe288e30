"""Tasks whose answers are tokens (zoo/data/questions.py): recall questions and running text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zoo.kinds.base import TaskKind
from zoo.spec.architecture import OBJECTIVES, Architecture, Mode, Objective
from zoo.spec.errors import ConfigError
from zoo.spec.task import Task

if TYPE_CHECKING:
    from torch import nn
    from torchmetrics import Metric

    from zoo.data.batch import Batch
    from zoo.data.module import Split, TaskData
    from zoo.model.spec import ModelSpec


class Recall(TaskKind):
    """Questions about a context, scored at the tokens of their answers."""

    modes = ("causal", "seq2seq", "bidirectional")

    def objective(self, mode: Mode) -> Objective:
        return OBJECTIVES[mode]

    def check_mode(self, task: Task, architecture: Architecture, mode: Mode) -> None:
        if self.objective(mode) in task.objectives:
            return
        causal = "causal" in architecture.capabilities.modes
        form = "one with model.mode=causal" if causal else "no causal form"
        offered = " or ".join(task.objectives)
        raise ConfigError(
            "model.mode", f"{task.name} offers {offered}, which needs a causal form; {architecture.name} has {form}"
        )

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]:
        from zoo.data.batch import QuestionCollator

        return QuestionCollator(data.loading.objective, data.specials)

    def build_model(self, spec: ModelSpec) -> nn.Module:
        from zoo.model.models import LMHeadModel

        return LMHeadModel(spec)

    def build_metrics(self, task: Task, split: Split, data: TaskData) -> Metric:
        from zoo.kinds.metrics import TokenMetrics

        groups = data.groups(split) if data.has(split) else []
        return TokenMetrics(split, groups, data.score, running_text=self.running_text)

    def example_batch(self, spec: ModelSpec) -> Batch:
        import torch

        from zoo.data.batch import Batch
        from zoo.data.questions import IGNORE

        labels = torch.zeros(1, spec.seq_len, dtype=torch.int64)
        if not self.running_text:
            labels[:, :-1] = IGNORE  # a question is scored at its end, running text at every token
        inputs = torch.ones(1, spec.seq_len, dtype=torch.int64)
        if spec.objective == "seq2seq":
            return Batch(inputs, None, labels[:, -1:], inputs[:, -1:])
        return Batch(inputs, None, labels)

    def example_to_json(self, data: TaskData, split: Split, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        from zoo.data.questions import lay_out
        from zoo.data.stats import answer_of

        row, groups = lay_out(example, data.loading.objective, data.specials), data.groups(split)
        facts: dict[str, Any] = {"length": len(row.inputs), "answers": len(answer_of(example))}
        if groups:
            facts["group"] = groups[row.group]
        target = None if row.target is None else row.target.tolist()
        return facts, {"inputs": row.inputs.tolist(), "labels": row.labels.tolist(), "target": target}

    def split_stats(self, data: TaskData, split: Split) -> dict[str, Any]:
        from zoo.data.stats import question_stats

        return question_stats(data, split)


class LanguageModeling(Recall):
    """Running text in pieces, each of whose tokens is predicted from what comes before it."""

    selects_by_loss = True
    running_text = True

    def predict(
        self, model: nn.Module, data: TaskData, inputs: Sequence[Any], *, stateful: bool
    ) -> list[dict[str, Any]]:
        return [self._score_text(model, data, text, stateful) for text in inputs]

    def _score_text(self, model: nn.Module, data: TaskData, text: Any, stateful: bool) -> dict[str, Any]:
        """Perplexities of a text (zoo.data.language.EncodedText), of which every token is predicted once."""
        import math

        import numpy as np
        from torch.nn import functional as F

        from zoo.data.module import perplexity
        from zoo.data.questions import Piece
        from zoo.nn.state import return_state

        collate, length = self.build_collate_fn(data), data.options.seq_len
        read = [data.specials.end, *text.ids[:-1].tolist()]
        nats, state = 0.0, None
        for start in range(0, len(read), length):
            ids, labels = (np.asarray(part[start : start + length]) for part in (read, text.ids))
            with return_state(stateful):
                output = model(collate([Piece(ids, labels, fresh=start == 0)]), state)
            state = output.state if stateful else None
            nats += F.cross_entropy(output.logits, output.labels, reduction="sum").item()
        return {
            "tokens": len(read),
            "perplexity": perplexity(nats / len(read)),
            "word_perplexity": perplexity(nats / text.words),
            "bits_per_byte": nats / text.bytes / math.log(2),
        }
