"""What can be chosen about a Hyena."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_fraction, check_positive


@dataclass
class HyenaConfig:
    """Configuration of the architecture; width, depth and the longest input are the run's."""

    order: int = 2
    """n: gates by n projections of the input, with n - 1 long convolutions between them."""
    short_taps: int = 3
    """Taps of the short causal convolution on every projection."""
    filter_width: int = 64
    """Width of the network that writes the long filters."""
    filter_layers: int = 2
    """Its inner layers, besides the first and the last."""
    emb_dim: int = 33
    """Features of a position that it reads: time, and (emb_dim - 1) / 2 cosines and sines; 3 sees little but time."""
    w: float = 14.0
    """Initial frequency of its sines: the larger, the rougher the filters start."""
    fast_decay_pct: float = 0.3
    """The fastest channel's window has fallen to decay_target after this part of the longest input."""
    slow_decay_pct: float = 1.5
    """The same of the slowest channel; beyond 1 it never gets there."""
    decay_target: float = 0.01
    """See fast_decay_pct."""
    shift: float = 0.0
    """Added to every window: what is left of a filter at any distance."""
    normalized: bool = False
    """Divide the filters by their sum of magnitudes over channels, position by position."""
    d_ff: int | None = None
    """Width inside the channel MLP; null = 2 d_model."""
    filter_lr: float | None = 0.001
    """Peak learning rate of the filter network; null = the run's. It carries no weight decay."""
    positions_lr: float = 0.0
    """Peak learning rate of the position features (longest input · emb_dim numbers); 0 = they stay what they are."""
    norm_eps: float = 1e-5
    """Added to the variance inside the norms."""
    dropout: float = 0.0
    """Dropout on what mixer and MLP add to the residual stream."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        for name, least in (("order", 2), ("short_taps", 1), ("filter_width", 1), ("filter_layers", 0), ("d_ff", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(name, f"expected at least {least}, got {value}")
        if self.emb_dim < 3 or self.emb_dim % 2 == 0:
            raise ConfigError(
                "emb_dim", f"time and pairs of cosine and sine make an odd number from 3, got {self.emb_dim}"
            )
        if not 0 < self.fast_decay_pct <= self.slow_decay_pct:
            both = f"{self.fast_decay_pct} and {self.slow_decay_pct}"
            raise ConfigError("fast_decay_pct", f"expected 0 < fast_decay_pct <= slow_decay_pct, got {both}")
        if not 0 < self.decay_target < 1:
            raise ConfigError("decay_target", f"expected a number between 0 and 1, got {self.decay_target}")
        check_positive(self, "w", "norm_eps")
        for name in ("filter_lr", "positions_lr", "shift"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(name, f"expected a number of at least 0, got {value}")
        check_fraction(self, "dropout")
