"""Configuration of the Compressive Transformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_choice, check_fraction, check_positive

COMPRESSIONS = ("conv", "mean", "max")
POSITIONS = ("sinusoidal", "learned")


@dataclass
class CompressiveConfig:
    """Hyperparameters of the architecture; the defaults are the paper's form."""

    n_heads: int = 4
    """Attention heads."""
    d_head: int | None = None
    """Width of a head; null = d_model / n_heads."""
    d_ff: int | None = None
    """Width of the ReLU feed-forward layer; null = 4 * d_model."""
    mem_len: int | None = None
    """Rows of memory per layer; null = as many as a segment has tokens, as in the paper."""
    c_mem_len: int | None = None
    """Rows of compressed memory per layer; null = as many as mem_len, as in the paper's WikiText-103 model."""
    compression_rate: int = 4
    """Rows of memory that become one compressed row (the paper's c: 4 on WikiText-103, 3 on Enwik8, 2 on PG-19)."""
    compression: str = "conv"
    """conv (kernel and stride are the rate; learns by attention reconstruction) | mean | max."""
    reconstruction_weight: float = 1.0
    """Weight of the attention-reconstruction loss. Its gradient reaches the compression only, so under Adam the weight
    hardly matters by itself; it counts in the gradient norm that is clipped."""
    positions: str = "sinusoidal"
    """sinusoidal (relative, as in Transformer-XL) | learned (a vector and a score per distance and layer)."""
    pre_lnorm: bool = False
    """Normalise before each sub-layer instead of after it; memories are normalised when they are read."""
    final_norm: bool = False
    """A layer norm above the last layer, which pre-norm stacks usually have."""
    clamp_len: int | None = None
    """Distances beyond this share one position vector; null = never. Only for sinusoidal positions."""
    dropout: float = 0.0
    """On the position vectors, after attention, twice in the feed-forward layer, and on the output."""
    attn_dropout: float = 0.0
    """On the attention weights."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError when the backbone cannot be built for `shape`."""
        check_positive(self, "n_heads", "compression_rate")
        check_choice(self, "compression", COMPRESSIONS)
        check_choice(self, "positions", POSITIONS)
        if self.d_head is None and dims.d_model % self.n_heads:
            raise ConfigError("n_heads", f"{self.n_heads} heads do not divide d_model {dims.d_model}; or set d_head")
        if self.positions == "sinusoidal" and dims.d_model % 2:
            raise ConfigError("d_model", f"{dims.d_model} is odd; positions need as many sines as cosines")
        check_positive(self, "d_head", "d_ff", "c_mem_len", "clamp_len", optional=True)
        if self.mem_len is not None and self.mem_len < self.compression_rate:
            raise ConfigError(
                "mem_len", f"{self.mem_len} rows are fewer than the {self.compression_rate} that are compressed to one"
            )
        if self.clamp_len is not None and self.positions == "learned":
            raise ConfigError("clamp_len", f"{self.clamp_len}: learned positions have a vector for every distance")
        if self.reconstruction_weight < 0:
            raise ConfigError("reconstruction_weight", f"expected zero or more, got {self.reconstruction_weight}")
        check_fraction(self, "dropout", "attn_dropout")

    def sizes(self, dims: ModelDims) -> tuple[int, int]:
        """Rows of memory and of compressed memory per layer."""
        mem_len = max(dims.max_len, self.compression_rate) if self.mem_len is None else self.mem_len
        return mem_len, mem_len if self.c_mem_len is None else self.c_mem_len
