"""What an architecture says of itself, before anything of it is imported. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from zoo.spec.dims import Mode as Mode
from zoo.spec.dims import ModelDims as ModelDims
from zoo.spec.errors import ConfigError, UserError, ZooError
from zoo.spec.loading import load_object

if TYPE_CHECKING:
    from zoo.convert.conversion import Conversion
    from zoo.nn.backbone import Backbone

API = 1
"""The interface number that this version of the frame speaks; a record with another one is refused by name."""

Objective = Literal["classify", "causal_lm", "infilling", "seq2seq"]
StateKind = Literal["none", "recurrent", "memory"]
LengthKind = Literal["any", "max", "fixed", "multiple"]
Positions = Literal["external", "internal"]

NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """Where an architecture or a task was published."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The implementation that the plugin is checked against."""

    project: str
    path: str
    commit: str
    license: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Growth with the sequence length L, as text for people and as an exponent that a check measures."""

    time: str
    memory: str
    time_exponent: float
    memory_exponent: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What an architecture is defined for. Each entry turns a conformance check on.

    modes         "causal", "bidirectional" or both; "seq2seq" for encoder-decoders
    state         "none" | "recurrent" (S4, Mamba …) | "memory" (Transformer-XL …)
    chunk_exact   pieces with carried state equal one call
    state_grad    gradient may flow through the carried state; otherwise the backbone detaches what it emits
    step          `step()` exists and equals `forward`
    segment       long inputs must be fed segment by segment
    length        "any" | "max" (positions run out) | "fixed" (weights of one length; shorter is fine) |
                  "multiple" (the backbone pads and crops, nobody sees it)
    positions     "external": the frame adds absolute positions to the embedding | "internal": none needed
    aux           names of the auxiliary losses that `forward` may return
    """

    modes: frozenset[str]
    state: StateKind = "none"
    chunk_exact: bool = False
    state_grad: bool = False
    step: bool = False
    segment: bool = False
    length: LengthKind = "any"
    positions: Positions = "internal"
    aux: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", frozenset(self.modes))
        unknown = self.modes - set(get_args(Mode))
        if unknown or not self.modes:
            raise ValueError(f"modes {sorted(self.modes)}: expected a non-empty subset of {sorted(get_args(Mode))}")
        for name, allowed in (("state", StateKind), ("length", LengthKind), ("positions", Positions)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {list(get_args(allowed))}")
        if (self.chunk_exact or self.state_grad or self.step) and self.state == "none":
            raise ValueError("chunk_exact, state_grad and step need state='recurrent' or 'memory'")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Hyperparameters of one (task, protocol), each with its source.

    `values` maps dotted configuration keys (`model.d_model`, `arch.d_state`, `optim.lr` …) to values; `sources`
    says for each key (or, under `"*"`, for all that have none of their own) where the number is from: a paper's
    table, `project path@commit`, or `ours, because …`. `expected` is the score that the source reports.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    expected: float | None = None

    def __post_init__(self) -> None:
        bare = [k for k in self.values if k not in self.sources and "*" not in self.sources]
        if bare:
            raise ValueError(f"preset values without a source: {', '.join(bare)}")

    def source(self, key: str) -> str:
        """Where the value of `key` comes from."""
        return self.sources.get(key, self.sources.get("*", ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """A score that a paper reports. Shown beside measured scores, never averaged with them."""

    task: str
    metric: str
    value: float
    source: str
    table: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One architecture, as `zoo_architectures()` yields it. Nothing it names is imported before it is used.

    backbone   "package.module:Class", a `zoo.Backbone` built from (config, dims)
    config     "package.module:Dataclass"; the docstring under a field is its help text. It may define
               `check(self, dims) -> None`, which raises `zoo.ConfigError(field, why)` for impossible combinations
    presets    "package.module:PRESETS", a mapping (task, protocol) -> Preset; empty when there are none
    reported   "package.module:REPORTED", a sequence of Reported; empty when there are none
    conversion "package.module:CONVERSION", a zoo.convert.Conversion; empty when there is none
    card       file name of the card beside the plugin's `__init__.py`
    """

    name: str
    title: str
    family: str
    paper: Paper
    reference: Reference | None
    backbone: str
    config: str
    capabilities: Capabilities
    cost: Cost
    presets: str = ""
    reported: str = ""
    conversion: str = ""
    card: str = "README.md"
    api: int = API

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"architecture name {self.name!r}: expected lower-case letters, digits and underscores")

    def load_config(self) -> type[Any]:
        """The plugin's configuration dataclass."""
        cls = load_object(self.config, what=f"configuration of {self.name}")
        if not (isinstance(cls, type) and is_dataclass(cls)):
            raise ZooError(f"configuration of {self.name}: {self.config} is not a dataclass")
        return cls

    def load_backbone(self) -> type[Backbone]:
        """The plugin's backbone class; the first thing that imports torch."""
        from zoo.nn.backbone import Backbone

        cls = load_object(self.backbone, what=f"backbone of {self.name}")
        if not (isinstance(cls, type) and issubclass(cls, Backbone)):
            raise ZooError(f"backbone of {self.name}: {self.backbone} is not a subclass of zoo.Backbone")
        return cls

    def load_presets(self) -> Mapping[tuple[str, str], Preset]:
        """Presets by (task, protocol)."""
        return load_object(self.presets, what=f"presets of {self.name}") if self.presets else {}

    def load_reported(self) -> tuple[Reported, ...]:
        """Scores from the literature."""
        return tuple(load_object(self.reported, what=f"reported scores of {self.name}")) if self.reported else ()

    def load_conversion(self) -> Conversion:
        """How checkpoints of others are read and written. UserError where the plugin has no conversion."""
        if not self.conversion:
            raise UserError(f"{self.name} has no conversion: no implementation with public checkpoints is mapped to it")
        return load_object(self.conversion, what=f"conversion of {self.name}")

    def check(self, config: Any, dims: ModelDims) -> None:
        """Raise ConfigError when this architecture cannot be built from (config, dims)."""
        if dims.mode not in self.capabilities.modes:
            modes = " or ".join(sorted(self.capabilities.modes))
            raise ConfigError("model.mode", f"{self.name} is {modes}; it has no {dims.mode} form")
        checker = getattr(config, "check", None)
        if checker is not None:
            try:
                checker(dims)
            except ConfigError as error:
                names_shape = error.key in ("d_model", "n_layers", "mode", "max_len")
                prefix = "" if "." in error.key else "model." if names_shape else "arch."
                raise ConfigError(prefix + error.key, error.message, origin=error.origin) from error

    def build(self, config: Any = None, dims: ModelDims | None = None, **kwargs: Any) -> Backbone:
        """Build the backbone.

        `config` defaults to the plugin's defaults; `dims` may be given whole or by its fields
        (`d_model=64, n_layers=2, mode="causal", max_len=512`).
        """
        dims = dims if dims is not None else ModelDims(**kwargs)
        config = config if config is not None else self.load_config()()
        self.check(config, dims)
        return self.load_backbone()(config, dims)


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Which installed distribution a record came from."""

    distribution: str
    version: str
    entry_point: str
    builtin: bool = False
