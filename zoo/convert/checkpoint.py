"""Read and write checkpoint directories, Hugging Face's and ours. Safetensors only: pickles can run code when read.

Our directory holds `model.safetensors` and `zoo.json`: the architecture, and the config.json that it came from, from
which the model is built again and which an export returns unchanged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from zoo.convert.model import PretrainedModel
from zoo.data.files import combined_sha256, sha256
from zoo.spec.errors import ConfigError, DataError, UserError, did_you_mean
from zoo.spec.files import placed_folder
from zoo.spec.registry import registry

ZOO_CONFIG, HF_CONFIG = "zoo.json", "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
UNUSED = "unused/"
"""Prefix in our safetensors of tensors that the model does not use but an export writes back."""
FORMAT = 2
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A directory that `convert` wrote: its format, and the numbers of tensors and parameters in it."""

    folder: Path
    form: Literal["zoo", "huggingface"]
    architecture: str
    tensors: int
    parameters: int


def convert(name: str, source: Path, target: Path | None = None, *, force: bool = False) -> ConvertedCheckpoint:
    """Convert the checkpoint directory `source` of architecture `name` into the other format.

    A directory with zoo.json becomes a Hugging Face one, and the reverse. target defaults to SOURCE-huggingface or
    SOURCE-zoo in the current folder; force replaces it. Raises UserError or DataError, and then has written nothing.
    """
    entry = registry().architecture(name)
    conversion = entry.record.load_conversion()
    if not source.is_dir():
        raise UserError(f"{source}: no such directory; a checkpoint is a directory with {HF_CONFIG} and *.safetensors")
    form: Literal["zoo", "huggingface"] = "huggingface" if (source / ZOO_CONFIG).is_file() else "zoo"
    target = target or Path(f"{source.resolve().name}-{form}")
    if target.exists() and not force:
        raise UserError(f"{target} already exists; --force replaces it")
    if target.exists() and target.resolve() == source.resolve():
        raise UserError(f"{target} is the checkpoint itself")
    if form == "huggingface":
        model, description = _load(source, expected=name)
        tensors = model.export_tensors()
        # the original config.json has more than we can derive: names of labels, special tokens
        exported = {"model_type": conversion.model_type, **conversion.export_config(model.config, model.dims)}
        _write(target, HF_CONFIG, exported | description["huggingface"], tensors, source / TOKENIZER)
    else:
        hf_config = _read_json(source / HF_CONFIG)
        if hf_config.get("model_type") != conversion.model_type:
            given = f"model_type {hf_config.get('model_type')!r}"
            raise UserError(f"{source / HF_CONFIG}: {given}, but {name} reads {conversion.model_type!r}")
        model = _import(name, hf_config, source)
        tensors = model.own_tensors() | {UNUSED + key: tensor for key, tensor in model.unused_tensors.items()}
        description = {
            "format": FORMAT,
            "architecture": name,
            "distribution": entry.plugin.distribution,
            "version": entry.plugin.version,
            "huggingface": hf_config,
        }
        _write(target, ZOO_CONFIG, description, tensors, source / TOKENIZER)
    return ConvertedCheckpoint(target, form, name, len(tensors), sum(t.numel() for t in tensors.values()))


def load(folder: str | Path) -> PretrainedModel:
    """Load the model from a directory that `zoo convert` wrote, or from a Hugging Face one that converts, in evaluation
    mode, in the dtype of its weights."""
    return load_described(Path(folder))[0]


def load_described(folder: Path) -> tuple[PretrainedModel, str, dict[str, Any]]:
    """Load a model as `load` does, with the name of its architecture and its config.json."""
    if (folder / ZOO_CONFIG).is_file():
        model, description = _load(folder)
        return model, description["architecture"], description["huggingface"]
    hf_config = _read_json(folder / HF_CONFIG)
    given, known = hf_config.get("model_type"), dict[str, str]()
    for name, entry in registry().architectures.items():
        if entry.record.conversion:
            known[entry.record.load_conversion().model_type] = name
    if given not in known:
        raise UserError(f"{folder / HF_CONFIG}: model_type {given!r} does not convert{did_you_mean(str(given), known)}")
    return _import(known[given], hf_config, folder).eval(), known[given], hf_config


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint's. Raises UserError for one of pickles, which are not read."""
    if (folder / ZOO_CONFIG).is_file():
        return True
    try:
        config = json.loads((folder / HF_CONFIG).read_text("utf-8-sig"))
    except FileNotFoundError:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles and not (folder / "run.json").exists():
            raise UserError(f"{folder}: no {HF_CONFIG}; {pickles[0]} may run code when read: safetensors are") from None
        return False
    except (OSError, ValueError):
        return False  # loading a run says what is wrong
    return isinstance(config, dict) and "experiment" not in config


def sum_of_weights(folder: Path) -> str:
    """sha256 of the weights' file of a checkpoint or a run, or one over those of the shards."""
    if not (folder / INDEX).is_file():
        return sha256(folder / WEIGHTS)
    names = set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values())
    return combined_sha256((name, bytes.fromhex(sha256(folder / name))) for name in names)


def special_ids(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """`bos_token_id` and `eos_token_id` of a Hugging Face config.json: of several the first, None for none."""
    ids: list[Any] = [config.get("bos_token_id"), config.get("eos_token_id")]
    begin, end = (value[0] if isinstance(value, list) and value else value for value in ids)
    return begin, end


def _import(name: str, hf_config: dict[str, Any], source: Path) -> PretrainedModel:
    """The model of a Hugging Face directory."""
    model = _build(name, hf_config, source / HF_CONFIG)
    model.import_tensors(_read_tensors(source), where=str(source))
    return model


def _load(folder: Path, expected: str | None = None) -> tuple[PretrainedModel, dict[str, Any]]:
    """Load the model and zoo.json. Raises UserError if the architecture is not `expected`."""
    description = _read_json(folder / ZOO_CONFIG)
    if description.get("format") != FORMAT:
        raise UserError(f"{folder / ZOO_CONFIG}: format {description.get('format')!r}, this version reads {FORMAT}")
    name = description["architecture"]
    if expected is not None and name != expected:
        raise UserError(f"{folder / ZOO_CONFIG}: holds {name}, not {expected}")
    model = _build(name, description["huggingface"], folder / ZOO_CONFIG)
    tensors = _read_tensors(folder)
    unused = [key for key in tensors if key.startswith(UNUSED)]
    model.unused_tensors = {key.removeprefix(UNUSED): tensors.pop(key) for key in unused}
    model.load_own_tensors(tensors, where=str(folder))
    return model.eval(), description


def _build(name: str, hf_config: dict[str, Any], origin: Path) -> PretrainedModel:
    """Build the model without its weights; a ConfigError names the file `origin`."""
    architecture = registry().architecture(name).record
    try:
        return PretrainedModel(architecture, architecture.load_conversion(), hf_config)
    except ConfigError as error:
        raise ConfigError(error.key, error.message, origin=str(origin)) from error


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a directory: one file, or the shards that an index lists."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (folder / INDEX).is_file():
        names = sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))
        if any(Path(name).name != name for name in names):
            raise DataError(f"{folder / INDEX}: lists files outside its folder")
    elif (folder / WEIGHTS).is_file():
        names = [WEIGHTS]
    else:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt") for path in folder.glob(pattern))
        why = f" ({', '.join(pickles[:3])} may run code when read; save it as safetensors)" if pickles else ""
        raise DataError(f"{folder}: no {WEIGHTS}{why}")
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            tensors |= load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{folder / name}: {' '.join(str(error).split())}") from error
    return tensors


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises DataError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object")
    return content


def _write(
    target: Path, config_name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokenizer: Path
) -> None:
    """Write the directory atomically, with a copy of the tokenizer where there is one."""
    from safetensors.torch import save_file

    try:
        with placed_folder(target) as folder:
            (folder / config_name).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            if tokenizer.is_file():
                shutil.copyfile(tokenizer, folder / TOKENIZER)
            # safetensors refuses tensors that share storage
            unshared = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
            save_file(unshared, folder / WEIGHTS, metadata={"format": "pt"})
    except OSError as error:
        raise UserError(f"{target}: {error.strerror or error}") from error
