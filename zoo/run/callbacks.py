"""Lightning callbacks that make a run resumable, bounded in time and visible."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

if TYPE_CHECKING:
    from zoo.run.module import ExperimentModule


class TimeLimit(Exception):
    """`--max-time` is over; the last finished validation interval can be resumed."""


class Checkpoints(pl.Callback):
    """After each interval: `best.ckpt` when validation improved, then `last.ckpt`.

    Not Lightning's ModelCheckpoint, which writes into the system's temporary folder and then copies: here a file
    appears under its final name whole or not at all, also after a power cut or on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self.last = folder / "last.ckpt"
        self.best = folder / "best.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: ExperimentModule) -> None:  # type: ignore[override]
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
    """Raise TimeLimit when the time of a run is over.

    Not Lightning's Timer, which counts from the first step, does not look during evaluation, and ends a run as if it
    were complete.
    """

    def __init__(self, seconds: float | None, started: float) -> None:
        self.seconds, self.started = seconds, started

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._check()

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._check()

    def on_test_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._check()

    def _check(self) -> None:
        if self.seconds is not None and time.monotonic() > self.started + self.seconds:
            raise TimeLimit(f"stopped after {self.seconds:g} s (--max-time); the same command goes on from there")


class ProgressBar(pl.Callback):
    """One bar for the whole run, on stderr: samples, samples/s, loss, validation score, time left.

    Where stderr is no terminal, or one that cannot move its cursor (TERM=dumb), one line per validation instead. Not
    Lightning's RichProgressBar, which shows a bar per epoch.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.title = title
        wide, narrow = self.console.width >= 100, self.console.width < 72
        self.progress = Progress(
            # what is left of the line
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            *([BarColumn(20)] if wide else []),
            MofNCompleteColumn(),
            *([] if narrow else [TextColumn("{task.fields[rate]:.0f}/s")]),
            TextColumn("loss {task.fields[loss]:.3f} val {task.fields[val]}"),
            *([TimeElapsedColumn()] if wide else []),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            expand=True,
        )
        self.task: Any = None
        self.started = 0.0
        self.first = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: ExperimentModule) -> None:  # type: ignore[override]
        schedule = pl_module.schedule
        self.started, self.first = time.monotonic(), trainer.global_step * schedule.batch_size
        self.task = self.progress.add_task(
            self.title, total=schedule.steps * schedule.batch_size, completed=self.first, rate=0.0, loss=0.0, val="-"
        )
        if self.console.is_interactive:
            self.progress.start()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: ExperimentModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.global_step * pl_module.schedule.batch_size
        rate = (done - self.first) / max(time.monotonic() - self.started, 1e-9)
        self.progress.update(self.task, completed=done, rate=rate, loss=float(pl_module.loss))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: ExperimentModule) -> None:  # type: ignore[override]
        point = pl_module.history[-1]
        name = pl_module.val_metric
        value = f"{100 * point['metric']:.2f} %" if "accuracy" in name else f"{point['metric']:.4g}"
        self.progress.update(self.task, val=value)
        if not self.console.is_interactive:
            self.console.print(
                f"{self.title}: {point['samples']} samples, {point['seconds']:.0f} s, "
                f"val loss {point['loss']:.4f}, val {name.replace('_', ' ')} {value}",
                soft_wrap=True,
                highlight=False,
            )

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        self.progress.stop()
