"""Configuration of Hyena. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from zoo import ConfigError, Fraction, ModelDims, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class HyenaConfig:
    """Configuration of the architecture; width, depth and the longest input are the run's."""

    order: Annotated[int, Ge(2)] = 2
    """n: gates by n projections of the input, with n - 1 long convolutions between them."""
    short_taps: PositiveInt = 3
    """Taps of the short causal convolution on every projection."""
    filter_width: PositiveInt = 64
    """Width of the network that generates the long filters."""
    filter_layers: NonNegativeInt = 2
    """Inner layers of the filter network, besides the first and the last."""
    emb_dim: Annotated[int, Ge(3)] = 33
    """Position features of the filter network: time, and (emb_dim - 1) / 2 pairs of cosine and sine."""
    w: PositiveFloat = 14.0
    """Initial frequency of the filter network's sines; larger values make rougher initial filters."""
    fast_decay_pct: PositiveFloat = 0.3
    """Part of the longest input after which the fastest channel's window has decayed to decay_target."""
    slow_decay_pct: PositiveFloat = 1.5
    """The same for the slowest channel; above 1 it does not decay that far within an input."""
    decay_target: Annotated[float, Gt(0), Lt(1)] = 0.01
    """Value of the window after fast_decay_pct."""
    shift: NonNegativeFloat = 0.0
    """Added to every window: its lower limit at any distance."""
    normalized: bool = False
    """Divide the filters by their sum of magnitudes over channels, position by position."""
    d_ff: PositiveInt | None = None
    """Width inside the channel MLP; null = 2 d_model."""
    filter_lr: NonNegativeFloat | None = 0.001
    """Peak learning rate of the filter network; null = the run's. It carries no weight decay."""
    positions_lr: NonNegativeFloat = 0.0
    """Peak learning rate of the position features (longest input · emb_dim numbers); 0 = not trained."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the variance inside the norms."""
    dropout: Fraction = 0.0
    """Dropout on the outputs of mixer and MLP."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if self.emb_dim % 2 == 0:
            raise ConfigError("emb_dim", f"time and pairs of cosine and sine make an odd number, got {self.emb_dim}")
        if self.fast_decay_pct > self.slow_decay_pct:
            raise ConfigError(
                "fast_decay_pct", f"expected at most slow_decay_pct {self.slow_decay_pct}, got {self.fast_decay_pct}"
            )
