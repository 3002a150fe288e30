"""What can be chosen about a Mamba. The defaults are those of the paper's language models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_choice, check_fraction, check_positive, check_step_sizes

NORMS = ("rms", "layer")
DT_INITS = ("random", "constant")


@dataclass
class MambaConfig:
    """Configuration of the architecture; width and depth are the run's."""

    d_state: int = 16
    """N, real state elements of every channel."""
    d_conv: int = 4
    """Taps of the short causal convolution in front of the scan."""
    expand: int = 2
    """The scan runs on d_inner = expand * d_model channels."""
    dt_rank: int | None = None
    """Rank of the map that makes the step sizes; empty = d_model / 16, rounded up."""
    dt_min: float = 0.001
    """Step sizes start log-uniformly between dt_min and dt_max."""
    dt_max: float = 0.1
    """See dt_min."""
    dt_init_floor: float = 1e-4
    """Step sizes that would start below this start here."""
    dt_init: str = "random"
    """Weights of the step-size map: random (uniform in +-dt_scale * dt_rank^-1/2) or constant (at the upper end)."""
    dt_scale: float = 1.0
    """See dt_init."""
    bias: bool = False
    """Biases in the input and output projections."""
    conv_bias: bool = True
    """A bias in the short convolution."""
    norm: str = "rms"
    """Norm in front of every layer and at the end: rms or layer."""
    norm_eps: float = 1e-5
    """Added to the variance inside the norms."""
    dropout: float = 0.0
    """Dropout on what every layer adds to the residual stream."""

    def resolved_dt_rank(self, d_model: int) -> int:
        """dt_rank, or its default for this width."""
        return self.dt_rank if self.dt_rank is not None else math.ceil(d_model / 16)

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_positive(self, "d_state", "d_conv", "expand")
        d_inner = self.expand * dims.d_model
        if self.dt_rank is not None and not 1 <= self.dt_rank <= d_inner:
            raise ConfigError("dt_rank", f"expected 1 to d_inner = expand * d_model = {d_inner}, got {self.dt_rank}")
        check_step_sizes(self)
        check_positive(self, "dt_init_floor", "dt_scale", "norm_eps")
        check_fraction(self, "dropout")
        check_choice(self, "norm", NORMS)
        check_choice(self, "dt_init", DT_INITS)
