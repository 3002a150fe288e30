"""Configuration of Transformer-XL. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, Fraction, ModelDims, NonNegativeInt, PositiveInt


@dataclass
class TransformerXLConfig:
    """Hyperparameters of the architecture; the defaults are the paper's form."""

    n_heads: PositiveInt = 4
    """Attention heads."""
    d_head: PositiveInt | None = None
    """Width of a head; null = d_model / n_heads."""
    d_ff: PositiveInt | None = None
    """Width of the ReLU feed-forward layer; null = 4 * d_model."""
    mem_len: NonNegativeInt | None = None
    """Rows of memory per layer; null = as many as a segment has tokens, as in the paper's training; 0 = no memory."""
    pre_lnorm: bool = False
    """Normalise before each sub-layer instead of after it; as in the reference there is then no final norm."""
    same_length: bool = False
    """Every token sees exactly mem_len keys, itself included; the result then does not depend on how the sequence is
    cut into segments. The published scores are evaluated so, and trained without."""
    clamp_len: PositiveInt | None = None
    """Distances beyond this share one position vector; null = never."""
    dropout: Fraction = 0.0
    """On the position vectors, after attention, twice in the feed-forward layer, and on the output."""
    attn_dropout: Fraction = 0.0
    """On the attention weights."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if self.d_head is None and dims.d_model % self.n_heads:
            raise ConfigError("n_heads", f"{self.n_heads} heads do not divide d_model {dims.d_model}; or set d_head")
        if dims.d_model % 2:
            raise ConfigError("d_model", f"{dims.d_model} is odd; positions need as many sines as cosines")
        if self.same_length and self.mem_len == 0:
            raise ConfigError("same_length", "a window of mem_len = 0 keys shows a token nothing, not even itself")
        if self.same_length and dims.mode != "causal":
            raise ConfigError("same_length", f"a window over the past; it has no meaning in the {dims.mode} mode")
