"""Execute one job: build -> prepare data -> fit -> test the weights that were best on validation -> write the record.

Every ending is a record: ok, out-of-memory, diverged, timeout, interrupted, failed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from zoo.data.module import LoaderConfig, Split, TaskData
from zoo.data.paths import data_dir
from zoo.ops.backend import forms_that_ran, use_backend
from zoo.run.callbacks import Checkpoints, Deadline, Report, Reporter, TimeLimit
from zoo.run.compose import Experiment, Job
from zoo.run.finished import find_finished
from zoo.run.initial import describe_begun, initialise
from zoo.run.memory import count_forward_flops, is_out_of_memory, on_gpu, remedy, warn_of_memory
from zoo.run.module import Diverged, ExperimentModule, Loaders, Schedule
from zoo.run.recording import DataFacts, Ending, check_recordable, gather_facts, record_fields
from zoo.run.rundir import Attempt, RunDir, rank
from zoo.run.signals import handlers
from zoo.spec.errors import ConfigError, UserError
from zoo.spec.record import Status, pack_bits
from zoo.spec.store import StoredRecord


def execute(job: Job, report: Report = lambda event: None) -> StoredRecord:
    """Run one job to its record, resuming what an earlier call of the same command left.

    report  called with what the run needs, and with how far it is

    Raises ConfigError or UserError (nothing was trained, no record) for the user's mistakes; every other ending is
    a record, returned and written under `job.results`.
    """
    started = time.monotonic()
    quiet_libraries()
    experiment = job.experiment
    torch.set_num_threads(experiment.train.num_threads)
    if experiment.train.devices * experiment.train.num_nodes == 1:
        _ignore_launcher()
    if experiment.train.accelerator == "gpu" and not torch.accelerator.is_available():
        key = "train.accelerator"
        raise ConfigError(key, "'gpu', and this machine has none; auto or cpu", origin=experiment.origins[key])
    rundir = RunDir(job)
    with rundir.lock():
        if finished := find_finished(job):
            return finished
        attempt = rundir.start()
        with use_backend(experiment.train.op_backend), stop_as_exception(), op_backend_errors(experiment):
            try:
                module = build_module(experiment)
                if experiment.init is not None and attempt.checkpoint is None:
                    begun = initialise(module.model, experiment)
                    if rank() == 0:
                        print(f"zoo: {describe_begun(experiment, *begun)}", file=sys.stderr)
                # one example through the model: a mismatch is an error before data are prepared
                flops = count_forward_flops(experiment, module.model)
            except UserError:
                raise
            except Exception as error:
                ending = _ending_of(error, rundir)
                return _write(rundir, attempt, None, gather_facts(experiment, open_data(experiment, None)), ending)
            reporter = [Reporter(report)] if rank() == 0 else []
            trainer = _trainer(rundir, attempt, module, [Deadline(job.max_time, started), *reporter])
            schedule = module.schedule
            needed = warn_of_memory(experiment, module.model, schedule.micro_batch_size, schedule.example_bytes)
            report({"memory": needed})
            data = open_data(experiment, schedule)
            facts = gather_facts(experiment, data)
            check_recordable(job, attempt, module, facts, data)
            module.setup_metrics(data)
            ending = _fit_and_test(rundir, attempt, module, data, trainer)
            ending.flops = flops
            return _write(rundir, attempt, module, facts, ending)


def record_lost(job: Job, status: Status, error: str, *, build: bool, memory: bool = False) -> StoredRecord:
    """Write the record of a run whose process vanished before it could write one.

    memory  whether memory may have run out: the error then names the remedy
    build   whether to build the model, for its number of parameters: that may be what ended the process
    """
    quiet_libraries()
    rundir = RunDir(job)
    attempt = rundir.start()
    module: ExperimentModule | None = None
    try:
        module = build_module(job.experiment) if build else None
        if module is not None and memory:
            error += remedy(module.model, module.schedule.micro_batch_size)
    except Exception as cause:
        error += f"; and the model cannot be built: {_ending_of(cause, rundir).error}"
    facts = gather_facts(job.experiment, open_data(job.experiment, None))
    return _write(rundir, attempt, module, facts, Ending(status, error[:2000]))


@contextlib.contextmanager
def op_backend_errors(experiment: Experiment) -> Iterator[None]:
    """Ops raise ConfigError("backend", …); rename the key to train.op_backend, which is what the user set."""
    try:
        yield
    except ConfigError as error:
        if error.key != "backend":
            raise
        key = "train.op_backend"
        raise ConfigError(key, error.message, origin=experiment.origins[key]) from error


@contextlib.contextmanager
def stop_as_exception() -> Iterator[None]:
    """Raise KeyboardInterrupt or SystemExit on the first SIGINT or SIGTERM, so that it becomes a record.

    Only on the first: a scheduler signals each process, the caller passes its own on, and the record is being written.
    """
    stopped = False

    def stop(number: int, frame: Any) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    with handlers(stop):
        yield


LAUNCHERS = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "LSB_DJOB_NUMPROC")
"""Variables by which launchers say how many processes they started or may start."""


def _ignore_launcher() -> None:
    """A run on one device is the first and only process of itself, whatever a launcher's variables say."""
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    named = [f"{name}={os.environ[name]}" for name in LAUNCHERS if os.environ.get(name, "1") != "1"]
    if named:
        print(f"zoo: {', '.join(named)}, but train.devices=1: one process trains on one device", file=sys.stderr)


def _check_processes(trainer: pl.Trainer, world: int) -> None:
    """Raise ValueError where a launcher's variables do not fit the devices, or where nobody starts the processes of the
    other nodes: one process would wait for others that never come."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None:
        return
    environment.validate_settings(num_devices=world // trainer.num_nodes, num_nodes=trainer.num_nodes)
    if type(environment) is not LightningEnvironment:
        return  # of a launcher that Lightning knows
    size = os.environ.get("WORLD_SIZE", str(world))
    if size != str(world):
        raise ValueError(f"a launcher set WORLD_SIZE={size}; unset it, or start {world} processes")
    if "RANK" in os.environ and "LOCAL_RANK" not in os.environ:
        raise ValueError("a launcher set RANK, but not LOCAL_RANK; unset it, or start all processes by torchrun")
    numbered = "NODE_RANK" in os.environ or "GROUP_RANK" in os.environ
    if trainer.num_nodes > 1 and not (numbered and "MASTER_ADDR" in os.environ):
        raise ValueError(
            "nobody starts the other nodes' processes; use torchrun or SLURM, or set NODE_RANK and MASTER_ADDR"
        )


def build_module(experiment: Experiment) -> ExperimentModule:
    """Build the model on the CPU, seeded. A ValueError of a plugin here is the configuration's fault."""
    pl.seed_everything(experiment.seed, verbose=False)
    try:
        model = experiment.kind.build_model(experiment.model_spec)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError("arch", f"{experiment.architecture} cannot be built so: {error}") from error
    module = ExperimentModule(experiment, model)
    forms_that_ran(reset=True)  # forget those of the calls that its schedule took
    return module


def load_data(experiment: Experiment, schedule: Schedule | None, *, interval: int | None = None) -> TaskData:
    """The task's data, configured for the run, not yet prepared.

    schedule  None where nothing is to be read batch by batch
    interval  training samples of one epoch in place of those between two validations
    """
    loading = LoaderConfig(
        kind=experiment.kind,
        seed=experiment.seed,
        val_limit=experiment.train.val_limit or None,
        num_workers=experiment.train.num_workers,
        objective=experiment.objective,
        length_generalization=experiment.arch_spec.capabilities.length != "fixed",
    )
    if schedule is not None:
        loading = replace(
            loading,
            batch_size=schedule.micro_batch_size,
            rows=schedule.batch_size,
            eval_batch_size=schedule.eval_batch_size,
            interval=schedule.steps_per_interval * schedule.batch_size if interval is None else interval,
            max_samples=schedule.steps * schedule.batch_size,
        )
    return experiment.task_spec.load_data()(experiment.task_options, data_dir(), loading)


def open_data(experiment: Experiment, schedule: Schedule | None, *, interval: int | None = None) -> TaskData:
    """The task's data as `load_data` gives them, prepared."""
    data = load_data(experiment, schedule, interval=interval)
    data.prepare()
    for split in ("train", "val", "test"):
        if data.n_examples(split) == 0:
            raise UserError(f"{experiment.task}: the {split} split is empty")
    return data


def _fit_and_test(
    rundir: RunDir, attempt: Attempt, module: ExperimentModule, data: TaskData, trainer: pl.Trainer
) -> Ending:
    forms_that_ran(reset=True)
    try:
        trainer.fit(
            module,
            datamodule=Loaders(data),
            ckpt_path=str(attempt.checkpoint) if attempt.checkpoint else None,
            weights_only=True,
        )
        return Ending("ok", metrics=_test(trainer, module, data, rundir))
    except UserError:
        raise
    except Diverged as error:
        return Ending("diverged", str(error))
    except TimeLimit as error:
        return Ending("timeout", str(error))
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning answers Ctrl-C with an exit of its own
        terminated = isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM
        name = "SIGTERM" if terminated else "SIGINT"
        return Ending("interrupted", f"{name}; the same command goes on from the last validation")
    except Exception as error:
        ending = _ending_of(error, rundir)
        if ending.status == "out-of-memory":
            ending.error += remedy(module.model, module.schedule.micro_batch_size)
        return ending


def _trainer(
    rundir: RunDir, attempt: Attempt, module: ExperimentModule, callbacks: Sequence[pl.Callback]
) -> pl.Trainer:
    experiment, schedule = module.experiment, module.schedule
    train = experiment.train
    gpu = on_gpu(experiment)
    world = train.devices * train.num_nodes
    logger = _logger(train.logger, rundir, attempt)
    try:
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=train.devices,
            num_nodes=train.num_nodes,
            strategy="auto"
            if world == 1 and train.strategy == "ddp"
            else train.strategy,  # ddp of one averages nothing
            precision=train.precision,
            max_epochs=schedule.intervals,
            accumulate_grad_batches=schedule.accumulate,
            gradient_clip_val=experiment.optim.gradient_clip_val or None,
            # the last interval may be shorter, and Lightning reads the length of a loader once
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,  # the data module shares the stream out itself
            num_sanity_val_steps=0,
            # on a CPU every op in use is deterministic as it is
            deterministic="warn" if gpu else False,
            benchmark=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=logger,
            log_every_n_steps=max(schedule.steps // 100, 1),
            callbacks=[Checkpoints(rundir.path), *callbacks],
            default_root_dir=rundir.path,
            plugins=[LightningEnvironment()] if world == 1 else None,
        )
        _check_processes(trainer, world)
    except Exception as error:
        key, text = "train.strategy", " ".join(str(error).split())
        devices = f"{train.devices} x {train.num_nodes} {'gpu' if gpu else 'cpu'}"
        raise ConfigError(key, f"{train.strategy!r} on {devices}: {text}", origin=experiment.origins[key]) from error
    return trainer


def _logger(name: str, rundir: RunDir, attempt: Attempt) -> Any:
    """A logger of this attempt's own: an earlier attempt's log stays as it is."""
    where: dict[str, Any] = {"save_dir": rundir.path, "name": "logs", "version": f"attempt-{attempt.number}"}
    if name == "csv":
        return CSVLogger(**where)
    if name == "tensorboard":
        from lightning.pytorch.loggers import TensorBoardLogger

        try:
            return TensorBoardLogger(**where)
        except ModuleNotFoundError as error:
            raise UserError("train.logger=tensorboard needs: pip install 'seqzoo[tensorboard]'") from error
    return False


def _test(trainer: pl.Trainer, module: ExperimentModule, data: TaskData, rundir: RunDir) -> dict[str, Any]:
    """Metrics of each split, of the weights that were best on validation."""
    best = torch.load(rundir.best, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    began = time.monotonic()
    trainer.test(module, datamodule=Loaders(data), verbose=False)
    metrics: dict[str, Any] = {}
    for split in data.test_splits:
        metrics[split] = _in_order_of_the_data(module.scores(split), data, split)
    module.seconds["eval"] += time.monotonic() - began
    point = module.best
    assert point is not None
    return {"val": module.val_scores[point["step"]], **metrics}


def _in_order_of_the_data(scores: dict[str, Any], data: TaskData, split: Split) -> dict[str, Any]:
    """Scores with the bits of the questions that were answered right, which were evaluated by length, say."""
    if "right" not in scores:
        return scores
    right = np.zeros_like(scores["right"])
    right[list(data.eval_order(split, None))] = scores["right"]
    return scores | {"right": pack_bits(right)}


def _ending_of(error: Exception, rundir: RunDir) -> Ending:
    """The status and message of a run that an exception ended; the traceback stays in the run's folder."""
    (rundir.path / "traceback.txt").write_text("".join(traceback.format_exception(error)), "utf-8", "replace")
    status: Status = "out-of-memory" if is_out_of_memory(error) else "failed"
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:1800]
    return Ending(status, text)


def _write(
    rundir: RunDir, attempt: Attempt, module: ExperimentModule | None, facts: DataFacts, ending: Ending
) -> StoredRecord:
    fields = record_fields(rundir.job, attempt, module, facts, ending)
    if rank() > 0:
        sys.exit(0)  # the first rank writes the record and reports it
    return rundir.write_record(fields, facts.codec)


def quiet_libraries() -> None:
    """Keep messages of libraries out of the run's own output."""
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
