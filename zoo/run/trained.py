"""The model that a finished run keeps in its folder: how it is written, and the way back.

model.safetensors  the weights that were best on validation
config.json        the experiment, the versions that it was made by, and the codec of its data: what turns a user's
                   input into what the model reads, and a class into its name
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from zoo.convert.checkpoint import is_checkpoint
from zoo.convert.checkpoint import load as load_checkpoint
from zoo.data.module import LoaderConfig, TaskData
from zoo.data.paths import data_dir
from zoo.model.spec import ModelSpec
from zoo.run.compose import Experiment
from zoo.spec.errors import ConfigError, DataError, UserError
from zoo.spec.files import default_runs_dir, placed_atomically, write_atomically
from zoo.spec.record import Record
from zoo.spec.store import StoredRecord, read

StrPath = str | PathLike[str]
RunLike = StrPath | StoredRecord | Record
"""A run by its folder, or by its record: a file, or what `zoo.bench` returned."""
WEIGHTS, CONFIG, BEST = "model.safetensors", "config.json", "best.ckpt"
CHECKPOINTS = "checkpoints"
"""Folder of the weights after each validation interval, STEP.safetensors, under `train.keep_checkpoints`."""
FORMAT = 1
MAX_LISTED = 10
"""Faults that a message names."""


@dataclass(frozen=True)
class TrainedModel:
    """A model with what it was trained for.

    folder  where it lies
    model   in evaluation mode, on the CPU
    data    the task's, with the codec of the run; nothing is prepared
    config  what config.json holds; empty for a model that was not trained for the experiment
    name    id of the run's record, or the name of a checkpoint's folder
    """

    folder: Path
    experiment: Experiment
    model: Any
    data: TaskData
    config: Mapping[str, Any]
    name: str


def keep_model(folder: Path, experiment: Experiment, record: Mapping[str, Any], codec: Mapping[str, Any]) -> None:
    """Write the model of `best.ckpt` and its configuration into the run's folder. Each file appears whole or not at
    all.

    record  the fields of the run's record
    """
    state = torch.load(folder / BEST, map_location="cpu", weights_only=True)["state_dict"]
    own = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    keep_weights(folder / WEIGHTS, own)
    plain = {name: value for name, value in asdict(experiment).items() if name != "origins"}
    versions = {part: {name: record[part][name] for name in ("name", "version")} for part in ("architecture", "task")}
    config = {
        "format": FORMAT,
        "experiment": plain,
        **versions,
        "distribution": record["plugin"]["distribution"],
        "ended": record["ended"],
        "codec": dict(codec),
    }
    write_atomically(folder / CONFIG, json.dumps(config, indent=1))


def keep_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a model's state as safetensors, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with placed_atomically(path) as partial:
        # safetensors refuses tensors that share storage
        save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, partial)


def kept_checkpoints(trained: TrainedModel) -> Iterator[tuple[int, nn.Module]]:
    """The model after each validation interval that was kept (`train.keep_checkpoints`), with its step."""
    if not trained.config:
        return
    files = {int(path.stem): path for path in (trained.folder / CHECKPOINTS).glob("*.safetensors")}
    for step in sorted(files):
        yield step, _build(trained.experiment, files[step])


def load(run: RunLike, *, runs: StrPath = "") -> nn.Module:
    """Load the model of a finished run: the weights that were best on validation, in evaluation mode, on the CPU.

    run   the run's folder, or its record: a file, or what `zoo.bench` returned. Or a checkpoint's folder, of which the
          model is that of `zoo.convert.load` and reads its own ids
    runs  the folder of runs in which that of a record lies (`ZOO_RUNS_DIR`, else runs)

    `model.logits(inputs, mask)` gives its outputs. Raises UserError or DataError, which name the file.
    """
    if not isinstance(run, StoredRecord | Record) and is_checkpoint(folder := Path(run)):
        return load_checkpoint(folder)
    return load_trained(run, runs=runs).model


def load_trained(run: RunLike, *, runs: StrPath = "") -> TrainedModel:
    """Load a model as `load` does, with its experiment and its data's codec."""
    folder, record = _find(run, Path(runs or default_runs_dir()))
    config = _read_config(folder)
    if record is not None and record.ended != config["ended"]:
        raise UserError(f"{folder}: holds the model of a later run of {record.id}, which ended {config['ended']}")
    experiment = _experiment(config, folder / CONFIG)
    model = _build(experiment, folder / WEIGHTS)
    data = build_data(experiment)
    data.codec = config["codec"]
    return TrainedModel(folder, experiment, model, data, config, experiment.id)


def build_data(experiment: Experiment) -> TaskData:
    """The data of an experiment, of which nothing is prepared."""
    loading = LoaderConfig(kind=experiment.kind, objective=experiment.objective)
    return experiment.task_spec.load_data()(experiment.task_options, data_dir(), loading)


def _find(run: RunLike, runs: Path) -> tuple[Path, Record | None]:
    """The folder of a run, and the record by which it was named."""
    if isinstance(run, StoredRecord):
        run = run.record
    if isinstance(run, Record):
        record = run
    else:
        place = Path(run)
        if place.is_dir():
            return place, None
        if place.name in (WEIGHTS, CONFIG):
            return place.parent, None
        if not place.is_file():
            raise UserError(f"{place}: no such run; expected the folder of a run, or a record (*.json)")
        found = read(place)
        if isinstance(found, str):
            raise UserError(f"{place}: neither the folder of a run nor a record: {found}")
        record = found
    folder = runs / record.id
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; the run of this record was made elsewhere (ZOO_RUNS_DIR names runs)"
        )
    return folder, record


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if is_checkpoint(folder):
        raise UserError(
            f"{folder}: a checkpoint, not a run; zoo eval and zoo generate read it, zoo extend and analyze with --task"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if (folder / "run.json").is_file():
            why = "this run has not ended well, or before models were kept; the same zoo bench command goes on"
        else:
            why = "not the folder of a run"
        raise UserError(f"{folder}: no {CONFIG}: {why}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        given = config.get("format") if isinstance(config, dict) else None
        raise UserError(f"{path}: format: {given!r}, this zoo reads {FORMAT}")
    return config


def _experiment(config: Mapping[str, Any], path: Path) -> Experiment:
    """The experiment, if the architecture and the task of this zoo are those that the model was made by."""
    try:
        experiment = Experiment(**config["experiment"])
        for part, record in (("architecture", experiment.arch_spec), ("task", experiment.task_spec)):
            made = config[part]
            if (made["name"], made["version"]) != (record.name, record.version):
                raise UserError(
                    f"{path}: {part}: made by {made['name']} version {made['version']}, "
                    f"this zoo has {record.name} version {record.version}"
                )
        _ = experiment.arch_config, experiment.task_options, experiment.model_spec
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not the configuration of a run of this zoo: {error}") from error
    return experiment


def _build(experiment: Experiment, weights: Path) -> nn.Module:
    model = experiment.kind.build_model(experiment.model_spec)
    _fill(model, weights)
    return model.eval()


def rebuild(trained: TrainedModel, spec: ModelSpec) -> Any:
    """The trained model by another specification. Raises ConfigError where its weights are for one length."""
    model = trained.experiment.kind.build_model(spec)
    weights = trained.model.state_dict()
    for name, tensor in model.state_dict().items():
        if name in weights and tensor.shape != weights[name].shape:
            message = f"{name} has the shape {tuple(weights[name].shape)} as trained, {tuple(tensor.shape)} here"
            raise ConfigError("task.seq_len", f"{spec.seq_len}: the model has weights for its length: {message}")
    model.load_state_dict(weights)
    return model.to(next(trained.model.parameters()).dtype).eval()


def _fill(model: nn.Module, path: Path) -> None:
    """Load the weights. Raises DataError that names every tensor that does not fit."""
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    own = model.state_dict()
    faults = [f"missing: {name}" for name in own if name not in tensors]
    faults += [f"unexpected: {name}" for name in tensors if name not in own]
    faults += [
        f"shape: {name} {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if faults:
        more = [f"and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
        raise DataError("\n  ".join([f"{path}: {len(faults)} tensors do not fit:", *faults[:MAX_LISTED], *more]))
    model.to({tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}.pop())
    model.load_state_dict(tensors)
