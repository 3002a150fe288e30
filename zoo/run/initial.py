"""The weights that a run begins with: of another run, or of a checkpoint (`zoo bench --init`).

What these were built with is a layer of settings below the user's own. The backbone is taken whole, the embedding where
both read the same ids, the head where both also answer in them; what is left begins anew, and is named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.run.compose import Experiment
from zoo.run.own import Layers
from zoo.spec.config import flatten
from zoo.spec.constraints import field_types
from zoo.spec.errors import UserError
from zoo.spec.registry import registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.data.tokens import Tokenizer

BACKBONE, EMBEDDING, OTHERS, HEAD = "encoder.backbone.", "encoder.embedding.", "encoder.", "head."
PARTS = {EMBEDDING: "embedding", OTHERS: "positions", HEAD: "head"}
NEVER = -1e4
"""Bias of the ids that a checkpoint does not predict; the run can learn them."""
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


@dataclass(frozen=True)
class Initial:
    """Weights to begin with, and what they were built with.

    record        which these are, as `zoo.spec.record.InitInfo`, and their folder
    architecture  its name
    settings      dotted keys that rebuild the backbone, and the tokenizer of a checkpoint
    tensors       by the names of our models
    task          of the run, as `_task_of`; "" for a checkpoint
    tokenizer     digest of what turns text into the ids of the embedding; None: they stand for no text
    answers       whether the head predicts tokens
    """

    record: Mapping[str, str]
    architecture: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    task: str = ""
    tokenizer: str | None = None
    answers: bool = False

    def layers(self, arch: str, task: str, layers: Layers) -> Layers:
        """The user's layers above what these weights were built with. Raises UserError for another architecture."""
        known, where = registry(), self.record["folder"]
        name = known.architecture(arch).record.name
        if self.architecture != name:
            raise UserError(f"--init {where}: holds {self.architecture}, not {name}: --arch {self.architecture}")
        # a user's own text is tokenized already
        cls: Any = known.task(task).record.load_options()
        options = {} if task in known.declared else field_types(cls)
        own = {key: x for key, x in self.settings.items() if not key.startswith("task.") or key[5:] in options}
        return [(f"--init {where}", own), *layers]


def load_initial(place: str, option: str = "--init ") -> Initial:
    """Load the weights of a run, by its folder or record, or of a checkpoint directory that `zoo.convert.load` reads.

    option  by which the user named them, for messages

    Raises UserError or DataError, which name the file.
    """
    from zoo.convert.checkpoint import is_checkpoint
    from zoo.run.trained import WEIGHTS

    path = Path(place)
    if not path.exists():
        raise UserError(f"{option}{place}: no such folder; expected that of a finished run, or of a checkpoint")
    if path.is_file() and path.suffix in PICKLES:
        raise UserError(f"{option}{place}: a pickle may run code when read; the folder of a finished run has {WEIGHTS}")
    folder = path.parent if path.is_file() and path.name == WEIGHTS else path
    return _of_checkpoint(folder) if folder.is_dir() and is_checkpoint(folder) else _of_run(str(folder))


def _of_run(place: str) -> Initial:
    from zoo.data.files import sha256
    from zoo.run.trained import WEIGHTS, load_trained

    trained = load_trained(place)
    made, tokenizer = trained.experiment, trained.data.tokenizer
    model = {key: made.config["model"][key] for key in ("d_model", "n_layers", "positions")} | {"mode": made.mode}
    settings = flatten({"model": model, "arch": made.config["arch"]})
    if made.arch_spec.capabilities.segment:
        settings["segments.length"] = made.segments.length
    return Initial(
        record=_record("run", trained.folder, made.id, sha256(trained.folder / WEIGHTS)),
        architecture=made.arch_spec.name,
        settings=settings,
        tensors=trained.model.state_dict(),
        task=_task_of(made),
        tokenizer=tokenizer.digest if tokenizer else None,
        answers=made.objective != "classify",
    )


def _of_checkpoint(folder: Path) -> Initial:
    from zoo.convert.checkpoint import TOKENIZER, ZOO_CONFIG, load_described, special_ids, sum_of_weights
    from zoo.convert.modules import LMHead, TokenEmbedding
    from zoo.data.tokens import load_tokenizer

    model, name, config = load_described(folder)
    sizes = {"d_model": model.dims.d_model, "n_layers": model.dims.n_layers, "mode": model.dims.mode}
    settings = flatten({"model": sizes, "arch": asdict(model.config)})
    tensors = {BACKBONE + key: tensor for key, tensor in model.backbone.state_dict().items()}
    tokenizer, embed = None, model.embed
    if isinstance(embed, TokenEmbedding) and embed.is_plain and (folder / TOKENIZER).is_file():
        tokenizer = load_tokenizer(str(folder / TOKENIZER))
        settings["task.tokenizer"] = str((folder / TOKENIZER).absolute())
        begin, end = special_ids(config)
        embedding = _in_our_ids(embed.tokens.weight * embed.scale, tokenizer, end if begin is None else begin)
        tensors[EMBEDDING + "weight"] = embedding
        if isinstance(model.head, LMHead):
            weight = _in_our_ids(model.head.decoder.weight * model.head.scale, tokenizer, begin if end is None else end)
            tensors |= {HEAD + "weight": weight, HEAD + "bias": (weight == 0).all(1) * NEVER}
    form = "zoo" if (folder / ZOO_CONFIG).is_file() else "huggingface"
    return Initial(
        record=_record(form, folder, folder.resolve().name, sum_of_weights(folder)),
        architecture=name,
        settings=settings,
        tensors=tensors,
        tokenizer=tokenizer.digest if tokenizer else None,
        answers=isinstance(model.head, LMHead),
    )


def _record(form: str, folder: Path, source: str, weights: str) -> dict[str, str]:
    return {"form": form, "source": source, "weights": weights, "folder": str(folder.absolute())}


def _in_our_ids(rows: Tensor, tokenizer: Tokenizer, end: int | None) -> Tensor:
    """Rows (V, D) by a checkpoint's ids as rows by those of tasks on text (zoo/data/tokens.py), 0 where it has none."""
    import torch

    n = min(tokenizer.size, len(rows))
    ours = torch.zeros(tokenizer.size + 3, rows.shape[1], dtype=rows.dtype)
    ours[1 : n + 1] = rows[:n].detach()
    if end is not None:
        ours[tokenizer.size + 1] = rows[end].detach()
    return ours


def describe_begun(experiment: Experiment, taken: Sequence[str], anew: Sequence[str]) -> str:
    """Say with which weights an experiment begins, as `initialise` returned it."""
    assert experiment.init is not None
    rest = f"; anew: {', '.join(anew)}" if anew else ""
    return f"{experiment.name} begins with the {', '.join(taken)} of {experiment.init['source']}{rest}"


def initialise(model: nn.Module, experiment: Experiment) -> tuple[list[str], list[str]]:
    """Give a new model the weights that its experiment begins with; return the parts that were taken, and those that
    begin anew.

    Raises UserError where the weights have changed since, or their backbone does not fit.
    """
    assert experiment.init is not None
    initial = load_initial(experiment.init["folder"])
    if initial.record["weights"] != experiment.init["weights"]:
        raise UserError(f"--init {experiment.init['folder']}: its weights have changed since the run was planned")
    own = model.state_dict()
    fits = {name for name in own if name in initial.tensors and initial.tensors[name].shape == own[name].shape}
    backbone = {name for name in {**own, **initial.tensors} if name.startswith(BACKBONE)}
    if backbone - fits:
        raise UserError(_describe_misfit(initial, experiment, own, sorted(backbone - fits)))
    same_task = initial.task == _task_of(experiment)
    same_ids = same_task or (initial.tokenizer is not None and initial.tokenizer == _tokenizer_digest(experiment))
    same_answers = same_task or (same_ids and initial.answers and experiment.objective != "classify")
    taken, anew = ["backbone"], list[str]()
    names, left = set(backbone), set(own) - backbone
    for prefix, fitting in ((EMBEDDING, same_ids), (OTHERS, True), (HEAD, same_answers)):
        part = {name for name in left if name.startswith(prefix)}
        left -= part
        if part and fitting and part <= fits:
            taken.append(PARTS[prefix])
            names |= part
        elif part:
            anew.append(PARTS[prefix])
    model.load_state_dict({name: initial.tensors[name] for name in names}, strict=False)
    return taken, anew


def _describe_misfit(initial: Initial, experiment: Experiment, own: Mapping[str, Tensor], names: Sequence[str]) -> str:
    name, here = names[0], flatten(experiment.config)
    shapes = [tuple(x[name].shape) if name in x else "none" for x in (initial.tensors, own)]
    more = f", and {len(names) - 1} more do not fit" if len(names) > 1 else ""
    changed = [f"{key}={value}" for key, value in initial.settings.items() if key in here and here[key] != value]
    remedy = f"it was built with {', '.join(changed)}" if changed else "it has weights for inputs of one length"
    of = initial.record["folder"]
    return f"--init {of}: {name}: shape {shapes[0]}, here {shapes[1]}{more}; {remedy}"


def _task_of(experiment: Experiment) -> str:
    """What says that two runs read the same ids and answer with the same: the name, of a user's own data its fields."""
    declared = {key: value for key, value in (experiment.declared or {}).items() if key != "settings"}
    return json.dumps([experiment.task, declared], sort_keys=True)


def _tokenizer_digest(experiment: Experiment) -> str | None:
    from zoo.run.trained import build_data

    tokenizer = build_data(experiment).tokenizer
    return tokenizer.digest if tokenizer else None
