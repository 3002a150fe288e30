"""Settings of rotary positions beyond the trained length, by the names of Hugging Face's `rope_scaling`. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from zoo.spec.constraints import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from zoo.spec.errors import ConfigError

RopeType = Literal["default", "linear", "ntk", "dynamic", "yarn", "llama3", "longrope"]


@dataclass
class RopeScaling:
    """Scaling of the frequencies of RoPE, after training at a shorter length."""

    rope_type: RopeType = "default"
    """default: none. linear: position interpolation. ntk, dynamic: NTK-aware base, fixed or growing with the input.
    yarn, llama3: interpolate slow frequencies only. longrope: a factor for each frequency."""
    factor: Annotated[float, Ge(1)] | None = None
    """How many times longer than trained; null = the longest input / original_max_position_embeddings."""
    original_max_position_embeddings: NonNegativeInt = 0
    """Length of training; 0 = the longest input of the run."""
    attention_factor: PositiveFloat | None = None
    """yarn, longrope: factor of cosines and sines; null = as published for `factor`."""
    beta_fast: PositiveFloat = 32.0
    """yarn: pairs that turn more often within the trained length keep their frequency."""
    beta_slow: PositiveFloat = 1.0
    """yarn: pairs that turn less often are interpolated."""
    truncate: bool = True
    """yarn: round the ends of the ramp between the two to whole pairs."""
    mscale: NonNegativeFloat = 0.0
    """yarn: with mscale_all_dim, attention_factor is the quotient of both temperatures (DeepSeek); 0 = not set."""
    mscale_all_dim: NonNegativeFloat = 0.0
    """yarn: see mscale."""
    low_freq_factor: PositiveFloat = 1.0
    """llama3: wavelengths above the trained length / low_freq_factor are interpolated."""
    high_freq_factor: PositiveFloat = 4.0
    """llama3: wavelengths below the trained length / high_freq_factor are kept."""
    short_factor: list[PositiveFloat] = field(default_factory=list)
    """longrope: divisor of each frequency for inputs up to the trained length."""
    long_factor: list[PositiveFloat] = field(default_factory=list)
    """longrope: divisor of each frequency for longer inputs."""

    used_by: ClassVar[dict[str, set[str]]] = {
        "default": set(),
        "linear": set(),
        "ntk": set(),
        "dynamic": set(),
        "yarn": {"attention_factor", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"},
        "llama3": {"low_freq_factor", "high_freq_factor"},
        "longrope": {"attention_factor", "short_factor", "long_factor"},
    }

    def check(self, d_head: int) -> None:
        """Raise ConfigError for fields that the type does not read, and for values that do not fit together."""
        used = self.used_by[self.rope_type] | {"rope_type"}
        if self.rope_type != "default":
            used |= {"factor", "original_max_position_embeddings"}
        neutral = RopeScaling()
        for name in (item.name for item in fields(self)):
            if name not in used and getattr(self, name) != getattr(neutral, name):
                users = [kind for kind, names in self.used_by.items() if name in names]
                known = " or ".join(users) if users else "any type but default"
                raise ConfigError(f"rope_scaling.{name}", f"rope_type {self.rope_type} has no such field; {known} has")
        if self.rope_type == "yarn" and self.beta_fast <= self.beta_slow:
            raise ConfigError("rope_scaling.beta_fast", f"{self.beta_fast} must exceed beta_slow {self.beta_slow}")
        if self.rope_type == "yarn" and bool(self.mscale) != bool(self.mscale_all_dim):
            raise ConfigError("rope_scaling.mscale", "mscale and mscale_all_dim go together")
        if self.rope_type == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            low = f"low_freq_factor {self.low_freq_factor}"
            raise ConfigError("rope_scaling.high_freq_factor", f"{self.high_freq_factor} must exceed {low}")
        if self.rope_type in ("ntk", "dynamic") and d_head < 4:
            raise ConfigError("n_heads", f"{self.rope_type} scaling needs a head dimension of at least 4, got {d_head}")
        if self.rope_type == "longrope":
            for name in ("short_factor", "long_factor"):
                n = len(getattr(self, name))
                if n != d_head // 2:
                    what = f"expected {d_head // 2} numbers, one for each pair of the head's {d_head} channels, got {n}"
                    raise ConfigError(f"rope_scaling.{name}", what)

    def trained_len(self, max_len: int) -> int:
        """The length of training of a model whose longest input is `max_len`."""
        return self.original_max_position_embeddings or max_len

    def resolve_factor(self, max_len: int) -> float:
        """`factor`, or what follows from the lengths; at least 1."""
        return max(max_len / self.trained_len(max_len), 1.0) if self.factor is None else self.factor


@dataclass
class SelfExtend:
    """SelfExtend (Jin et al. 2024): in evaluation, far keys are seen at grouped positions."""

    group_size: PositiveInt = 1
    """Neighbouring positions that far keys share; 1 = off."""
    window: PositiveInt = 512
    """Distances below this are exact; a multiple of group_size."""

    def check(self) -> None:
        """Raise ConfigError unless the groups fill the window."""
        if self.window % self.group_size:
            raise ConfigError("self_extend.window", f"{self.window} is no multiple of group_size {self.group_size}")
