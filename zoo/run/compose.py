"""Experiments and jobs, and how presets and overrides compose into one configuration tree.

Later wins: the frame's defaults < the protocol's settings of the task < the architecture's preset for (task,
protocol) < the user's file < `--set`. An unknown key or a value that its field may not have is an error that names the
key, the nearest valid ones and where the value came from. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from zoo.kinds import TaskKind
from zoo.model.spec import ModelSpec
from zoo.run.provenance import source_hash
from zoo.spec.architecture import Architecture, Mode, ModelDims, Objective
from zoo.spec.config import (
    config_hash,
    defaults,
    describe_values,
    flatten,
    nest,
    sections,
    shape_hash,
    validate_layer,
)
from zoo.spec.constraints import build_config, describe_fields
from zoo.spec.errors import UserError, did_you_mean
from zoo.spec.registry import Entry, registry
from zoo.spec.settings import NOT_IDENTITY, ModelSettings, OptimSettings, SegmentSettings, TrainSettings
from zoo.spec.task import PROTOCOLS, Task


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One (architecture, task, protocol, configuration, seed): everything a run needs and a record repeats.

    The fields are plain values (JSON); the properties resolve them.

    architecture, task  names in the registry
    config              the resolved configuration tree, nested
    origins             dotted key -> where its value came from
    overrides           dotted key -> value that the user changed and that changes what is computed
    baseline            the architecture whose number of parameters the width is to be solved for; "" = the width is set
    sweep               {"seed", "trials"} of the sweep that it belongs to, or None
    declared            the task of a user's own data, which no plugin registers: its fields (`Registry.declare`), and
                        under "settings" what the user set for all architectures; None for other tasks
    init                the weights that it begins with, as `zoo.run.initial.Initial.record`, or None
    matched             {"architecture", "parameters"} of the baseline that the width was solved for, or None
    """

    architecture: str
    task: str
    protocol: str
    seed: int = 0
    config: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""
    matched: Mapping[str, Any] | None = None
    sweep: Mapping[str, Any] | None = None
    declared: Mapping[str, Any] | None = None
    init: Mapping[str, str] | None = None

    @property
    def arch_entry(self) -> Entry[Architecture]:
        return registry().architecture(self.architecture)

    @cached_property
    def task_entry(self) -> Entry[Task]:
        if self.declared is None:
            return registry().task(self.task)
        # other processes have not declared it, or another of its name
        return registry().entry_of({key: value for key, value in self.declared.items() if key != "settings"})

    @property
    def arch_spec(self) -> Architecture:
        return self.arch_entry.record

    @property
    def task_spec(self) -> Task:
        return self.task_entry.record

    @property
    def kind(self) -> TaskKind:
        """The kind of the task: collating, heads and metrics."""
        return self.task_spec.load_kind()

    # -- sections of the configuration as their dataclasses --------------------------------------------------------

    @cached_property
    def model(self) -> ModelSettings:
        return ModelSettings(**self.config["model"])

    @cached_property
    def segments(self) -> SegmentSettings:
        return SegmentSettings(**self.config["segments"])

    @cached_property
    def optim(self) -> OptimSettings:
        return OptimSettings(**self.config["optim"])

    @cached_property
    def train(self) -> TrainSettings:
        return TrainSettings(**self.config["train"])

    @cached_property
    def arch_config(self) -> Any:
        """An instance of the plugin's configuration dataclass."""
        return build_config(self.arch_spec.load_config(), self.config["arch"])

    @cached_property
    def task_options(self) -> Any:
        """An instance of the task's options dataclass."""
        return build_config(self.task_spec.load_options(), self.config["task"])

    # -- what follows from them --------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """The mode that the run uses, `auto` resolved."""
        if self.model.mode != "auto":
            return self.model.mode
        return next(mode for mode in self.kind.modes if mode in self.arch_spec.capabilities.modes)

    @property
    def objective(self) -> Objective:
        """How the task is put to the architecture (see zoo/data/questions.py)."""
        return self.kind.objective(self.mode)

    @property
    def stateful(self) -> bool:
        """Whether a state is carried from one piece of a running text to the next."""
        return self.kind.running_text and self.arch_spec.capabilities.carries_text(self.mode)

    @property
    def seq_len(self) -> int:
        """The longest training example: the task's option `seq_len` if it has one, else the task's length."""
        return int(self.config["task"].get("seq_len", 0) or self.task_spec.length)

    @property
    def max_len(self) -> int:
        """The longest example of any split (a property `longest` of the task's options), or of training alone where
        the architecture has weights for one length."""
        if self.arch_spec.capabilities.length == "fixed":
            return self.seq_len
        return int(getattr(self.task_options, "longest", self.seq_len))

    @property
    def vocab_size(self) -> int:
        """Token ids: those of the task, or of its options (a property `vocab_size`) where they add tokens."""
        return int(getattr(self.task_options, "vocab_size", self.task_spec.vocab_size))

    @property
    def metric(self) -> tuple[str, bool]:
        """The ranked score and whether higher is better: the task's, or of its options (a property `metric`)."""
        own: tuple[str, bool] | None = getattr(self.task_options, "metric", None)
        return own or (self.task_spec.metrics[0], self.task_spec.higher_is_better)

    @property
    def chance(self) -> float | None:
        """The score of a uniform guess: the task's, or of its options (a property `chance`); None: there is none."""
        chance = getattr(self.task_options, "chance", self.task_spec.chance)
        return None if chance is None else float(chance)

    @property
    def dims(self) -> ModelDims:
        """The dimensions that the run gives to the backbone."""
        max_len = self.max_len + (self.model.pool == "cls")
        if self.arch_spec.capabilities.segment:
            max_len = min(max_len, self.segments.length)
        return ModelDims(d_model=self.model.d_model, n_layers=self.model.n_layers, mode=self.mode, max_len=max_len)

    @property
    def model_spec(self) -> ModelSpec:
        """The specification of the model."""
        from zoo.model.segments import SegmentPlan

        model, segments, capabilities = self.model, self.segments, self.arch_spec.capabilities
        plan = SegmentPlan()
        if capabilities.segment:
            plan = SegmentPlan(
                length=segments.length,
                align=segments.align,
                tbptt=segments.tbptt or None,
                activation_checkpointing=segments.activation_checkpointing,
            )
        return ModelSpec(
            architecture=self.arch_spec,
            arch_config=self.arch_config,
            dims=self.dims,
            vocab_size=self.vocab_size,
            n_classes=self.task_spec.classes,
            channels=self.task_spec.channels or int(getattr(self.task_options, "input", "tokens") == "values"),
            seq_len=self.seq_len,
            max_len=self.max_len,
            objective=self.objective,
            positions=model.positions if capabilities.positions == "external" else "",
            pool=model.pool,
            d_head=(model.d_head or 2 * model.d_model) if model.head == "mlp" else 0,
            dropout=model.dropout,
            segment_plan=plan,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return math.ceil(self.train.max_samples / self.train.batch_size)

    @property
    def cost_only(self) -> bool:
        """Whether the protocol's budget is too small to learn the task."""
        return self.protocol in self.task_spec.cost_only

    @property
    def code_hash(self) -> str:
        """sha256 over the sources of zoo, the plugin and the task."""
        return source_hash("zoo", self.arch_spec.backbone, self.arch_spec.config, self.task_spec.data)

    @property
    def id(self) -> str:
        """The id of its record."""
        names = f"{self.protocol}/{self.task_spec.name}/{self.arch_spec.name}"
        return f"{names}/{self.hash}-s{self.seed}"

    @property
    def shape(self) -> str:
        """Identity of what a step costs (zoo/spec/cost.py)."""
        arch, task = self.arch_entry, self.task_spec
        names = (arch.plugin.distribution, arch.record.name, arch.record.version)
        return shape_hash(names, (task.name, task.version), self.protocol, self.config)

    @property
    def name(self) -> str:
        """The run's name in messages."""
        trial = f"{describe_values(self.config, self.sweep['trials'][0])}, " if self.sweep else ""
        return f"{self.architecture} on {self.task} ({self.protocol}, {trial}seed {self.seed})"

    @property
    def hash(self) -> str:
        """Identity of the configuration (zoo/spec/config.py); the seed is apart."""
        weights = self.init["weights"] if self.init else ""
        return config_hash(self.arch_entry, self.task_entry, self.protocol, self.config, self.sweep, weights)

    def begun_with(self, init: Mapping[str, str]) -> Experiment:
        """The same experiment with weights to begin with, which modify its protocol."""
        return replace(self, init=init, overrides={**self.overrides, "init": init["source"]})


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, ready to be executed here or in another process: plain values only.

    results, runs, max_time, force, command  as in BenchRequest
    """

    experiment: Experiment
    results: str
    runs: str
    max_time: float | None = None
    force: bool = False
    command: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The job that `asdict` gave these values of."""
        return cls(**{**values, "experiment": Experiment(**values["experiment"])})


def compose(
    architecture: str,
    task: str,
    *,
    protocol: str = "quick",
    seed: int = 0,
    layers: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Experiment:
    """Compose one experiment from its layers; `plan` then matches its width and validates it.

    layers  (origin, dotted keys) of the user, later wins; see `user_layers`

    Raises ConfigError (unknown key, wrong type) or UserError.
    """
    known = registry()
    arch_spec, task_spec = known.architecture(architecture).record, known.task(task).record
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}")
    if protocol not in task_spec.protocols:
        raise UserError(f"{task_spec.name} has no protocol {protocol!r}{did_you_mean(protocol, task_spec.protocols)}")
    dataclasses = sections(arch_spec, task_spec)
    values = defaults(dataclasses)
    origins = dict.fromkeys(values, "default")

    def apply(layer: Mapping[str, Any], origin: str) -> None:
        values.update(validate_layer(layer, dataclasses, origin))
        origins.update(dict.fromkeys(flatten(layer), origin))

    from_protocol = f"protocol {protocol} of {task_spec.name}"
    apply(task_spec.protocols[protocol], from_protocol)
    preset = arch_spec.load_presets().get((task_spec.name, protocol))
    if preset is not None:
        from_preset = f"preset ({task_spec.name}, {protocol}) of {arch_spec.name}"
        for key, source in preset.sources.items():
            apply({key: preset.values[key]}, f"{from_preset}: {source}")
    before = dict(values)
    for origin, layer in layers:
        apply(layer, origin)
    changed = {k: v for k, v in values.items() if v != before[k] and k not in NOT_IDENTITY}
    declared = known.declared.get(task)
    if declared is not None:
        # what is set for all architectures alike modifies no protocol that anybody published: it is that of the data
        swept = {key for origin, layer in layers if origin == "--sweep" for key in flatten(layer)}
        shared = {k: v for k, v in changed.items() if not k.startswith("arch.") and k not in swept}
        changed = {k: v for k, v in changed.items() if k not in shared}
        declared = {**declared, "settings": shared}
    return Experiment(
        architecture=architecture,
        task=known.resolve_alias(task),
        protocol=protocol,
        seed=seed,
        config=nest(values),
        origins=origins,
        overrides=changed,
        baseline=values["model.match_params_of"] if origins["model.d_model"] in ("default", from_protocol) else "",
        declared=declared,
    )


def with_width(experiment: Experiment, d_model: int, **changes: Any) -> Experiment:
    """The same experiment with another width."""
    model = {**experiment.config["model"], "d_model": d_model}
    return replace(experiment, config={**experiment.config, "model": model}, **changes)


def documentation(experiment: Experiment) -> dict[str, str]:
    """Dotted key -> help text, for the whole tree."""
    dataclasses = sections(experiment.arch_spec, experiment.task_spec)
    return {f"{node}.{key}": text for node, cls in dataclasses.items() for key, _, _, text in describe_fields(cls)}


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """The experiment with other values of some keys."""
    return replace(experiment, config=nest({**flatten(experiment.config), **settings}))


def at_length(experiment: Experiment, seq_len: int) -> Experiment:
    """The experiment with examples of `seq_len` tokens, and about as many tokens a step; itself where it has them.

    Raises UserError for a task whose length cannot be set, ConfigError for a length that it does not take.
    """
    if "seq_len" not in experiment.config["task"]:
        raise UserError(f"{experiment.task}: has no option seq_len, so that nothing can be read at another length")
    if seq_len == experiment.seq_len:
        return experiment
    train = experiment.train
    rows = max(train.batch_size * experiment.seq_len // seq_len, 1)
    sizes = {"train.batch_size": rows, "train.micro_batch_size": min(train.micro_batch_size, rows)}
    other = with_settings(experiment, {**length_settings(experiment, seq_len), **sizes})
    other.task_spec.check(other.task_options)
    return other


def length_options(options: Mapping[str, Any], seq_len: int) -> dict[str, Any]:
    """The options of a task by which its examples have `seq_len` tokens: lists of lengths have this one."""
    lists = [name for name, value in options.items() if name.endswith("_lengths") and value]
    return {"seq_len": seq_len, **{name: [seq_len] for name in lists}}


def length_settings(experiment: Experiment, seq_len: int) -> dict[str, Any]:
    """The same for an experiment's task, by configuration keys: `task.seq_len` and others."""
    options = length_options(experiment.config["task"], seq_len)
    return {f"task.{name}": value for name, value in options.items()}
