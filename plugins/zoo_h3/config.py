"""Configuration of H3. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, MultipleOf

from zoo import ConfigError, Fraction, ModelDims, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class H3Config:
    """Hyperparameters of the architecture."""

    d_state: Annotated[int, Ge(2), MultipleOf(2)] = 64
    """N: taps of the shift SSM, and real state size of the diagonal one, that is N/2 conjugate pairs."""
    head_dim: PositiveInt = 1
    """d: channels of a head; the diagonal SSM runs over the d x d outer products of each, so cost grows with d."""
    d_ff: NonNegativeInt = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    attn_layers: list[NonNegativeInt] = field(default_factory=list)
    """Layers, counted from 0, with softmax attention in place of H3: the paper's hybrid. Their state grows with L."""
    attn_heads: PositiveInt = 1
    """Heads of those layers."""
    disc: Literal["bilinear", "zoh"] = "bilinear"
    """Discretisation of the diagonal SSM."""
    dt_min: PositiveFloat = 0.001
    """Smallest initial step size; about 1 / dt is the length that a head first sees."""
    dt_max: PositiveFloat = 0.1
    """Largest initial step size."""
    norm: Literal["layer", "rms", "batch"] = "layer"
    """Norm of the blocks; batch is bidirectional only, because batch statistics look across time."""
    dropout: Fraction = 0.0
    """Dropout on the residual branches."""
    init_std: PositiveFloat | None = 0.02
    """Deviation of all linear weights at the start (GPT-2's, as in the paper's models); null = PyTorch's own."""
    ssm_lr: NonNegativeFloat | None = 0.001
    """Peak learning rate of A, B and dt, the shift's B included; null = the run's."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if dims.d_model % self.head_dim:
            raise ConfigError("head_dim", f"heads of {self.head_dim} channels cannot make up d_model={dims.d_model}")
        layers = set(self.attn_layers)
        if len(layers) < len(self.attn_layers) or not layers <= set(range(dims.n_layers)):
            why = f"{self.attn_layers}: expected different numbers from 0 to {dims.n_layers - 1}, the last layer"
            raise ConfigError("attn_layers", why)
        if self.attn_layers and dims.d_model % self.attn_heads:
            raise ConfigError("attn_heads", f"{self.attn_heads} heads cannot share d_model={dims.d_model} evenly")
        if self.dt_min > self.dt_max:
            raise ConfigError("dt_min", f"expected at most dt_max {self.dt_max}, got {self.dt_min}")
        if self.norm == "batch" and dims.mode == "causal":
            raise ConfigError("norm", "batch norm averages over time: a causal model would see the future; use layer")
