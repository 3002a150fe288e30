"""Configuration of LongT5. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, MultipleOf

from zoo import ConfigError, Fraction, ModelDims, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class LongT5Config:
    """The encoder of LongT5 and, in mode seq2seq, T5's decoder over it; defaults as published."""

    n_heads: PositiveInt = 4
    """Attention heads; must divide d_model unless d_kv is given."""
    d_kv: NonNegativeInt = 0
    """Width of a head (64 in the published models); 0 = d_model / n_heads."""
    d_ff: NonNegativeInt = 0
    """Width of the feed-forward layer; 0 = 8/3 d_model, as in the published base model."""
    attention: Literal["transient_global", "local"] = "transient_global"
    """Attention of the encoder: to neighbours and transient globals, or to neighbours only."""
    local_radius: PositiveInt = 127
    """Neighbours seen on each side."""
    global_block: PositiveInt = 16
    """Tokens summed into one global; fewer left over at the end join the last one. Cost grows as L²/global_block."""
    n_buckets: Annotated[int, Ge(4), MultipleOf(2)] = 32
    """Buckets of the relative position bias."""
    max_distance: int = 128
    """Distances from here on share one bucket; among globals it counts blocks."""
    bias_lr_scale: PositiveFloat = 30.0
    """Learning rate of the bias tables, as a multiple of the run's. Ours, not the paper's, which trains with Adafactor:
    a table is added to the scores unscaled, so that one step of Adam changes a score by at most its rate."""
    ffn: Literal["gated_gelu", "relu"] = "gated_gelu"
    """Feed-forward layer: gated_gelu of T5 1.1 and LongT5 (the tanh form), or relu of the first T5."""
    n_decoder_layers: NonNegativeInt = 0
    """Layers of the decoder, only in mode seq2seq; 0 = as many as the encoder has."""
    norm_eps: PositiveFloat = 1e-6
    """Epsilon of the RMS norms."""
    dropout: Fraction = 0.0
    """On inputs and outputs of both stacks, on attention weights, inside the FFN, and on what each sub-layer adds."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if not self.d_kv and dims.d_model % self.n_heads:
            raise ConfigError(
                "n_heads", f"{self.n_heads} does not divide d_model {dims.d_model}, and d_kv is not given"
            )
        # the encoder has a half of the buckets per direction, the decoder all of them for the past
        exact = self.n_buckets // (2 if dims.mode == "seq2seq" else 4)
        if self.max_distance <= exact:
            raise ConfigError(
                "max_distance",
                f"{self.max_distance} must exceed the {exact} distances that n_buckets {self.n_buckets} keeps apart",
            )

    def head_width(self, d_model: int) -> int:
        """d_kv, or its default for this width."""
        return self.d_kv or d_model // self.n_heads

    def ffn_width(self, d_model: int) -> int:
        """d_ff, or its default for this width."""
        return self.d_ff or 8 * d_model // 3
