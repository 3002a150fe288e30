"""One experiment, from configuration to record.

resolve → build → prepare data → fit → test the best-on-validation weights → write the record.
Every ending is a record: ok, out-of-memory, diverged, timeout, interrupted, failed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger

from zoo.data.module import LENGTH_GENERALIZATION, TaskData
from zoo.data.paths import data_dir
from zoo.model.classifier import build_model
from zoo.ops.backend import any_backend, forms_that_ran, use_backend
from zoo.run.compose import Experiment
from zoo.run.module import Bar, Budget, Checkpoints, Deadline, Diverged, TimeLimit, Training, budget_of
from zoo.run.recording import forward_flops, make_record
from zoo.run.rundir import Attempt, Places, finished, only_here, rank, read_note
from zoo.spec import store as records
from zoo.spec.errors import ConfigError, UserError


def run(
    experiment: Experiment, places: Places, *, max_time: float | None = None, force: bool = False
) -> dict[str, Any]:
    """Run one experiment to its record, resuming what an earlier call of the same command left.

    Raises ConfigError or UserError (nothing was trained, no record) for the user's mistakes; every other ending is
    a record, returned and written under `places.results`.
    """
    started = time.monotonic()
    quiet_libraries()
    if experiment.tree.train.accelerator == "gpu" and not torch.accelerator.is_available():
        key = "train.accelerator"
        raise ConfigError(key, "'gpu', and this machine has none; auto or cpu", origin=experiment.origins[key])
    folder = places.folder(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    with only_here(experiment, folder):
        if not force and rank() == 0:
            # the same command elsewhere may have finished it while this one waited for the lock
            earlier = finished(experiment, places)
            if earlier is not None:
                return earlier
        attempt = Attempt.begin(experiment, folder, force=force)
        with use_backend(experiment.tree.train.op_backend), termination_is_an_ending():
            try:
                training = build(experiment)
                # one example through the model: what does not fit together is told before data are prepared
                with any_backend() if on_gpu(experiment) else contextlib.nullcontext():
                    flops = forward_flops(experiment, training.model)
            except ConfigError as error:
                raise _told_of_backend(error, experiment) from error
            except UserError:
                raise
            except Exception as error:
                status, detail = _ending(error, attempt)
                return _record_unbuilt(experiment, places, attempt, status, detail)
            data = open_data(experiment, training.budget, training)
            return _train_and_record(experiment, places, attempt, training, flops, data, max_time, started)


def on_gpu(experiment: Experiment) -> bool:
    """Whether the run is to be on a GPU."""
    wanted = experiment.tree.train.accelerator
    return wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available())


def _told_of_backend(error: ConfigError, experiment: Experiment) -> ConfigError:
    """An op that was asked for a form it has not knows no key but "backend"."""
    if error.key != "backend":
        return error
    return ConfigError("train.op_backend", error.message, origin=experiment.origins["train.op_backend"])


@contextlib.contextmanager
def termination_is_an_ending() -> Iterator[None]:
    """SIGTERM (a scheduler's or a system's way to end a job) raises, as Ctrl-C does, so that it becomes a record."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def build(experiment: Experiment) -> Training:
    """The model on the CPU, seeded. A ValueError of a plugin here is the configuration's fault."""
    pl.seed_everything(experiment.seed, verbose=False)
    try:
        model = build_model(experiment)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError("arch", f"{experiment.architecture.record.name} cannot be built so: {error}") from error
    return Training(experiment, model, budget_of(experiment))


def open_data(experiment: Experiment, budget: Budget, training: Training | None) -> TaskData:
    """The task's data, prepared, verified as far as is cheap, and told what the run wants of them."""
    data = experiment.task.record.load_data()(experiment.task_options, data_dir())
    data.prepare()
    data.configure(
        batch_size=budget.micro_batch,
        eval_batch_size=budget.eval_batch,
        seed=experiment.seed,
        round_of=lambda: budget.round_samples(training.global_step if training is not None else 0),
        val_limit=experiment.tree.train.val_limit or None,
        num_workers=experiment.tree.train.num_workers,
        objective=experiment.objective,
        rows=budget.batch_size,
        beyond=experiment.architecture.record.capabilities.length != "fixed",
    )
    for split in ("train", "val", "test"):
        if len(data.dataset(split)) == 0:  # type: ignore[arg-type]
            raise UserError(f"{experiment.task.record.name}: the {split} split is empty")
    if training is not None:
        training.attend(data)
    return data


def _train_and_record(
    experiment: Experiment,
    places: Places,
    attempt: Attempt,
    training: Training,
    flops: int,
    data: TaskData,
    max_time: float | None,
    started: float,
) -> dict[str, Any]:
    status, detail = "ok", ""
    scores: dict[str, Any] | None = None
    trainer = _trainer(experiment, attempt, training.budget, max_time, started)
    forms_that_ran(reset=True)
    try:
        trainer.fit(
            training,
            datamodule=data,
            ckpt_path=str(attempt.checkpoint) if attempt.checkpoint else None,
            weights_only=True,
        )
        scores = _test(trainer, training, data, attempt.folder)
    except ConfigError as error:
        raise _told_of_backend(error, experiment) from error
    except UserError:
        raise
    except Diverged as error:
        status, detail = "diverged", str(error)
    except TimeLimit as error:
        status, detail = "timeout", str(error)
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning answers Ctrl-C with an exit of its own
        terminated = isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM
        signal_name = "SIGTERM" if terminated else "SIGINT"
        status, detail = "interrupted", f"{signal_name}; the same command goes on from the last round"
    except Exception as error:
        status, detail = _ending(error, attempt)
    record = make_record(experiment, attempt, training, data, status, detail, scores, flops)
    if rank() > 0:
        sys.exit(0)  # the first rank writes and tells
    path = records.write(record, places.results)
    if status == "ok":
        note = read_note(attempt.folder) | {"record": str(path.resolve())}
        records.write_atomically(attempt.folder / "run.json", json.dumps(note, indent=1))
        (attempt.folder / "last.ckpt").unlink(missing_ok=True)
    return record.model_dump(mode="json") | {"path": str(path)}


def _trainer(
    experiment: Experiment, attempt: Attempt, budget: Budget, max_time: float | None, started: float
) -> pl.Trainer:
    train = experiment.tree.train
    callbacks: list[pl.Callback] = [Checkpoints(attempt.folder)]
    if rank() == 0:
        callbacks.append(Bar(experiment.name))
    if max_time is not None:
        callbacks.append(Deadline(max_time, started))
    gpu = on_gpu(experiment)
    return pl.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=train.devices,
        num_nodes=train.num_nodes,
        strategy=train.strategy,
        precision=train.precision,
        max_epochs=budget.rounds,
        accumulate_grad_batches=budget.accumulate,
        gradient_clip_val=experiment.tree.optim.gradient_clip_val or None,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,  # the data module shares the stream out itself
        num_sanity_val_steps=0,
        # on a CPU every op in use is deterministic as it is
        deterministic="warn" if gpu else False,
        benchmark=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=_logger(train.logger, attempt),
        log_every_n_steps=max(budget.steps // 100, 1),
        callbacks=callbacks,
        default_root_dir=attempt.folder,
    )


def _logger(kind: str, attempt: Attempt) -> Any:
    """A logger of this attempt's own: an earlier attempt's log stays as it is."""
    where: dict[str, Any] = {"save_dir": attempt.folder, "name": "logs", "version": f"attempt-{attempt.number}"}
    if kind == "csv":
        return CSVLogger(**where)
    if kind == "tensorboard":
        from lightning.pytorch.loggers import TensorBoardLogger

        try:
            return TensorBoardLogger(**where)
        except ModuleNotFoundError as error:
            raise UserError("train.logger=tensorboard needs: pip install 'seqzoo[tensorboard]'") from error
    return False


def _test(trainer: pl.Trainer, training: Training, data: TaskData, folder: Path) -> dict[str, Any]:
    """Scores of the weights that were best on validation."""
    best = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)
    training.load_state_dict(best["state_dict"])
    began = time.monotonic()
    trainer.test(training, datamodule=data, verbose=False)
    scores = {"test": training.scores("test")}
    if data.beyond and data.has(LENGTH_GENERALIZATION):
        scores[LENGTH_GENERALIZATION] = training.scores(LENGTH_GENERALIZATION)
    training.seconds["eval"] += time.monotonic() - began
    point = training.best
    assert point is not None
    return {"val": training.val_scores[point["step"]], **scores}


def _ending(error: Exception, attempt: Attempt) -> tuple[str, str]:
    """Status and detail of a run that an exception ended; the traceback stays in the run's folder."""
    (attempt.folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
    status = "out-of-memory" if _is_out_of_memory(error) else "failed"
    return status, f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def _record_unbuilt(
    experiment: Experiment, places: Places, attempt: Attempt, status: str, detail: str
) -> dict[str, Any]:
    """The record of a run whose model could not be built: no parameters, no history."""
    data = open_data(experiment, budget_of(experiment), None)
    record = make_record(experiment, attempt, None, data, status, detail, None, None)
    if rank() > 0:
        sys.exit(0)  # the first rank writes and tells
    return record.model_dump(mode="json") | {"path": str(records.write(record, places.results))}


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(s in text for s in ("out of memory", "can't allocate memory"))
    )


def quiet_libraries() -> None:
    """Libraries do not talk over the run's own output."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*is not resumable.*",
        ".*It is recommended to use `self.log.*sync_dist=True.*",
        ".*GPU available but not used.*",
        ".*number of training batches.*is smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def record_lost(experiment: Experiment, places: Places, status: str, detail: str) -> dict[str, Any]:
    """The record of a run whose process vanished before it could write one."""
    quiet_libraries()
    folder = places.folder(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    attempt = Attempt.begin(experiment, folder, force=False)
    try:
        training = build(experiment)
    except Exception as error:
        detail += f"; and the model cannot be built: {_ending(error, attempt)[1]}"
        return _record_unbuilt(experiment, places, attempt, status, detail[:2000])
    data = open_data(experiment, training.budget, training)
    record = make_record(experiment, attempt, training, data, status, detail, None, None)
    return record.model_dump(mode="json") | {"path": str(records.write(record, places.results))}
