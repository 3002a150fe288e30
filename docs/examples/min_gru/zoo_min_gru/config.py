"""Configuration of minGRU (`arch.*` keys)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import Fraction, PositiveInt


@dataclass
class MinGRUConfig:
    expansion: PositiveInt = 1
    """Width of the hidden state, as a multiple of d_model."""
    candidate: Literal["positive", "linear"] = "positive"
    """positive: g(x) = x + 1/2 for x > 0, else sigmoid(x), as in the paper's parallel form; linear: x."""
    n_taps: PositiveInt = 4
    """Taps of the causal convolution before the recurrence."""
    mlp_ratio: PositiveInt = 4
    """Width of the channel MLP, as a multiple of d_model."""
    dropout: Fraction = 0.0
    """Dropout on both residual branches and inside the MLP."""
