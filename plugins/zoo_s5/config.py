"""What a user may choose about S5."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_batch_norm, check_choice, check_fraction, check_positive, check_step_sizes

CHOICES = {
    "disc": ("zoh", "bilinear"),
    "c_init": ("trunc_standard_normal", "lecun_normal", "complex_normal"),
    "gate": ("full_glu", "half_glu1", "half_glu2", "gelu"),
    "norm": ("layer", "rms", "batch"),
    "groups": ("standard", "BandCdecay", "BfastandCdecay"),
}


@dataclass
class S5Config:
    d_state: int = 64
    """N, the state size of the whole layer: real dimensions, of which conj_sym keeps one of each conjugate pair."""
    blocks: int = 4
    """J: the state matrix starts as this many HiPPO-N blocks of size d_state / J on the diagonal."""
    conj_sym: bool = True
    """Keep one of each conjugate pair and read 2 Re(C x); false: all d_state eigenvalues, free, and Re(C x)."""
    clip_eigs: bool = True
    """Keep Re(Lambda) below -1e-4, so that no state grows; the reference clips on sequential CIFAR only."""
    disc: str = "zoh"
    """zoh | bilinear: discretisation."""
    c_init: str = "trunc_standard_normal"
    """trunc_standard_normal | lecun_normal | complex_normal: how C starts (README)."""
    dt_min: float = 0.001
    """Smallest initial step size; about 1 / dt is the length that a state first sees."""
    dt_max: float = 0.1
    """Largest initial step size."""
    step_rescale: float = 1.0
    """Multiplies every step size: for data sampled at another rate than that of training."""
    gate: str = "half_glu1"
    """full_glu | half_glu1 | half_glu2 | gelu: what follows the state space model (README)."""
    prenorm: bool = True
    """Norm before the layer; false: norm after each residual sum. There is no final norm in either."""
    norm: str = "layer"
    """layer | rms | batch (bidirectional only: batch statistics look across time)."""
    bn_momentum: float = 0.95
    """norm=batch: share of the running statistics that one step keeps."""
    dropout: float = 0.0
    """Dropout after GELU and on the residual branch; drops a channel for a whole sequence."""
    ssm_lr: float | None = 0.001
    """Peak learning rate of Lambda, the step sizes and, unless groups=BfastandCdecay, B; null = the run's."""
    groups: str = "standard"
    """standard: B without weight decay | BandCdecay: B decays | BfastandCdecay: B decays, at the run's rate."""
    dt_global: bool = False
    """Train the step sizes like the other weights: the run's learning rate and weight decay."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        for name, allowed in CHOICES.items():
            check_choice(self, name, allowed)
        check_positive(self, "d_state", "blocks")
        if self.d_state % (2 * self.blocks):
            even = 2 * self.blocks * max(1, round(self.d_state / (2 * self.blocks)))
            raise ConfigError(
                "blocks",
                f"d_state={self.d_state} does not make {self.blocks} blocks of even size; d_state={even} would",
            )
        check_step_sizes(self)
        check_positive(self, "step_rescale")
        check_fraction(self, "bn_momentum", "dropout")
        if self.ssm_lr is not None and self.ssm_lr < 0:
            raise ConfigError("ssm_lr", f"expected a learning rate >= 0 or null, got {self.ssm_lr}")
        check_batch_norm(self, dims)
