"""The LightningModule, and the callbacks that make a run resumable, bounded and visible.

A Lightning epoch is one *round*: the steps between two validations. Checkpoints are written after each round, and
the random state is a function of (seed, step), so a run that is killed anywhere goes on from its last round and
gives the numbers of an unbroken one.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, Batch, Split, TaskData
from zoo.data.questions import IGNORE
from zoo.model.classifier import SequenceClassifier
from zoo.model.lm import LMHeadModel
from zoo.nn.backbone import State
from zoo.nn.state import detach, reset_rows
from zoo.run.compose import Experiment
from zoo.run.metrics import AnswerScores, ClassScores, Found
from zoo.run.optim import build_optimizer

M = TypeVar("M", bound=torch.nn.Module)


class Diverged(Exception):
    """The loss is no longer a finite number."""


class TimeLimit(Exception):
    """`--max-time` is over; the last finished round can be resumed."""


@dataclass(frozen=True)
class Budget:
    """Steps and rounds of a run."""

    steps: int
    steps_per_round: int
    batch_size: int
    accumulate: int
    micro_batch: int
    eval_batch: int

    @property
    def rounds(self) -> int:
        return math.ceil(self.steps / self.steps_per_round)

    def round_samples(self, step: int) -> tuple[int, int]:
        """[start, stop) of the training stream for the round that begins at `step`."""
        stop = min((step // self.steps_per_round + 1) * self.steps_per_round, self.steps)
        return step * self.batch_size, stop * self.batch_size


def budget_of(experiment: Experiment) -> Budget:
    """The budget that the configuration asks for."""
    train = experiment.tree.train
    world = train.devices * train.num_nodes
    micro = train.micro_batch_size or train.batch_size // world
    every = train.val_every or math.ceil(experiment.steps / 10) * train.batch_size
    return Budget(
        steps=experiment.steps,
        steps_per_round=min(math.ceil(every / train.batch_size), experiment.steps),
        batch_size=train.batch_size,
        accumulate=train.batch_size // (micro * world),
        micro_batch=micro,
        eval_batch=train.eval_batch_size or micro,
    )


class Training(pl.LightningModule):
    """One experiment's model, loss, metrics and learning history."""

    def __init__(self, experiment: Experiment, model: SequenceClassifier | LMHeadModel, budget: Budget) -> None:
        super().__init__()
        self.model = model
        self.experiment = experiment
        self.budget = budget
        # a module cannot have children called "train" or "eval": those are its methods
        self.meters = torch.nn.ModuleDict()
        self.history: list[dict[str, Any]] = []
        self.tokens = 0
        self.seconds = {"train": 0.0, "eval": 0.0}
        self.val_scores: dict[int, Found] = {}
        self.val_metric = ""
        self._since = time.monotonic()
        self._carried: dict[tuple[str, int], State] = {}

    def attend(self, data: TaskData) -> None:
        """Make the meters, now that the data are there: the task knows its groups, and how its scores are made."""
        for split in (*SPLITS, LENGTH_GENERALIZATION):
            if self.experiment.classifies:
                meter: torch.nn.Module = ClassScores(self.experiment.task.record.classes)
            else:
                meter = AnswerScores(split, data.groups(split) if data.has(split) else [], data.score)
            self.meters[f"{split}_scores"] = meter

    # -- steps -----------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.model.encoder.backbone.on_step(self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, aux = self._run("train", batch, batch_idx % self.budget.accumulate)
        total = loss + sum(aux.values()) if aux else loss
        if not torch.isfinite(total):
            raise Diverged(f"the loss became {total.item()} at step {self.global_step}")
        self.tokens += int(batch.inputs.numel() if batch.mask is None else batch.mask.sum())
        if batch.target is not None:
            self.tokens += int((batch.labels != IGNORE).sum())
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._run("val", batch, 0)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._run(("test", LENGTH_GENERALIZATION)[dataloader_idx], batch, 0)

    def _run(self, split: Split, batch: Batch, slot: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a batch, counted in the meter of its split, and auxiliary losses.

        `slot` tells apart the batches that accumulate into one step: each has texts of its own.
        """
        if isinstance(self.model, SequenceClassifier):
            logits, aux = self.model(batch)
            loss = F.cross_entropy(logits, batch.labels)
            self._meter(split, ClassScores).add(logits.detach(), batch.labels, loss.detach())
            return loss, aux
        found = self.model(batch, self._entering(split, slot, batch))
        if self.experiment.carries:
            self._carried[split, slot] = detach(found.state)
        meter = self._meter(split, AnswerScores)
        meter.update(found.logits.detach(), found.labels, found.rows, batch.inputs.shape[0], batch.groups)
        # a batch of evaluation may ask nothing: rows that have run out of text
        loss = F.cross_entropy(found.logits, found.labels) if len(found.labels) else found.logits.sum()
        return loss, found.aux

    def _entering(self, split: Split, slot: int, batch: Batch) -> State:
        """What the texts of a batch carry from the batch before; rows in which a text begins carry nothing."""
        state = self._carried.get((split, slot))
        if state is None or batch.fresh is None or bool(batch.fresh.all()):
            return None
        if not bool(batch.fresh.any()):
            return state
        backbone = self.model.encoder.backbone
        dtype = next(self.model.parameters()).dtype
        begin = backbone.init_state(batch.inputs.shape[0], device=batch.inputs.device, dtype=dtype)
        return reset_rows(state, batch.fresh, begin)

    def _meter(self, split: Split, kind: type[M]) -> M:
        found = self.meters[f"{split}_scores"]
        assert isinstance(found, kind)
        return found

    def scores(self, split: Split) -> Found:
        """The scores of the split since the last call, over all processes."""
        # devices share the training samples; each evaluates all examples, so that each is counted once
        copies = self.trainer.world_size if split == "train" else 1
        meter = self.meters[f"{split}_scores"]
        assert isinstance(meter, ClassScores | AnswerScores)
        return meter.take(copies)

    # -- rounds ----------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        seed = torch.tensor([self.experiment.seed, self.global_step], dtype=torch.int64)
        pl.seed_everything(int((seed[0] * 1_000_003 + seed[1]) % 2**32), verbose=False)
        self._since = time.monotonic()
        # a round begins with nothing carried: a resumed run has nothing else
        self._carried.clear()

    def on_validation_epoch_start(self) -> None:
        if not self.trainer.sanity_checking:
            self._note("train", self.scores("train"))

    def on_validation_epoch_end(self) -> None:
        found = self.scores("val")
        self.val_scores[self.global_step], self.val_metric = found, self._metric(found)
        self._note("val", found)
        if not math.isfinite(found["loss"]):
            # or weights that are NaN, which always answer the first class, might be the best of the run
            raise Diverged(f"the validation loss became {found['loss']} at step {self.global_step}")
        name = self._metric(found)
        self.log_dict({f"val/{name}": found[name], "val/loss": found["loss"]}, rank_zero_only=True)

    @staticmethod
    def _metric(found: Found) -> str:
        """Which of a split's scores its curve shows: the first."""
        return next(iter(found))

    def _note(self, split: str, found: Found) -> None:
        now = time.monotonic()
        self.seconds["train" if split == "train" else "eval"] += now - self._since
        self._since = now
        self.history.append(
            {
                "step": self.global_step,
                "samples": self.global_step * self.budget.batch_size,
                "seconds": round(sum(self.seconds.values()), 3),
                "split": split,
                "loss": found["loss"],
                "metric": found[self._metric(found)],
            }
        )

    @property
    def best(self) -> dict[str, Any] | None:
        """The best point of the validation curve, the earliest of equals: for language models that of the least loss,
        else that of the highest metric."""
        points = [point for point in self.history if point["split"] == "val"]
        if self.experiment.task.record.kind == "language_modeling":
            return min(points, key=lambda point: point["loss"], default=None)
        return max(points, key=lambda point: point["metric"], default=None)

    # -- state -----------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["zoo"] = {
            "history": self.history,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "val_scores": self.val_scores,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["zoo"]
        self.history, self.tokens, self.seconds = state["history"], state["tokens"], state["seconds"]
        self.val_scores = state["val_scores"]

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = build_optimizer(self.model, self.experiment.tree.optim, self.budget.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Checkpoints(pl.Callback):
    """After each round: `best.ckpt` when validation improved, then `last.ckpt`; each appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.last = folder / "last.ckpt"
        self.best = folder / "best.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        best = pl_module.best
        if best is not None and best["step"] == pl_module.global_step:
            self._save(trainer, self.best)
        self._save(trainer, self.last)

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        partial = path.with_suffix(".partial")
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                with partial.open("rb") as f:
                    os.fsync(f.fileno())
                partial.replace(path)
        except OSError:
            # on a full disk this is the room that the run's record needs
            partial.unlink(missing_ok=True)
            raise
        trainer.strategy.barrier("checkpoint")


class Deadline(pl.Callback):
    """Stops a run cleanly when its time is over; what it had finished can be resumed."""

    def __init__(self, seconds: float, started: float) -> None:
        self.ends = started + seconds
        self.seconds = seconds

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._look()

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._look()

    def on_test_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._look()

    def _look(self) -> None:
        if time.monotonic() > self.ends:
            raise TimeLimit(f"stopped after {self.seconds:g} s (--max-time); the same command goes on from there")


class Bar(pl.Callback):
    """One bar for the whole run, on stderr: samples, samples/s, loss, validation score, time left.

    Where stderr is no terminal, one line per round instead.
    """

    def __init__(self, title: str) -> None:
        self.console = Console(stderr=True)
        self.title = title
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s loss {task.fields[loss]:.3f} val {task.fields[val]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task: Any = None
        self.started = 0.0
        self.first = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        budget = pl_module.budget
        self.started, self.first = time.monotonic(), trainer.global_step * budget.batch_size
        self.task = self.progress.add_task(
            self.title, total=budget.steps * budget.batch_size, completed=self.first, rate=0.0, loss=0.0, val="-"
        )
        if self.console.is_terminal:
            self.progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Training)
        done = trainer.global_step * pl_module.budget.batch_size
        rate = (done - self.first) / max(time.monotonic() - self.started, 1e-9)
        self.progress.update(self.task, completed=done, rate=rate, loss=float(outputs["loss"]))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        point = pl_module.history[-1]
        name = pl_module.val_metric
        value = f"{100 * point['metric']:.2f} %" if "accuracy" in name else f"{point['metric']:.4g}"
        self.progress.update(self.task, val=value)
        if not self.console.is_terminal:
            self.console.print(
                f"{self.title}: {point['samples']} samples, {point['seconds']:.0f} s, "
                f"val loss {point['loss']:.4f}, val {name.replace('_', ' ')} {value}",
                soft_wrap=True,
                highlight=False,
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.progress.stop()
