"""Configuration of Mamba; the defaults are those of the paper's language models. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, PositiveFloat, PositiveInt


@dataclass
class MambaConfig:
    """Configuration of the architecture; width and depth are the run's."""

    d_state: PositiveInt = 16
    """N, real state elements of every channel."""
    d_conv: PositiveInt = 4
    """Taps of the short causal convolution in front of the scan."""
    expand: PositiveInt = 2
    """The scan runs on d_inner = expand * d_model channels."""
    dt_rank: PositiveInt | None = None
    """Rank of the map that makes the step sizes; null = d_model / 16, rounded up."""
    dt_min: PositiveFloat = 0.001
    """Step sizes start log-uniformly between dt_min and dt_max."""
    dt_max: PositiveFloat = 0.1
    """See dt_min."""
    dt_init_floor: PositiveFloat = 1e-4
    """Step sizes that would start below this start here."""
    dt_init: Literal["random", "constant"] = "random"
    """Initial weights of the step-size map: random = uniform in +-dt_scale * dt_rank^-1/2; constant = the upper end."""
    dt_scale: PositiveFloat = 1.0
    """See dt_init."""
    bias: bool = False
    """Biases in the input and output projections."""
    conv_bias: bool = True
    """A bias in the short convolution."""
    norm: Literal["rms", "layer"] = "rms"
    """Norm before every layer and after the last."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the variance inside the norms."""
    dropout: Fraction = 0.0
    """Dropout on the output of every layer."""

    def resolved_dt_rank(self, d_model: int) -> int:
        """dt_rank, or its default for this width."""
        return self.dt_rank if self.dt_rank is not None else math.ceil(d_model / 16)

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        d_inner = self.expand * dims.d_model
        if self.dt_rank is not None and self.dt_rank > d_inner:
            raise ConfigError("dt_rank", f"expected at most d_inner = expand * d_model = {d_inner}, got {self.dt_rank}")
        if self.dt_min > self.dt_max:
            raise ConfigError("dt_min", f"expected at most dt_max {self.dt_max}, got {self.dt_min}")
