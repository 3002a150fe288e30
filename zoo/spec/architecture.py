"""The specification of an architecture: a frozen record that names its code without importing it. No torch here."""

from __future__ import annotations

import importlib.resources
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from zoo.spec.constraints import validate_config
from zoo.spec.errors import ConfigError, UserError, ZooError
from zoo.spec.presets import Preset, Reported, load_presets

if TYPE_CHECKING:
    from zoo.convert.conversion import Conversion
    from zoo.nn.backbone import Backbone

API = 1
"""Version of the plugin interface; a plugin with another one is refused."""

Mode = Literal["causal", "bidirectional", "seq2seq"]
Objective = Literal["classify", "causal_lm", "infilling", "seq2seq"]
StateKind = Literal["none", "recurrent", "memory", "cache"]
LengthKind = Literal["any", "max", "fixed"]
Positions = Literal["external", "internal"]

OBJECTIVES: dict[Mode, Objective] = {"causal": "causal_lm", "bidirectional": "infilling", "seq2seq": "seq2seq"}
"""How tasks whose answers are tokens are put to a model of each mode."""

NAME = re.compile(r"[a-z][a-z0-9_]*")


def load_object(target: str, *, what: str) -> Any:
    """Import `package.module:attribute`. Raises ZooError, which names the target, where that is impossible."""
    if ":" not in target:
        raise ZooError(f"{what} {target!r}: expected 'package.module:attribute'")
    try:
        return pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ZooError(f"{what} {target!r} cannot be imported: {error}") from error


def load_subclass(target: str, base: str, *, what: str) -> type[Any]:
    """Import a class that must be a subclass of `base`, which is named: this layer imports none above it."""
    cls = load_object(target, what=what)
    if not (isinstance(cls, type) and issubclass(cls, load_object(base, what="base class"))):
        raise ZooError(f"{what}: {target} is not a subclass of {base.replace(':', '.')}")
    return cls


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDims:
    """What the run decides about a backbone, as opposed to its architecture's own configuration.

    d_model   width of the residual stream at every boundary
    n_layers  depth
    mode      "causal" | "bidirectional" | "seq2seq"
    max_len   the longest sequence that one call will be given
    """

    d_model: int
    n_layers: int
    mode: Mode
    max_len: int

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "max_len"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"expected a positive number, got {getattr(self, name)}")


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
    state         "none" | "recurrent" (S4, Mamba …) | "memory" (Transformer-XL …) | "cache": keys and values of every
                  token so far, which generation carries and training does not
    chunk_exact   pieces with carried state equal one call
    state_grad    gradient may flow through the carried state; otherwise the backbone detaches what it emits
    step          `step()` exists and equals `forward`, with `segment` that of one segment after the other
    segment       long inputs must be fed segment by segment
    length        "any" | "max" (positions run out) | "fixed" (weights of one length; shorter is fine)
    positions     "external": zoo adds absolute positions to the embedding | "internal": none needed
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
            raise ValueError("chunk_exact, state_grad and step need a state: 'recurrent', 'memory' or 'cache'")

    def carries_text(self, mode: str) -> bool:
        """Whether a state is carried from one piece of a running text to the next.

        Absolute positions that the frame adds begin anew with every piece, so what such an architecture remembers
        of the piece before would stand at wrong places: it reads each piece alone.
        """
        return mode == "causal" and self.state in ("recurrent", "memory") and self.positions == "internal"


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One architecture, as `zoo_architectures()` yields it. Nothing it names is imported before it is used.

    backbone   "package.module:Class", a `zoo.Backbone` built from (config, dims)
    config     "package.module:Dataclass"; a field's annotation says which values it may have (zoo/spec/constraints.py),
               the docstring under it is its help. `check(self, dims) -> None`, where it is defined, raises
               `zoo.ConfigError(field, why)` for impossible combinations
    conversion "package.module:CONVERSION", a zoo.convert.Conversion; empty when there is none
    version    raised when a default or the meaning of a field of `config` changes: part of an experiment's identity

    Two files may lie in the package of `config`: `presets.toml` with presets and reported scores (zoo/spec/presets.py),
    and `README.md`, the card that `zoo show` prints.
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
    conversion: str = ""
    version: str = "1"
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
        return load_subclass(self.backbone, "zoo:Backbone", what=f"backbone of {self.name}")

    @property
    def package(self) -> str:
        """The package of the configuration, in which presets and card lie."""
        module = self.config.partition(":")[0]
        return module.rpartition(".")[0] or module

    def load_card(self) -> str:
        """Markdown of the plugin's README.md; empty where it has none."""
        file = importlib.resources.files(self.package) / "README.md"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def load_presets(self) -> Mapping[tuple[str, str], Preset]:
        """Presets by (task, protocol)."""
        return load_presets(self.package).presets

    def load_reported(self) -> tuple[Reported, ...]:
        """Scores from the literature."""
        return load_presets(self.package).reported

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
        try:
            validate_config(config, dims)
        except ConfigError as error:
            raise error.under("model" if error.key in ("d_model", "n_layers", "mode", "max_len") else "arch") from error

    def build(self, config: Any = None, dims: ModelDims | None = None, **kwargs: Any) -> Backbone:
        """Build the backbone.

        `config` defaults to the plugin's defaults; `dims` may be given whole or by its fields
        (`d_model=64, n_layers=2, mode="causal", max_len=512`).
        """
        dims = dims if dims is not None else ModelDims(**kwargs)
        config = config if config is not None else self.load_config()()
        self.check(config, dims)
        return self.load_backbone()(config, dims)
