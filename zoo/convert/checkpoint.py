"""Directories of weights, theirs and ours. Safetensors only: nothing that is read can run code.

Ours holds `model.safetensors` and `zoo.json`: architecture, configuration, dims, what stands around the backbone, and
the config.json that it came from, so that the way back is exact.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.convert.conversion import Conversion
from zoo.convert.model import Converted, outside_from
from zoo.convert.tensors import to_ours, to_theirs
from zoo.spec.architecture import Architecture, ModelDims
from zoo.spec.errors import ConfigError, DataError, UserError
from zoo.spec.registry import registry

OURS, THEIRS = "zoo.json", "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CARRIED = "carried/"
"""In our safetensors: what only travels along, by its key in the other form."""
FORMAT = 1


@dataclass(frozen=True)
class Done:
    """What `convert` wrote: the folder, in whose form, tensors and parameters."""

    folder: Path
    form: Literal["zoo", "huggingface"]
    architecture: str
    tensors: int
    parameters: int


def convert(name: str, source: Path, target: Path | None = None, *, force: bool = False) -> Done:
    """Convert the checkpoint in `source` into the other form, in `target` (by default NAME-zoo or NAME-huggingface in
    the current folder).

    A directory with zoo.json is ours and becomes a Hugging Face one; one with config.json becomes ours. Raises
    UserError or DataError, and then has written nothing.
    """
    entry = registry().architecture(name)
    conversion = entry.record.load_conversion()
    if not source.is_dir():
        raise UserError(f"{source}: no such directory; a checkpoint is a directory with {THEIRS} and *.safetensors")
    ours = (source / OURS).is_file()
    target = target or Path(f"{source.resolve().name}-{'huggingface' if ours else 'zoo'}")
    if target.exists() and not force:
        raise UserError(f"{target} is there already; --force replaces it")
    if target.exists() and target.resolve() == source.resolve():
        raise UserError(f"{target} is the checkpoint itself")
    if ours:
        model, about = _load(source, expected=name)
        theirs = to_theirs(model.state_dict(), model.weights(conversion)) | model.carried
        # what was read says more than our own words for it: sizes of tables, names of labels, special tokens
        config = {"model_type": conversion.model_type, **conversion.write(model.config, model.dims)}
        config |= about["huggingface"]
        _write(target, {THEIRS: config}, theirs)
        return Done(target, "huggingface", name, len(theirs), _count(theirs))
    model, config = from_huggingface(entry.record, conversion, source)
    about = {
        "format": FORMAT,
        "architecture": name,
        "distribution": entry.provenance.distribution,
        "version": entry.provenance.version,
        "arch": model.arch,
        "dims": asdict(model.dims),
        "outside": {**asdict(model.outside), "aliases": dict(model.outside.aliases)},
        "huggingface": config,
    }
    tensors = dict(model.state_dict()) | {CARRIED + key: tensor for key, tensor in model.carried.items()}
    _write(target, {OURS: about}, tensors)
    return Done(target, "zoo", name, len(tensors), _count(tensors))


def from_huggingface(
    architecture: Architecture, conversion: Conversion, folder: Path
) -> tuple[Converted, dict[str, Any]]:
    """The model of a Hugging Face directory in evaluation mode, in the dtype of its weights, and its config.json."""
    config = _json(folder / THEIRS)
    found = config.get("model_type")
    if found != conversion.model_type:
        raise UserError(
            f"{folder / THEIRS}: model_type {found!r}, but {architecture.name} reads {conversion.model_type!r}"
        )
    try:
        reading, outside = conversion.read(config), conversion.outside(config)
        model = Converted(architecture, dict(reading.arch), reading.dims, outside)
    except ConfigError as error:
        raise ConfigError(error.key, error.message, origin=str(folder / THEIRS)) from error
    tensors = _tensors(folder)
    unused = [key for key in tensors if any(fnmatch(key, pattern) for pattern in outside.carried)]
    model.carried = {key: tensors.pop(key) for key in unused}
    _load_into(
        model,
        to_ours(
            tensors,
            model.weights(conversion),
            {key: value.shape for key, value in model.state_dict().items()},
            aliases=outside.aliases,
            ignored=conversion.ignored,
            where=str(folder),
        ),
    )
    return model.eval(), config


def load(folder: str | Path) -> Converted:
    """The model of a directory that `zoo convert` wrote, in evaluation mode, in the dtype of its weights."""
    return _load(Path(folder))[0]


def _load(folder: Path, expected: str | None = None) -> tuple[Converted, dict[str, Any]]:
    about = _json(folder / OURS)
    if about.get("format") != FORMAT:
        raise UserError(f"{folder / OURS}: format {about.get('format')!r}, this version reads {FORMAT}")
    if expected is not None and about["architecture"] != expected:
        raise UserError(f"{folder / OURS}: holds {about['architecture']}, not {expected}")
    record = registry().architecture(about["architecture"]).record
    model = Converted(record, about["arch"], ModelDims(**about["dims"]), outside_from(about["outside"]))
    tensors = _tensors(folder)
    unused = [key for key in tensors if key.startswith(CARRIED)]
    model.carried = {key.removeprefix(CARRIED): tensors.pop(key) for key in unused}
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    wrong = sorted(set(shapes) ^ set(tensors))
    wrong += [f"{key} {tuple(t.shape)}" for key, t in tensors.items() if t.shape != shapes.get(key, t.shape)]
    if wrong:
        raise DataError(f"{folder / WEIGHTS}: does not fit {OURS}: {', '.join(wrong[:5])}")
    _load_into(model, tensors)
    return model.eval(), about


def _load_into(model: Converted, tensors: Mapping[str, Tensor]) -> None:
    floating = {t.dtype for t in tensors.values() if t.is_floating_point()}
    model.to(next(iter(floating)) if len(floating) == 1 else torch.float32)
    model.load_state_dict(dict(tensors), strict=True)


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a directory: one file, or the shards that an index names."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (folder / INDEX).is_file():
        names = sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
        if any(Path(name).name != name for name in names):
            raise DataError(f"{folder / INDEX}: names files outside of its folder")
    elif (folder / WEIGHTS).is_file():
        names = [WEIGHTS]
    else:
        pickles = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt"))
        why = f" ({', '.join(pickles[:3])} may run code when read; save it as safetensors)" if pickles else ""
        raise DataError(f"{folder}: no {WEIGHTS}{why}")
    found: dict[str, Tensor] = {}
    for name in names:
        try:
            found |= load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{folder / name}: {' '.join(str(error).split())}") from error
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object")
    return found


def _write(target: Path, texts: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> None:
    """The whole directory, or nothing."""
    from safetensors.torch import save_file

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
            made = Path(beside) / target.name
            made.mkdir()
            for name, text in texts.items():
                (made / name).write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
            # shared storage (tied weights) is not saved twice by name: each name has its own
            unshared = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
            save_file(unshared, made / WEIGHTS, metadata={"format": "pt"})
            if target.exists():
                shutil.rmtree(target)
            made.rename(target)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror or error}") from error


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values())
