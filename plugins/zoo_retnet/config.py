"""Configuration of RetNet. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, PositiveFloat, PositiveInt


@dataclass
class RetNetConfig:
    """Configuration of the architecture; width and depth are the run's."""

    n_heads: PositiveInt = 4
    """Heads; head h forgets by 1 - 2^(-5-h) per token: half-lives of 22, 44, 88, 177, 355, … tokens."""
    value_dim: PositiveInt | None = None
    """Width of values and gate over all heads; null = 5/3 d_model, to the nearest multiple of n_heads."""
    ffn_dim: PositiveInt | None = None
    """Width inside the gated channel MLP; null = 5/3 d_model, rounded: a layer then has 12 d_model² weights."""
    form: Literal["chunkwise", "parallel", "recurrent"] = "chunkwise"
    """chunkwise: linear in the length. parallel: quadratic, the definition. recurrent: by token, causal only."""
    chunk_size: PositiveInt = 64
    """Tokens of a chunk in the chunkwise form; changes cost, not results."""
    denominator: Literal["common", "published"] = "common"
    """common: one scale for all forms, so that they agree. published: each form divides as the reference's does."""
    gate: Literal["silu", "gelu"] = "silu"
    """Activation of the gate on the retention's output."""
    activation: Literal["silu", "gelu", "relu"] = "silu"
    """Activation of the gated channel MLP."""
    prenorm: bool = True
    """Norms before retention and MLP, and one at the end; false: after each residual sum."""
    deepnorm: bool = False
    """DeepNorm: post-norm with the residual stream scaled by (2 n_layers)^1/4 and smaller initial weights."""
    norm_eps: PositiveFloat = 1e-6
    """Added to mean squares inside the norms."""
    dropout: Fraction = 0.0
    """Dropout on the outputs of retention and MLP."""

    def resolved_value_dim(self, d_model: int) -> int:
        """value_dim, or its default for this width."""
        if self.value_dim is not None:
            return self.value_dim
        return self.n_heads * max(1, round(5 * d_model / (3 * self.n_heads)))

    def resolved_ffn_dim(self, d_model: int) -> int:
        """ffn_dim, or its default for this width."""
        return self.ffn_dim if self.ffn_dim is not None else max(1, round(5 * d_model / 3))

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if dims.d_model % (2 * self.n_heads):
            why = f"{self.n_heads} heads of even width (keys turn in pairs) do not divide d_model={dims.d_model}"
            raise ConfigError("n_heads", why)
        if self.value_dim is not None and self.value_dim % self.n_heads:
            raise ConfigError("value_dim", f"{self.value_dim} cannot be divided among n_heads={self.n_heads}")
        if self.deepnorm and self.prenorm:
            raise ConfigError("deepnorm", "DeepNorm scales a post-norm residual stream; set prenorm=false with it")
        if dims.mode == "bidirectional":
            if self.form == "recurrent":
                raise ConfigError("form", "the recurrent form only looks back; a bidirectional RetNet is chunkwise")
            if self.denominator == "published":
                raise ConfigError("denominator", "published denominators exist for causal retention only; use common")
