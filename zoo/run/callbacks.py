"""Lightning callbacks that make a run resumable, bounded in time and visible."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from zoo.run.trained import CHECKPOINTS, keep_weights

if TYPE_CHECKING:
    from zoo.run.module import ExperimentModule

Report = Callable[[dict[str, Any]], None]
"""Takes what a run reports while it goes on: plain values by name."""
REPORT_EVERY = 0.25
"""Seconds between two reports of the training loss."""


class TimeLimit(Exception):
    """`--max-time` is over; the last finished validation interval can be resumed."""


class Checkpoints(pl.Callback):
    """After each interval: `best.ckpt` when validation improved, then `last.ckpt`; under `train.keep_checkpoints` the
    weights besides, which stay.

    Not Lightning's ModelCheckpoint, which writes into the system's temporary folder and then copies: here a file
    appears under its final name whole or not at all, also after a power cut or on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last.ckpt"
        self.best = folder / "best.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: ExperimentModule) -> None:  # type: ignore[override]
        best = pl_module.best
        if best is not None and best["step"] == pl_module.global_step:
            self._save(trainer, self.best)
        if pl_module.experiment.train.keep_checkpoints and trainer.is_global_zero:
            path = self.folder / CHECKPOINTS / f"{pl_module.global_step}.safetensors"
            keep_weights(path, pl_module.model.state_dict())
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
    """Raise TimeLimit when the time of a run is over: before each batch, and within one after each module's forward and
    backward, since a batch of long inputs may take many minutes.

    Not Lightning's Timer, which counts from the first step, does not look during evaluation, and ends a run as if it
    were complete.
    """

    def __init__(self, seconds: float | None, started: float) -> None:
        self.seconds, self.started = seconds, started
        self._hook: RemovableHandle | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.seconds is not None:
            self._hook = register_module_forward_hook(self._after_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._hook is not None:
            self._hook.remove()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")  # which Lightning does not call then

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._check()

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._check()

    def on_test_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._check()

    def _after_module(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._check()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(self._check)

    def _check(self, *_: Any) -> None:
        if self.seconds is not None and time.monotonic() > self.started + self.seconds:
            raise TimeLimit(f"stopped after {self.seconds:g} s (--max-time); the same command goes on from there")


class Reporter(pl.Callback):
    """Report what a progress display shows: samples, rate, loss and left; after each validation its score."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.started = self.reported = 0.0
        self.first = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: ExperimentModule) -> None:  # type: ignore[override]
        self.started, self.first = time.monotonic(), trainer.global_step * pl_module.schedule.batch_size

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: ExperimentModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now < self.reported + REPORT_EVERY:  # reading the loss waits for the device
            return
        self.reported = now
        schedule = pl_module.schedule
        done, seconds = trainer.global_step * schedule.batch_size, now - self.started
        self.report(
            {
                "samples": done,
                "total": schedule.steps * schedule.batch_size,
                "seconds": seconds,
                "rate": (done - self.first) / max(seconds, 1e-9),
                "loss": float(pl_module.loss),
            }
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: ExperimentModule) -> None:  # type: ignore[override]
        point = pl_module.history[-1]
        name = pl_module.val_metric
        value = f"{100 * point['metric']:.2f} %" if "accuracy" in name else f"{point['metric']:.4g}"
        line = f"{point['samples']} samples, {point['seconds']:.0f} s, val loss {point['loss']:.4f}, "
        self.report({"val": value, "val_line": f"{line}val {name.replace('_', ' ')} {value}"})
