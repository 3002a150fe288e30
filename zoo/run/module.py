"""The LightningModule of an experiment: loss, metrics, learning curve, carried state.

A Lightning epoch is one *validation interval*: the steps between two validations. Checkpoints are written after each,
and the random state is a function of (seed, step), so a run that is killed anywhere goes on from its last interval
and gives the numbers of an unbroken one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from zoo.data.batch import Batch
from zoo.data.module import Split, TaskData
from zoo.kinds.metrics import Scores
from zoo.model.segments import entering_state
from zoo.nn.backbone import State
from zoo.nn.state import detach, return_state
from zoo.run.compose import Experiment
from zoo.run.memory import choose_micro_batch_size, saved_bytes
from zoo.run.optim import build_optimizer

STEPS_BETWEEN_CHECKS = 50
"""Optimiser steps between two looks at whether the loss is finite: each waits for the device."""


class Diverged(Exception):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Schedule:
    """Steps, intervals and batch sizes of a run.

    batch_size        the effective batch: samples of one optimiser step
    accumulate        batches that accumulate into one step on each device
    micro_batch_size  samples that a device holds at once
    example_bytes     what one of them keeps for the backward pass
    """

    steps: int
    steps_per_interval: int
    batch_size: int
    accumulate: int
    micro_batch_size: int
    eval_batch_size: int
    example_bytes: int

    @property
    def intervals(self) -> int:
        return math.ceil(self.steps / self.steps_per_interval)

    @classmethod
    def of(cls, experiment: Experiment, model: nn.Module) -> Schedule:
        """The schedule that the configuration gives the model."""
        train = experiment.train
        world = train.devices * train.num_nodes
        example_bytes = saved_bytes(experiment, model)
        micro = choose_micro_batch_size(experiment, model, example_bytes)
        every = train.val_every or math.ceil(experiment.steps / 10) * train.batch_size
        return cls(
            steps=experiment.steps,
            steps_per_interval=min(math.ceil(every / train.batch_size), experiment.steps),
            batch_size=train.batch_size,
            accumulate=train.batch_size // (micro * world),
            micro_batch_size=micro,
            eval_batch_size=train.eval_batch_size or micro,
            example_bytes=example_bytes,
        )


class Loaders(pl.LightningDataModule):
    """A task's data as Lightning's trainer takes them."""

    def __init__(self, data: TaskData) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        return self.data.train_dataloader(trainer.current_epoch, trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        return self.data.val_dataloader()

    def test_dataloader(self) -> list[DataLoader]:
        return [self.data.eval_dataloader(split) for split in self.data.test_splits]


class ExperimentModule(pl.LightningModule):
    """One experiment's model, loss, metrics and learning curve."""

    model: Any  # of the kind's `build_model`
    nonfinite_step: Tensor

    def __init__(self, experiment: Experiment, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.experiment = experiment
        self.kind = experiment.kind
        self.schedule = Schedule.of(experiment, model)
        # a module cannot have children called "train" or "eval": those are its methods
        self.metrics = nn.ModuleDict()
        self.history: list[dict[str, Any]] = []
        self.tokens: int | Tensor = 0
        self.loss = torch.tensor(math.nan)  # of the last training batch
        # the first step whose loss is not finite, kept on the device; -1 = none
        self.register_buffer("nonfinite_step", torch.tensor(-1), persistent=False)
        self.seconds = {"train": 0.0, "eval": 0.0}
        self.val_scores: dict[int, Scores] = {}
        self.val_metric = ""
        self._since = time.monotonic()
        self._states: dict[tuple[str, int], State] = {}
        self._test_splits: tuple[Split, ...] = ("test",)

    def setup_metrics(self, data: TaskData) -> None:
        """Create the metrics of each split, once the data are there: the task knows its groups and its scores."""
        self._test_splits = data.test_splits
        for split in ("train", "val", *data.test_splits):
            metric = self.kind.build_metrics(self.experiment.task_spec, split, data)
            self.metrics[f"{split}_scores"] = metric

    # -- steps -----------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.model.encoder.backbone.on_step(self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, aux = self._run("train", batch, batch_idx % self.schedule.accumulate)
        total = loss + sum(aux.values()) if aux else loss
        step = torch.where(total.isfinite(), -1, self.global_step)
        self.nonfinite_step = torch.where(self.nonfinite_step < 0, step, self.nonfinite_step)
        if self.global_step % STEPS_BETWEEN_CHECKS == 0:
            self._raise_if_diverged()
        self.loss = total.detach()
        self.tokens = self.tokens + batch.n_tokens  # on the device: no synchronisation in a step
        return loss * self._weight(batch, loss.dtype) + sum(aux.values())

    def _weight(self, batch: Batch, dtype: torch.dtype) -> float | Tensor:
        """What the loss of a batch counts for in its optimiser step: its share of the step's targets, times the
        batches over which Lightning averages, those of the other devices included.

        Auxiliary losses are means over rows, of which every batch of a step has as many: their plain average is right.
        """
        devices = distributed.get_world_size() if distributed.is_initialized() else 1
        if batch.step_targets is None or devices * self.schedule.accumulate == 1:
            return 1.0
        targets = batch.step_targets.clone()
        if devices > 1:
            distributed.all_reduce(targets)
        return (devices * self.schedule.accumulate * batch.n_targets).to(dtype) / targets.clamp_min(1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._run("val", batch, 0)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._run(self._test_splits[dataloader_idx], batch, 0)

    def _run(self, split: Split, batch: Batch, slot: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a batch, counted in the metric of its split, and auxiliary losses.

        `slot` tells apart the batches that accumulate into one step: each has texts of its own.
        """
        with return_state(self.experiment.stateful):
            carried = self._states.get((split, slot))
            backbone = self.model.encoder.backbone
            output = self.model(batch, entering_state(backbone, carried, batch.fresh, len(batch.inputs)))
        if self.experiment.stateful:
            self._states[split, slot] = detach(output.state)
        loss = self.kind.loss(output)
        detached = output._replace(logits=output.logits.detach())
        self._metric(split).update(detached, batch, loss.detach())
        return loss, output.aux

    def _metric(self, split: Split) -> Metric:
        metric = self.metrics[f"{split}_scores"]
        assert isinstance(metric, Metric)
        return metric

    def scores(self, split: Split) -> Scores:
        """The scores of the split since the last call, over all processes."""
        metric = self._metric(split)
        scores = metric.compute()
        metric.reset()
        return scores

    # -- validation intervals ----------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        pl.seed_everything((self.experiment.seed * 1_000_003 + self.global_step) % 2**32, verbose=False)
        self._since = time.monotonic()
        # an interval begins without carried states: a resumed run has none either
        self._states.clear()

    def _raise_if_diverged(self) -> None:
        step = int(self.nonfinite_step)  # waits for the device
        if step >= 0:
            raise Diverged(f"the loss was not finite at step {step}")

    def on_validation_epoch_start(self) -> None:
        self._raise_if_diverged()
        self._add_point("train", self.scores("train"))

    def on_validation_epoch_end(self) -> None:
        scores = self.scores("val")
        name = self.val_metric = next(iter(scores["scores"]))
        self.val_scores[self.global_step] = scores
        self._add_point("val", scores)
        if not math.isfinite(scores["loss"]):
            # or weights that are NaN, which always answer the first class, might be the best of the run
            raise Diverged(f"the validation loss became {scores['loss']} at step {self.global_step}")
        self.log_dict({f"val/{name}": scores["scores"][name], "val/loss": scores["loss"]}, rank_zero_only=True)

    def _add_point(self, split: str, scores: Scores) -> None:
        now = time.monotonic()
        self.seconds["train" if split == "train" else "eval"] += now - self._since
        self._since = now
        self.history.append(
            {
                "step": self.global_step,
                "samples": self.global_step * self.schedule.batch_size,
                "seconds": round(sum(self.seconds.values()), 3),
                "split": split,
                "loss": scores["loss"],
                "metric": next(iter(scores["scores"].values())),
            }
        )

    @property
    def best(self) -> dict[str, Any] | None:
        """The best point of the validation history, the earliest of equals: by loss or metric, as the kind says."""
        points = [point for point in self.history if point["split"] == "val"]
        if self.kind.selects_by_loss:
            return min(points, key=lambda point: point["loss"], default=None)
        sign = 1 if self.experiment.metric[1] else -1
        return max(points, key=lambda point: sign * point["metric"], default=None)

    # -- checkpoint and optimiser ------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["zoo"] = {
            "history": self.history,
            "tokens": int(self.tokens),
            "seconds": self.seconds,
            "val_scores": self.val_scores,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["zoo"]
        self.history, self.tokens, self.seconds = state["history"], state["tokens"], state["seconds"]
        self.val_scores = state["val_scores"]

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = build_optimizer(self.model, self.experiment.optim, self.schedule.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
