"""What a user may choose about S4."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_batch_norm, check_choice, check_fraction, check_step_sizes

CHOICES = {
    "kernel": ("dplr", "diag"),
    "init": ("legs", "lin", "inv"),
    "disc": ("auto", "zoh", "bilinear"),
    "norm": ("layer", "rms", "batch"),
}


@dataclass
class S4Config:
    d_state: int = 64
    """N, the state size of one channel: real dimensions, that is N/2 conjugate pairs."""
    kernel: str = "dplr"
    """dplr: diagonal plus low rank (S4) | diag: diagonal (S4D)."""
    init: str = "legs"
    """legs | lin | inv: HiPPO-LegS, or S4D-Lin and S4D-Inv (kernel=diag only)."""
    disc: str = "auto"
    """auto | zoh | bilinear: discretisation; auto is bilinear for dplr (it has no other) and zoh for diag."""
    n_ssm: int | None = 1
    """Independent copies of (A, B, P) that the channels share: channel h uses copy h mod n_ssm; null = one each."""
    dt_min: float = 0.001
    """Smallest initial step size; about 1 / dt is the length that a channel first sees."""
    dt_max: float = 0.1
    """Largest initial step size."""
    prenorm: bool = True
    """Norm before the block, and one after the last; false: norm after each residual sum."""
    norm: str = "layer"
    """layer | rms | batch (bidirectional only: batch statistics look across time)."""
    dropout: float = 0.0
    """Dropout at its three places: after the convolution, before the output projection, on the residual branch."""
    tie_dropout: bool = False
    """The last two of them drop a channel for a whole sequence instead of single tokens."""
    ssm_lr: float | None = 0.001
    """Peak learning rate of A, B and P; null = the run's."""
    dt_lr: float | None = None
    """Peak learning rate of the step sizes dt; null = the run's."""
    c_lr: float | None = None
    """Peak learning rate of C; null = the run's."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        for name, allowed in CHOICES.items():
            check_choice(self, name, allowed)
        if self.d_state < 2 or self.d_state % 2:
            raise ConfigError("d_state", f"conjugate pairs need an even number of at least 2, got {self.d_state}")
        if self.n_ssm is not None and (self.n_ssm < 1 or dims.d_model % self.n_ssm):
            raise ConfigError("n_ssm", f"{self.n_ssm} copies cannot be shared evenly by d_model={dims.d_model}")
        if self.kernel == "dplr" and self.init != "legs":
            raise ConfigError("init", f"kernel=dplr starts from legs, not {self.init!r}; use kernel=diag")
        if self.kernel == "dplr" and self.disc == "zoh":
            raise ConfigError("disc", "kernel=dplr has only the bilinear discretisation; zoh is for kernel=diag")
        check_step_sizes(self)
        check_fraction(self, "dropout")
        for name in ("ssm_lr", "dt_lr", "c_lr"):
            rate = getattr(self, name)
            if rate is not None and rate < 0:
                raise ConfigError(name, f"expected a learning rate >= 0 or null, got {rate}")
        check_batch_norm(self, dims)
