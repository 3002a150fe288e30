"""One experiment, from configuration to record.

resolve → build → prepare data → fit → test the best-on-validation weights → write the record.
Every ending is a record: ok, out-of-memory, diverged, timeout, interrupted, failed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.flop_counter import FlopCounterMode

from zoo.data.module import Batch, TaskData
from zoo.data.paths import data_dir
from zoo.experiment import environment
from zoo.experiment.config import Experiment
from zoo.experiment.models import SequenceModel
from zoo.experiment.sweep import command
from zoo.experiment.training import Bar, Budget, Checkpoints, Deadline, Diverged, TimeLimit, Training, budget_of
from zoo.interface import record as records
from zoo.interface.errors import ConfigError, UserError
from zoo.ops.backend import forms_that_ran, use_backend


@dataclass(frozen=True)
class Places:
    """Where a run puts things: records for the board, and checkpoints and logs."""

    results: Path
    runs: Path

    def folder(self, experiment: Experiment) -> Path:
        """Checkpoints and logs of one (configuration, seed)."""
        name = f"{experiment.hash}-s{experiment.seed}"
        arch, task = experiment.architecture.record.name, experiment.task.record.name
        return self.runs / experiment.protocol / task / arch / name


def finished(experiment: Experiment, places: Places) -> dict[str, Any] | None:
    """The record of this very experiment, made here by this very code, if it ended well.

    What decides is the run's own folder: a record that came with a checkout was made elsewhere.
    """
    note = _read_note(places.folder(experiment))
    if note.get("code") != code_hash(experiment) or "record" not in note:
        return None
    path = Path(note["record"])
    if not path.is_file() or places.results.resolve() not in path.resolve().parents:
        return None
    record = records.read(path)
    return record | {"path": str(path)} if isinstance(record, dict) else None


def _read_note(folder: Path) -> dict[str, Any]:
    """What an earlier call noted in the run's folder; nothing when it was none, or was cut off."""
    try:
        return json.loads((folder / "run.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def code_hash(experiment: Experiment) -> str:
    """Hash of the frame's, the plugin's and the task's sources."""
    arch, task = experiment.architecture.record, experiment.task.record
    return environment.source_hash("zoo", arch.backbone, arch.config, task.data)


def run(
    experiment: Experiment, places: Places, *, max_time: float | None = None, force: bool = False
) -> dict[str, Any]:
    """Run one experiment to its record, resuming what an earlier call of the same command left.

    Raises ConfigError or UserError (nothing was trained, no record) for the user's mistakes; every other ending is
    a record, returned and written under `places.results`.
    """
    started = time.monotonic()
    quiet_libraries()
    folder = places.folder(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_here(experiment, folder):
        attempt = _Attempt.begin(experiment, folder, force=force)
        with use_backend(experiment.tree.train.backend), termination_is_an_ending():
            training = build(experiment)
            data = open_data(experiment, training.budget, training)
            return _train_and_record(experiment, places, attempt, training, data, max_time, started)


def _rank() -> int:
    """Number of this process in a distributed run, as its launcher tells."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


@contextlib.contextmanager
def _only_here(experiment: Experiment, folder: Path) -> Iterator[None]:
    """One process at a time in a run's folder; further ranks of a distributed run are guests of the first."""
    if _rank() > 0:
        yield
        return
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(timeout=5)
    except filelock.Timeout:
        raise UserError(f"{experiment.name} is being run by another process (lock {folder / 'lock'})") from None
    try:
        yield
    finally:
        lock.release()


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
        model = SequenceModel(experiment)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError("arch", f"{experiment.architecture.record.name} cannot be built so: {error}") from error
    return Training(experiment, model, budget_of(experiment))


def open_data(experiment: Experiment, budget: Budget, training: Training) -> TaskData:
    """The task's data, prepared, verified as far as is cheap, and told what the run wants of them."""
    data = experiment.task.record.load_data()(experiment.task_options, data_dir())
    data.prepare()
    data.configure(
        batch_size=budget.micro_batch,
        eval_batch_size=budget.eval_batch,
        seed=experiment.seed,
        round_of=lambda: budget.round_samples(training.global_step),
        val_limit=experiment.tree.train.val_limit or None,
        num_workers=experiment.tree.train.num_workers,
    )
    for split in ("train", "val", "test"):
        if len(data.dataset(split)) == 0:  # type: ignore[arg-type]
            raise UserError(f"{experiment.task.record.name}: the {split} split is empty")
    return data


@dataclass
class _Attempt:
    """What earlier calls left in the run's folder, and whether it may be gone on with."""

    folder: Path
    number: int
    started: str
    checkpoint: Path | None

    @classmethod
    def begin(cls, experiment: Experiment, folder: Path, *, force: bool) -> _Attempt:
        note = folder / "run.json"
        code = code_hash(experiment)
        earlier = _read_note(folder)
        if _rank() > 0:
            # the first rank has been here, and started this one
            checkpoint = folder / "last.ckpt"
            return cls(folder, earlier["attempt"], earlier["started"], checkpoint if checkpoint.exists() else None)
        same = earlier.get("code") == code and not force
        if not same:
            if earlier and not force:
                print(f"zoo: the code has changed since {folder} was begun; starting afresh", file=sys.stderr)
            for name in ("last.ckpt", "best.ckpt"):
                (folder / name).unlink(missing_ok=True)
        last = folder / "last.ckpt"
        attempt = cls(
            folder=folder,
            number=earlier.get("attempt", 0) + 1,
            started=earlier["started"] if same and last.exists() else _now(),
            checkpoint=last if last.exists() else None,
        )
        state = {"code": code, "attempt": attempt.number, "started": attempt.started, "config": experiment.values}
        records.write_atomically(note, json.dumps(state, indent=1))
        return attempt


def _train_and_record(
    experiment: Experiment,
    places: Places,
    attempt: _Attempt,
    training: Training,
    data: TaskData,
    max_time: float | None,
    started: float,
) -> dict[str, Any]:
    outcome, detail = "ok", ""
    scores: dict[str, Any] | None = None
    flops: int | None = None
    trainer = _trainer(experiment, attempt, training.budget, max_time, started)
    forms_that_ran(reset=True)
    try:
        flops = forward_flops(experiment, training.model)
        forms_that_ran(reset=True)
        trainer.fit(
            training,
            datamodule=data,
            ckpt_path=str(attempt.checkpoint) if attempt.checkpoint else None,
            weights_only=True,
        )
        scores = _test(trainer, training, data, attempt.folder)
    except UserError:
        raise
    except Diverged as error:
        outcome, detail = "diverged", str(error)
    except TimeLimit as error:
        outcome, detail = "timeout", str(error)
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning answers Ctrl-C with an exit of its own
        terminated = isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM
        signal_name = "SIGTERM" if terminated else "SIGINT"
        outcome, detail = "interrupted", f"{signal_name}; the same command goes on from the last round"
    except Exception as error:
        outcome = "out-of-memory" if _is_out_of_memory(error) else "failed"
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]
        (attempt.folder / "traceback.txt").write_text(traceback.format_exc())
    record = _record(experiment, attempt, training, data, outcome, detail, scores, flops)
    if _rank() > 0:
        sys.exit(0)  # the first rank writes and tells
    path = records.write(record, places.results)
    if outcome == "ok":
        note = _read_note(attempt.folder) | {"record": str(path.resolve())}
        records.write_atomically(attempt.folder / "run.json", json.dumps(note, indent=1))
        (attempt.folder / "last.ckpt").unlink(missing_ok=True)
    record["path"] = str(path)
    return record


def _trainer(
    experiment: Experiment, attempt: _Attempt, budget: Budget, max_time: float | None, started: float
) -> pl.Trainer:
    train = experiment.tree.train
    callbacks: list[pl.Callback] = [Checkpoints(attempt.folder)]
    if _rank() == 0:
        callbacks.append(Bar(experiment.name))
    if max_time is not None:
        callbacks.append(Deadline(max_time, started))
    on_gpu = train.accelerator == "gpu" or (train.accelerator == "auto" and torch.cuda.is_available())
    return pl.Trainer(
        accelerator=train.accelerator if train.accelerator != "auto" else "gpu" if on_gpu else "cpu",
        devices=train.devices,
        num_nodes=train.num_nodes,
        strategy=train.strategy,
        precision=train.precision,
        max_epochs=budget.rounds,
        accumulate_grad_batches=budget.accumulate,
        gradient_clip_val=experiment.tree.optim.clip or None,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,  # the data module shares the stream out itself
        num_sanity_val_steps=0,
        # on a CPU every op in use is deterministic as it is
        deterministic="warn" if on_gpu else False,
        benchmark=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=_logger(train.logger, attempt),
        log_every_n_steps=max(budget.steps // 100, 1),
        callbacks=callbacks,
        default_root_dir=attempt.folder,
    )


def _logger(kind: str, attempt: _Attempt) -> Any:
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
    test = training.scores("test")
    training.seconds["eval"] += time.monotonic() - began
    point = training.best
    assert point is not None
    val_n = len(data.dataset("val"))  # type: ignore[arg-type]
    limit = training.experiment.tree.train.val_limit
    return {
        "val": {"accuracy": point["metric"], "loss": point["loss"], "n": min(limit, val_n) if limit else val_n},
        "test": test,
    }


def forward_flops(experiment: Experiment, model: SequenceModel) -> int:
    """FLOPs of one example's forward pass: matrix products, convolutions and attention, as torch counts them."""
    length = experiment.seq_len
    matching = experiment.task.record.kind == "matching"
    shape = (1, 2, length) if matching else (1, length)
    dtype = torch.float32 if model.encoder.values else torch.int64
    batch = Batch(torch.zeros(shape, dtype=dtype), None, torch.zeros(1, dtype=torch.int64))
    training = model.training
    model.eval()
    # with gradients on: the counter hooks parameters that are given as inputs, and can do so only then
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        model(batch)
    model.train(training)
    return int(counter.get_total_flops())


def _record(
    experiment: Experiment,
    attempt: _Attempt,
    training: Training,
    data: TaskData,
    outcome: str,
    detail: str,
    scores: dict[str, Any] | None,
    flops: int | None,
) -> dict[str, Any]:
    arch, task = experiment.architecture, experiment.task
    capable = arch.record.capabilities
    backbone = training.model.encoder.backbone
    carries = capable.state != "none" and (experiment.mode == "causal" or capable.state == "memory")
    samples = min(training.global_step, training.budget.steps) * training.budget.batch_size
    seconds = {name: round(value, 3) for name, value in training.seconds.items()}
    plan = training.model.encoder.plan
    # every device of a distributed run counts its own
    tokens = training.tokens * experiment.tree.train.devices * experiment.tree.train.num_nodes
    return records.new(
        architecture={"name": arch.record.name, "title": arch.record.title, "family": arch.record.family},
        plugin={
            "distribution": arch.provenance.distribution,
            "version": arch.provenance.version,
            "entry_point": arch.provenance.entry_point,
            "source_hash": code_hash(experiment),
        },
        task={"name": task.record.name, "version": task.record.version, "suite": task.record.suite},
        data=data.provenance(),
        protocol=experiment.protocol,
        overrides=dict(experiment.overrides),
        config=experiment.values,
        config_hash=experiment.hash,
        seed=experiment.seed,
        mode=experiment.mode,
        objective="classify",
        segment_plan=asdict(plan) if capable.segment else None,
        parameters=sum(p.numel() for p in training.model.parameters()),
        state_size=backbone.state_size(experiment.seq_len) if carries else None,
        outcome=outcome,
        detail=detail,
        metrics=scores,
        baselines={"chance": task.record.chance, "majority": data.majority()},
        curves=training.curves,
        samples=samples,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=round(tokens / seconds["train"], 1) if seconds["train"] else None,
        peak_memory_bytes=environment.peak_memory(training.device),
        # backward costs twice the forward
        flops=None if flops is None else 3 * flops * samples,
        backend=forms_that_ran(),
        hardware=environment.hardware(),
        versions=environment.versions(),
        git=environment.git_state(),
        command=command(),
        started=attempt.started,
        ended=_now(),
    )


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(s in text for s in ("out of memory", "can't allocate memory"))
    )


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


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


def record_lost(experiment: Experiment, places: Places, outcome: str, detail: str) -> dict[str, Any]:
    """The record of a run whose process vanished before it could write one."""
    quiet_libraries()
    folder = places.folder(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    training = build(experiment)
    data = open_data(experiment, training.budget, training)
    attempt = _Attempt.begin(experiment, folder, force=False)
    record = _record(experiment, attempt, training, data, outcome, detail, None, None)
    record["path"] = str(records.write(record, places.results))
    return record
