"""Configuration of the Compressive Transformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, NonNegativeFloat, PositiveInt


@dataclass
class CompressiveConfig:
    """Hyperparameters of the architecture; the defaults are the paper's form."""

    n_heads: PositiveInt = 4
    """Attention heads."""
    d_head: PositiveInt | None = None
    """Width of a head; null = d_model / n_heads."""
    d_ff: PositiveInt | None = None
    """Width of the ReLU feed-forward layer; null = 4 * d_model."""
    mem_len: PositiveInt | None = None
    """Rows of memory per layer; null = as many as a segment has tokens, as in the paper."""
    c_mem_len: PositiveInt | None = None
    """Rows of compressed memory per layer; null = as many as mem_len, as in the paper's WikiText-103 model."""
    compression_rate: PositiveInt = 4
    """Rows of memory that become one compressed row (the paper's c: 4 on WikiText-103, 3 on Enwik8, 2 on PG-19)."""
    compression: Literal["conv", "mean", "max"] = "conv"
    """conv: kernel and stride are the rate; it learns by attention reconstruction. mean, max: pooling."""
    reconstruction_weight: NonNegativeFloat = 1.0
    """Weight of the attention-reconstruction loss. Its gradient reaches the compression only, so under Adam the weight
    hardly matters by itself; it counts in the gradient norm that is clipped."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """sinusoidal: relative, as in Transformer-XL. learned: a vector and a score per distance and layer."""
    pre_lnorm: bool = False
    """Normalise before each sub-layer instead of after it; memories are normalised when they are read."""
    final_norm: bool = False
    """A layer norm above the last layer, which pre-norm stacks usually have."""
    clamp_len: PositiveInt | None = None
    """Distances beyond this share one position vector; null = never. Only for sinusoidal positions."""
    dropout: Fraction = 0.0
    """On the position vectors, after attention, twice in the feed-forward layer, and on the output."""
    attn_dropout: Fraction = 0.0
    """On the attention weights."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if self.d_head is None and dims.d_model % self.n_heads:
            raise ConfigError("n_heads", f"{self.n_heads} heads do not divide d_model {dims.d_model}; or set d_head")
        if self.positions == "sinusoidal" and dims.d_model % 2:
            raise ConfigError("d_model", f"{dims.d_model} is odd; positions need as many sines as cosines")
        if self.mem_len is not None and self.mem_len < self.compression_rate:
            raise ConfigError(
                "mem_len", f"{self.mem_len} rows are fewer than the {self.compression_rate} that are compressed to one"
            )
        if self.clamp_len is not None and self.positions == "learned":
            raise ConfigError("clamp_len", f"{self.clamp_len}: learned positions have a vector for every distance")

    def sizes(self, dims: ModelDims) -> tuple[int, int]:
        """Rows of memory and of compressed memory per layer."""
        mem_len = max(dims.max_len, self.compression_rate) if self.mem_len is None else self.mem_len
        return mem_len, mem_len if self.c_mem_len is None else self.c_mem_len
