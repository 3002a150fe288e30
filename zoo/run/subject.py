"""A trained model of whatever origin: a run's, a converted checkpoint's, or Hugging Face's.

A model of text reads the ids of tasks on text whatever it was trained by (zoo/data/tokens.py): its tokenizer's own
shifted by one, 0 pads, and behind them the symbol that begins and ends a text. B batch, L seq_len, V vocab_size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.convert import PretrainedModel
from zoo.convert.checkpoint import (
    HF_CONFIG,
    TOKENIZER,
    ZOO_CONFIG,
    is_checkpoint,
    load_described,
    special_ids,
    sum_of_weights,
)
from zoo.convert.modules import LMHead
from zoo.data.batch import Batch
from zoo.data.language import LanguageData
from zoo.data.questions import IGNORE
from zoo.data.tokens import JsonTokenizer, Tokenizer, load_tokenizer
from zoo.model.models import LMHeadModel, ModelOutput
from zoo.nn import at_least_float32
from zoo.nn.backbone import State
from zoo.run.initial import initialise, load_initial
from zoo.run.request import BenchRequest, resolve
from zoo.run.trained import WEIGHTS, RunLike, StrPath, TrainedModel, build_data, load_trained, rebuild
from zoo.spec.config import flatten
from zoo.spec.errors import ConfigError, UserError
from zoo.spec.record import Record
from zoo.spec.registry import registry
from zoo.spec.store import StoredRecord
from zoo.spec.written import parse_overrides


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated, or continues texts.

    name            the id of the run's record, or the name of the checkpoint's folder
    form            what it is
    folder          where it lies; of a module the current one
    architecture    its name in the registry
    weights         sha256 of its safetensors
    model           maps (Batch, state) to a ModelOutput; in evaluation mode, on the CPU
    objective       how it answers: causal_lm … classify
    vocab_size      ids that it reads; 0: it reads numbers
    tokenizer       what turns a text into its ids; None: it reads no text
    tokenizer_file  the value of `task.tokenizer` by which a task has its ids
    end             id of the symbol that begins a text, and what a decoder writes; 0: none does
    begins          whether texts stand behind it; None: as the tokenizer.json says
    stops           id of the symbol by which it ends one
    trained_len     the longest training input; None: not known
    carries         whether a state is carried from piece to piece of a running text
    trained         the run
    """

    name: str
    form: Literal["run", "zoo", "huggingface", "module"]
    folder: Path
    architecture: str
    weights: str
    model: Any
    objective: str
    vocab_size: int
    tokenizer: Tokenizer | None
    tokenizer_file: str
    trained_len: int | None
    carries: bool
    end: int = 0
    begins: bool | None = True
    stops: int | None = None
    trained: TrainedModel | None = None

    def encode(self, text: str, *, begins: bool | None = None) -> list[int]:
        """Ids of a text, behind the begin symbol where `begins`; None: where texts of the model stand behind it."""
        assert self.tokenizer is not None
        begins = self.begins if begins is None else begins
        if begins is None and isinstance(self.tokenizer, JsonTokenizer):
            return [token + 1 for token in self.tokenizer.library.encode(text).ids]
        ids = [int(token) + 1 for token in self.tokenizer.encode(text).ids]
        return [self.end, *ids] if begins and self.end else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; of a model that reads no text, the ids."""
        if self.tokenizer is None:
            return " ".join(map(str, ids))
        return self.tokenizer.decode([token - 1 for token in ids if 0 < token <= self.tokenizer.size])

    def for_length(self, length: int) -> Any:
        """The model for inputs of `length` tokens. Raises ConfigError where it has weights for fewer."""
        if self.trained is None:
            return self.model
        experiment, spec = self.trained.experiment, self.trained.experiment.model_spec
        if length <= spec.max_len:
            return self.model
        dims = spec.dims
        if not experiment.arch_spec.capabilities.segment:
            dims = replace(dims, max_len=length)
        return rebuild(self.trained, replace(spec, seq_len=length, max_len=length, dims=dims))


def load_subject(place: RunLike, *, runs: StrPath = "") -> Subject:
    """Load a run's model, by its folder or its record, or a checkpoint directory: of `zoo convert`, or a Hugging Face
    one that converts, with its tokenizer.json.

    runs  the folder of runs in which that of a record lies

    Raises UserError or DataError, which name the file.
    """
    if not isinstance(place, StoredRecord | Record):
        folder = Path(place)
        if folder.is_file() and folder.name in (WEIGHTS, HF_CONFIG, ZOO_CONFIG, TOKENIZER):
            folder = folder.parent
        if folder.is_dir() and is_checkpoint(folder):
            return _checkpoint(folder)
    return subject_of(load_trained(place, runs=runs))


def subject_of(trained: TrainedModel) -> Subject:
    """The model of a run."""
    experiment, data = trained.experiment, trained.data
    tokenizer, text = data.tokenizer, isinstance(data, LanguageData)
    end = 0 if experiment.objective == "classify" else data.specials.end
    return Subject(
        name=trained.name,
        form="run",
        folder=trained.folder,
        architecture=experiment.arch_spec.name,
        weights=sum_of_weights(trained.folder),
        model=trained.model,
        objective=experiment.objective,
        vocab_size=0 if experiment.model_spec.channels else experiment.vocab_size,
        tokenizer=tokenizer,
        tokenizer_file=experiment.config["task"]["tokenizer"] if tokenizer else "",
        trained_len=experiment.seq_len,
        carries=experiment.arch_spec.capabilities.carries_text(experiment.mode),
        end=end,
        begins=text and experiment.objective != "seq2seq",
        stops=end if text or experiment.objective == "seq2seq" else None,
        trained=trained,
    )


def load_on_task(
    place: RunLike,
    task: str = "",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    runs: StrPath = "",
) -> TrainedModel:
    """Load a run's model with its own task; or with `task` that of a run's folder or of a checkpoint, as if it had been
    trained for that task, whose tokens it reads and predicts.

    overrides  settings of that task, above those of its protocol `quick`. A checkpoint does not say how long the texts
               were that it was trained on: the task's length stands for that

    Raises UserError or DataError, which say what does not fit.
    """
    if not task:
        if overrides:
            raise UserError("--set: the settings of --task; a run has its own")
        return load_trained(place, runs=runs)
    if isinstance(place, StoredRecord | Record):
        raise UserError(f"--task {task}: of a model that is named by its folder")
    initial = load_initial(str(place), option="")
    own = parse_overrides(overrides)
    request = BenchRequest.parse(initial.architecture, task, overrides=own, init=str(place))
    (experiment,) = resolve(request)
    source = initial.record["source"]
    experiment = replace(experiment, overrides={**flatten(own), "init": source})
    model = experiment.kind.build_model(experiment.model_spec)
    _, anew = initialise(model, experiment)
    if anew:
        raise UserError(f"{source} has no {' and no '.join(anew)} for {task}: it reads or answers in other tokens")
    model.to(next(iter(initial.tensors.values())).dtype)
    return TrainedModel(Path(place), experiment, model.eval(), build_data(experiment), {}, source)


def as_subject(model: nn.Module, tokenizer: str, begin: int) -> Subject:
    """A module that predicts the next token: a `zoo.LanguageModel`, or one of `zoo.convert.load`.

    tokenizer  bytes, or the path of a tokenizer.json; the model's ids are its own
    begin      the model's id of the symbol that begins a text

    Raises ConfigError for another module.
    """
    model = getattr(model, "lm", model)
    if not isinstance(model, PretrainedModel | LMHeadModel) or model.objective != "causal_lm":
        given = type(model).__name__
        raise ConfigError("model", f"{given} is no run, checkpoint or model that predicts the next token")
    read = load_tokenizer(tokenizer)
    _check_ids("model", read, begin, model)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    capabilities = model.capabilities
    return Subject(
        name=f"{model.architecture}-{digest.hexdigest()[:12]}",
        form="module",
        folder=Path(),
        architecture=model.architecture,
        weights=digest.hexdigest(),
        model=CheckpointLM(model, begin, read.size + 1).eval(),
        objective=model.objective,
        vocab_size=read.size + 3,
        tokenizer=read,
        tokenizer_file=tokenizer,
        trained_len=model.max_len if isinstance(model, LMHeadModel) else None,
        carries=capabilities.carries_text("causal"),
        end=read.size + 1,
        stops=begin + 1,
    )


def _checkpoint(folder: Path) -> Subject:
    model, name, config = load_described(folder)
    if model.objective not in ("causal_lm", "seq2seq"):
        given = next(iter(config.get("architectures") or ()), f"a model of type {config.get('model_type')}")
        raise UserError(f"{folder}: {given} predicts no next token, by which texts are scored and continued")
    tokenizer = _tokenizer_of(folder)
    begin, end = special_ids(config)
    if model.objective == "seq2seq":
        begin = config.get("decoder_start_token_id", config.get("pad_token_id", begin))
    begin = end if begin is None else begin
    if begin is None:
        raise UserError(f"{folder / HF_CONFIG}: neither bos_token_id nor eos_token_id: no symbol begins a text")
    _check_ids(str(folder), tokenizer, begin, model)
    return Subject(
        name=folder.resolve().name,
        form="zoo" if (folder / ZOO_CONFIG).is_file() else "huggingface",
        folder=folder,
        architecture=name,
        weights=sum_of_weights(folder),
        model=CheckpointLM(model, begin, tokenizer.size + 1).eval(),
        objective=model.objective,
        vocab_size=tokenizer.size + 3,
        tokenizer=tokenizer,
        tokenizer_file=str((folder / TOKENIZER).absolute()),
        trained_len=None,
        carries=registry().architecture(name).record.capabilities.carries_text(model.dims.mode),
        end=tokenizer.size + 1,
        begins=None,
        stops=None if end is None else end + 1,
    )


def _check_ids(where: str, tokenizer: Tokenizer, begin: int, model: PretrainedModel | LMHeadModel) -> None:
    """Raise UserError for ids that the model has no vector for."""
    head = model.head.decoder if isinstance(model.head, LMHead) else model.head
    assert isinstance(head, nn.Linear)
    last = max(tokenizer.size - 1, begin)
    if last >= head.out_features:
        raise UserError(f"{where}: ids up to {last:,} by {tokenizer.name}, and the model has {head.out_features:,}")


def _tokenizer_of(folder: Path) -> Tokenizer:
    if not (folder / TOKENIZER).is_file():
        others = [name for name in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / name).is_file()]
        there = f"; {others[0]} is not read" if others else ""
        raise UserError(f"{folder}: no {TOKENIZER}, by which a text becomes its ids{there}; copy the model's there")
    return load_tokenizer(str(folder / TOKENIZER))


class CheckpointLM(nn.Module):
    """A language model of its tokenizer's own ids that reads and gives the ids of tasks on text.

    begin  its own id of the symbol that begins a text
    end    ours

    It has what `zoo.generate` needs, and maps batches as the models of `zoo.model` do.
    """

    def __init__(self, model: PretrainedModel | LMHeadModel, begin: int, end: int) -> None:
        super().__init__()
        self.model, self.begin, self.end = model, begin, end
        self.objective, self.capabilities, self.backbone = model.objective, model.capabilities, model.backbone

    def embed(self, tokens: Tensor, mask: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """tokens (B, L) -> (B, L, D)"""
        assert self.model.embed is not None
        return self.model.embed(self._own(tokens), mask, start)

    def _own(self, tokens: Tensor) -> Tensor:
        return torch.where(tokens == self.end, self.begin, (tokens - 1).clamp_min(0))

    def _ours(self, logits: Tensor) -> Tensor:
        return F.pad(at_least_float32(logits), (1, 0), value=-torch.inf)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """hidden (…, D) -> (…, V), at least float32; a pad is never predicted."""
        return self._ours(self.model.compute_logits(hidden))

    def next_logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, V) after the last real token of each row: tokens (B, L), mask (B, L), pads at the end."""
        return self._ours(self.model.next_logits(self._own(tokens), mask))

    def forward(self, batch: Batch, state: State = None) -> ModelOutput:
        """One answer per label, as of `LMHeadModel`."""
        if isinstance(self.model, LMHeadModel):
            labels = torch.where(batch.labels == IGNORE, IGNORE, batch.labels - 1)
            output = self.model(batch._replace(inputs=self._own(batch.inputs), labels=labels), state)
            return output._replace(logits=self._ours(output.logits), labels=output.labels + 1)
        out = self.backbone(self.embed(batch.inputs, batch.mask), mask=batch.mask, state=state)
        scored = batch.labels != IGNORE
        logits = self.compute_logits(out.hidden[scored])
        return ModelOutput(logits, batch.labels[scored], scored.nonzero()[:, 0], out.aux, out.state)
