"""Configuration of S5. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class S5Config:
    """Hyperparameters of the architecture."""

    d_state: PositiveInt = 64
    """N, the state size of the whole layer: real dimensions, of which conj_sym keeps one of each conjugate pair."""
    blocks: PositiveInt = 4
    """J: the state matrix starts as this many HiPPO-N blocks of size d_state / J on the diagonal."""
    conj_sym: bool = True
    """Keep one of each conjugate pair and read 2 Re(C x); false: all d_state eigenvalues, free, and Re(C x)."""
    clip_eigs: bool = True
    """Keep Re(Lambda) below -1e-4, so that no state grows; the reference clips on sequential CIFAR only."""
    disc: Literal["zoh", "bilinear"] = "zoh"
    """Discretisation."""
    c_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "trunc_standard_normal"
    """Initial values of C (README)."""
    dt_min: PositiveFloat = 0.001
    """Smallest initial step size; about 1 / dt is the length that a state first sees."""
    dt_max: PositiveFloat = 0.1
    """Largest initial step size."""
    step_rescale: PositiveFloat = 1.0
    """Multiplies every step size: for data sampled at another rate than that of training."""
    gate: Literal["full_glu", "half_glu1", "half_glu2", "gelu"] = "half_glu1"
    """Activation after the state space model (README)."""
    prenorm: bool = True
    """Norm before the layer; false: norm after each residual sum. There is no final norm in either."""
    norm: Literal["layer", "rms", "batch"] = "layer"
    """Norm of the blocks; batch is bidirectional only, because batch statistics look across time."""
    bn_momentum: Fraction = 0.95
    """norm=batch: share of the running statistics that one step keeps."""
    dropout: Fraction = 0.0
    """Dropout after GELU and on the residual branch; drops a channel for a whole sequence."""
    ssm_lr: NonNegativeFloat | None = 0.001
    """Peak learning rate of Lambda, the step sizes and, unless groups=BfastandCdecay, B; null = the run's."""
    groups: Literal["standard", "BandCdecay", "BfastandCdecay"] = "standard"
    """standard: B without weight decay. BandCdecay: B decays. BfastandCdecay: B decays, at the run's rate."""
    dt_global: bool = False
    """Train the step sizes like the other weights: the run's learning rate and weight decay."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if self.d_state % (2 * self.blocks):
            even = 2 * self.blocks * max(1, round(self.d_state / (2 * self.blocks)))
            raise ConfigError(
                "blocks",
                f"d_state={self.d_state} does not make {self.blocks} blocks of even size; d_state={even} would",
            )
        if self.dt_min > self.dt_max:
            raise ConfigError("dt_min", f"expected at most dt_max {self.dt_max}, got {self.dt_min}")
        if self.norm == "batch" and dims.mode == "causal":
            raise ConfigError("norm", "batch norm averages over time: a causal model would see the future; use layer")
