"""What an experiment is, and how presets and overrides compose into one configuration tree. No torch here.

Later wins: the frame's defaults < the protocol's settings of the task < the architecture's preset for (task,
protocol) < the user's file < `--set`. The tree is structured: an unknown key or a wrong type is an error that names
the key, the nearest valid ones and where it came from.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zoo.run.identity import config_hash, later_keys
from zoo.run.settings import NOT_IDENTITY, SECTIONS
from zoo.run.validate import check
from zoo.spec.architecture import Architecture, Mode, ModelDims, Objective
from zoo.spec.constraints import describe_fields
from zoo.spec.errors import ConfigError, UserError, did_you_mean
from zoo.spec.layers import flatten, lay_over
from zoo.spec.registry import Entry, registry
from zoo.spec.task import PROTOCOLS, Task

OBJECTIVES: dict[Mode, Objective] = {"causal": "causal_lm", "bidirectional": "infilling", "seq2seq": "seq2seq"}


@dataclass(frozen=True)
class Experiment:
    """One (architecture, task, protocol, configuration, seed): everything a run needs and a record repeats."""

    architecture: Entry[Architecture]
    task: Entry[Task]
    protocol: str
    seed: int
    tree: DictConfig
    origins: Mapping[str, str]
    overrides: Mapping[str, Any]
    match: tuple[str, int] | None = None
    """The baseline whose number of parameters the width was solved for, and that number."""

    @property
    def values(self) -> dict[str, Any]:
        """The resolved tree as plain containers."""
        return OmegaConf.to_container(self.tree, resolve=True)  # type: ignore[return-value]

    @property
    def hash(self) -> str:
        """Identity of the configuration (12 hex digits); the seed is apart."""
        return config_hash(
            architecture=f"{self.architecture.provenance.distribution}:{self.architecture.record.name}",
            task=f"{self.task.provenance.distribution}:{self.task.record.name}",
            task_version=self.task.record.version,
            protocol=self.protocol,
            values=self.values,
            later=later_keys(self.architecture.record, self.task.record),
        )

    @property
    def mode(self) -> Mode:
        """The mode that the run uses, `auto` resolved."""
        wanted = self.tree.model.mode
        if wanted != "auto":
            return wanted
        modes = self.architecture.record.capabilities.modes
        order: tuple[Mode, ...] = ("causal", "seq2seq", "bidirectional")
        if self.classifies:
            order = ("bidirectional", "causal", "seq2seq")
        return next(mode for mode in order if mode in modes)

    @property
    def classifies(self) -> bool:
        """Whether the answers are classes; else they are tokens."""
        return self.task.record.kind in ("classification", "pair_classification")

    @property
    def objective(self) -> Objective:
        """How the task is put to the architecture (see zoo/data/questions.py)."""
        if self.classifies:
            return "classify"
        return OBJECTIVES[self.mode]

    @property
    def carries(self) -> bool:
        """Whether a state is carried from one piece of a running text to the next.

        Absolute positions that the frame adds begin anew with every piece, so what such an architecture remembers
        of the piece before would stand at wrong places: it reads each piece alone.
        """
        capable = self.architecture.record.capabilities
        return (
            self.task.record.kind == "language_modeling"
            and self.mode == "causal"
            and capable.state != "none"
            and capable.positions == "internal"
        )

    @property
    def arch_config(self) -> Any:
        """An instance of the plugin's configuration dataclass."""
        return self.architecture.record.load_config()(**self.values["arch"])

    @property
    def task_options(self) -> Any:
        """An instance of the task's options dataclass."""
        return self.task.record.load_options()(**self.values["task"])

    @property
    def seq_len(self) -> int:
        """The longest example of the run: the task's option `seq_len` if it has one, else the task's length."""
        return int(self.tree.task.get("seq_len", 0) or self.task.record.length)

    @property
    def longest(self) -> int:
        """What the model is built for: the longest sequence of any split (a property `longest` of the task's options),
        or that of training alone where the architecture has weights for one length."""
        if self.architecture.record.capabilities.length == "fixed":
            return self.seq_len
        return int(getattr(self.task_options, "longest", self.seq_len))

    @property
    def vocab_size(self) -> int:
        """Token ids: those of the task, or more where its options add tokens (a property `vocab_size` of theirs)."""
        return int(getattr(self.task_options, "vocab_size", self.task.record.vocab_size))

    @property
    def chance(self) -> float:
        """The score of a uniform guess: the task's, or what its options make of it (a property `chance` of theirs)."""
        return float(getattr(self.task_options, "chance", self.task.record.chance))

    @property
    def dims(self) -> ModelDims:
        """What the run decides about the backbone."""
        cls_token = self.tree.model.pool == "cls"
        longest = self.longest + cls_token
        if self.architecture.record.capabilities.segment:
            longest = min(longest, self.tree.segments.length)
        return ModelDims(
            d_model=self.tree.model.d_model, n_layers=self.tree.model.n_layers, mode=self.mode, max_len=longest
        )

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return math.ceil(self.tree.train.max_samples / self.tree.train.batch_size)

    @property
    def name(self) -> str:
        """How the run is called in messages."""
        return f"{self.architecture.record.name} on {self.task.record.name} ({self.protocol}, seed {self.seed})"


def compose(
    architecture: Entry[Architecture],
    task: Entry[Task],
    *,
    protocol: str = "quick",
    seed: int = 0,
    file: Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Experiment:
    """Compose and check one experiment.

    overrides  `key=value` strings as after `--set`, or a mapping of dotted keys
    Raises ConfigError (unknown key, wrong type, impossible combination) or UserError.
    """
    arch, duty = architecture.record, task.record
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}")
    if protocol not in duty.protocols:
        raise UserError(f"{duty.name} has no protocol {protocol!r}{did_you_mean(protocol, duty.protocols)}")
    tree = OmegaConf.create(
        {name: OmegaConf.structured(cls) for name, cls in SECTIONS.items()}
        | {"arch": OmegaConf.structured(arch.load_config()), "task": OmegaConf.structured(duty.load_options())}
    )
    OmegaConf.set_struct(tree, True)
    told_by: dict[str, str] = {}

    def apply(layer: Mapping[str, Any], origin: str) -> None:
        told_by.update(dict.fromkeys(lay_over(tree, layer, origin), origin))

    of_protocol = f"protocol {protocol} of {duty.name}"
    apply(duty.protocols[protocol], of_protocol)
    preset = arch.load_presets().get((duty.name, protocol))
    if preset is not None:
        for key, value in preset.values.items():
            apply({key: value}, f"preset ({duty.name}, {protocol}) of {arch.name}: {preset.source(key)}")
    before = flatten(OmegaConf.to_container(tree, resolve=True))  # type: ignore[arg-type]
    own = flatten(read_file(file)) if file is not None else {}
    apply(own, f"file {file}")
    own |= (told := flatten(parse_overrides(overrides)))
    apply(told, "--set")
    after = flatten(OmegaConf.to_container(tree, resolve=True))  # type: ignore[arg-type]
    experiment = Experiment(
        architecture=architecture,
        task=task,
        protocol=protocol,
        seed=seed,
        tree=tree,
        origins={key: told_by.get(key, "default") for key in after},
        overrides={k: v for k, v in after.items() if v != before[k] and k not in NOT_IDENTITY},
    )
    baseline = tree.model.match_params_of
    if baseline and baseline != arch.name and told_by.get("model.d_model", "default") in ("default", of_protocol):
        experiment = _matched(experiment, baseline, own)
    OmegaConf.set_readonly(experiment.tree, True)
    try:
        check(experiment)
    except ConfigError as error:
        raise ConfigError(error.key, error.message, origin=_origins_of(error, experiment.origins)) from error
    return experiment


SIZES = ("model.n_layers", "model.positions", "model.head", "model.d_head", "model.pool", "model.d_model")
"""What the user may set that the baseline follows, besides everything of the task."""


def _matched(experiment: Experiment, baseline: str, own: Mapping[str, Any]) -> Experiment:
    """The experiment with the width at which it has as many parameters as the baseline under the same protocol."""
    from zoo.model.classifier import count_parameters
    from zoo.run.match import TOLERANCE, solve

    try:
        entry = registry().architecture(baseline)
    except UserError as error:
        raise ConfigError(
            "model.match_params_of", str(error), origin=experiment.origins["model.match_params_of"]
        ) from error
    followed = {key: value for key, value in own.items() if key in SIZES or key.startswith("task.")}
    reference = compose(entry, experiment.task, protocol=experiment.protocol, overrides=followed)

    def with_width(width: int) -> Experiment:
        tree = copy.deepcopy(experiment.tree)
        tree.model.d_model = width
        return dataclasses.replace(experiment, tree=tree)

    def count(width: int) -> int:
        wide = with_width(width)
        check(wide)
        return count_parameters(wide)

    found = solve(count, count_parameters(reference), experiment.tree.model.d_model)
    origin = f"solved: {found.parameters:,} parameters, {100 * found.off:+.1f} % of {baseline}'s {found.wanted:,}"
    if not found.matched:
        origin += f"; no width comes within {100 * TOLERANCE:.0f} %"
    origins = {**experiment.origins, "model.d_model": origin}
    return dataclasses.replace(with_width(found.width), origins=origins, match=(baseline, found.wanted))


def _origins_of(error: ConfigError, origins: Mapping[str, str]) -> str | None:
    """Where the key at fault came from, and every other key that its message names and somebody set."""
    words = set(re.findall(r"[a-z_]+", error.message))
    others = [
        f"{key} from {origin}"
        for key, origin in origins.items()
        if key != error.key and key.rpartition(".")[2] in words and origin != "default"
    ]
    return "; ".join(filter(None, [origins.get(error.key), *others])) or None


def parse_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """`["model.d_model=64"]` -> {"model.d_model": 64}; mappings (nested or dotted) pass through."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    parsed: dict[str, Any] = {}
    for item in overrides:
        key, equals, _ = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {item!r}: expected key=value, such as model.d_model=128")
        try:
            parsed.update(flatten(OmegaConf.to_container(OmegaConf.from_dotlist([item.strip()]))))  # type: ignore[arg-type]
        except Exception as error:
            raise UserError(f"--set {item!r}: {' '.join(str(error).split())}") from error
    return parsed


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file of nested or dotted keys."""
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise UserError(f"--config {path}: no such file") from None
    except Exception as error:
        raise UserError(f"--config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"--config {path}: expected a mapping of configuration keys")
    return {str(k): v for k, v in loaded.items()}


def documentation(experiment: Experiment) -> dict[str, str]:
    """Dotted key -> help text, for the whole tree."""
    nodes: Iterable[tuple[str, type]] = [
        *SECTIONS.items(),
        ("arch", experiment.architecture.record.load_config()),
        ("task", experiment.task.record.load_options()),
    ]
    return {f"{node}.{name}": text for node, cls in nodes for name, _, _, text in describe_fields(cls)}
