"""Configuration of the Memformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, PositiveFloat, PositiveInt


@dataclass
class MemformerConfig:
    """Hyperparameters of the architecture; the defaults are the paper's form."""

    n_heads: PositiveInt = 4
    """Attention heads, in reading as in writing."""
    d_ff: PositiveInt | None = None
    """Width of the feed-forward layers; null = 4 * d_model."""
    n_slots: PositiveInt = 32
    """Slots of the memory, each d_model wide; the paper's language models have 32 and find 8 nearly enough."""
    write: Literal["bmn", "gru"] = "bmn"
    """bmn: slot attention, then the forgetting vectors and the norm of the paper. gru: slot attention, a GRU cell and a
    feed-forward layer, as in the public port."""
    temperature: PositiveFloat = 0.25
    """Divides the scores of slot attention under bmn; below 1, as in the paper, a slot concentrates on few tokens."""
    n_updates: PositiveInt = 1
    """Number of updates per segment with write=gru."""
    positions: Literal["absolute", "t5", "port"] = "absolute"
    """absolute: sinusoids added to the input, counted from 0 in every segment, as in the authors' later model (learned
    there). t5: relative bias with T5's buckets, two-sided where attention is two-sided, else one-sided. port: the two
    swapped, as the public port has them; its encoder cannot tell keys on the right from the query's own."""
    n_decoder_layers: PositiveInt | None = None
    """Layers of the decoder in the seq2seq mode; null = as many as the encoder has."""
    dropout: Fraction = 0.0
    """On attention weights, on the output of each sub-layer, and inside the feed-forward layers."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if dims.d_model % self.n_heads:
            raise ConfigError("n_heads", f"{self.n_heads} heads do not divide d_model {dims.d_model}")
        if self.n_updates != 1 and self.write != "gru":
            raise ConfigError("n_updates", f"{self.n_updates} updates per segment need write=gru; bmn writes once")
        if self.n_decoder_layers is not None and dims.mode != "seq2seq":
            raise ConfigError(
                "n_decoder_layers", f"{self.n_decoder_layers} decoder layers, but the {dims.mode} mode has no decoder"
            )
