"""Configuration of S4. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, MultipleOf

from zoo import ConfigError, Fraction, ModelDims, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class S4Config:
    """Hyperparameters of the architecture."""

    d_state: Annotated[int, Ge(2), MultipleOf(2)] = 64
    """N, the state size of one channel: real dimensions, that is N/2 conjugate pairs."""
    kernel: Literal["dplr", "diag"] = "dplr"
    """dplr: diagonal plus low rank (S4). diag: diagonal (S4D)."""
    init: Literal["legs", "lin", "inv"] = "legs"
    """Initial state matrix: HiPPO-LegS, or S4D-Lin and S4D-Inv (kernel=diag only)."""
    disc: Literal["auto", "zoh", "bilinear"] = "auto"
    """Discretisation; auto is bilinear for dplr (it has no other) and zoh for diag."""
    n_ssm: PositiveInt | None = 1
    """Independent copies of (A, B, P) that the channels share: channel h uses copy h mod n_ssm; null = one each."""
    dt_min: PositiveFloat = 0.001
    """Smallest initial step size; about 1 / dt is the length that a channel first sees."""
    dt_max: PositiveFloat = 0.1
    """Largest initial step size."""
    prenorm: bool = True
    """Norm before the block, and one after the last; false: norm after each residual sum."""
    norm: Literal["layer", "rms", "batch"] = "layer"
    """Norm of the blocks; batch is bidirectional only, because batch statistics look across time."""
    dropout: Fraction = 0.0
    """Dropout at its three places: after the convolution, before the output projection, on the residual branch."""
    tie_dropout: bool = False
    """The last two of them drop a channel for a whole sequence instead of single tokens."""
    ssm_lr: NonNegativeFloat | None = 0.001
    """Peak learning rate of A, B and P; null = the run's."""
    dt_lr: NonNegativeFloat | None = None
    """Peak learning rate of the step sizes dt; null = the run's."""
    c_lr: NonNegativeFloat | None = None
    """Peak learning rate of C; null = the run's."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if self.n_ssm is not None and dims.d_model % self.n_ssm:
            raise ConfigError("n_ssm", f"{self.n_ssm} copies cannot be shared evenly by d_model={dims.d_model}")
        if self.kernel == "dplr" and self.init != "legs":
            raise ConfigError("init", f"kernel=dplr starts from legs, not {self.init!r}; use kernel=diag")
        if self.kernel == "dplr" and self.disc == "zoh":
            raise ConfigError("disc", "kernel=dplr has only the bilinear discretisation; zoh is for kernel=diag")
        if self.dt_min > self.dt_max:
            raise ConfigError("dt_min", f"expected at most dt_max {self.dt_max}, got {self.dt_min}")
        if self.norm == "batch" and dims.mode == "causal":
            raise ConfigError("norm", "batch norm averages over time: a causal model would see the future; use layer")
