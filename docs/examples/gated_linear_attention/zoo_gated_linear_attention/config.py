"""Configuration of the GLA Transformer (`arch.*` keys); the defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, Fraction, ModelDims, PositiveFloat, PositiveInt


@dataclass
class GatedLinearAttentionConfig:
    n_heads: PositiveInt = 4
    """H; must divide d_model / 2, the width of all keys."""
    gate_rank: PositiveInt = 16
    """Rank of the map from a token to its gates."""
    gate_temperature: PositiveFloat = 16.0
    """tau: the gates are sigmoid(...)^(1 / tau), which keeps them near 1 at the start."""
    dropout: Fraction = 0.0
    """Dropout on both residual branches."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if dims.d_model % (2 * self.n_heads):
            why = f"expected a divisor of d_model / 2 with d_model {dims.d_model}, got {self.n_heads}"
            raise ConfigError("n_heads", why)
