"""What a user may choose about LongT5. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_choice, check_fraction, check_positive, check_widths

ATTENTIONS = ("transient_global", "local")
FFNS = ("gated_gelu", "relu")


@dataclass
class LongT5Config:
    """The encoder of LongT5 and, in mode seq2seq, T5's decoder over it; defaults as published."""

    n_heads: int = 4
    """Attention heads; must divide d_model unless d_kv is given."""
    d_kv: int = 0
    """Width of a head (64 in the published models); 0 = d_model / n_heads."""
    d_ff: int = 0
    """Width of the feed-forward layer; 0 = 8/3 d_model, as in the published base model."""
    attention: str = "transient_global"
    """transient_global | local: what the encoder's tokens see beside their neighbours."""
    local_radius: int = 127
    """Neighbours seen on each side."""
    global_block: int = 16
    """Tokens summed into one global; fewer left over at the end join the last one. Cost grows as L²/global_block."""
    n_buckets: int = 32
    """Buckets of the relative position bias."""
    max_distance: int = 128
    """Distances from here on share one bucket; among globals it counts blocks."""
    bias_lr_scale: float = 30.0
    """Learning rate of the bias tables, as a multiple of the run's. Ours, not the paper's, which trains with Adafactor:
    a table is added to the scores as it is, so that Adam moves a score through it by its rate per step and no more."""
    ffn: str = "gated_gelu"
    """gated_gelu (T5 1.1 and LongT5; the tanh form) | relu (the first T5)."""
    n_decoder_layers: int = 0
    """Layers of the decoder, only in mode seq2seq; 0 = as many as the encoder has."""
    norm_eps: float = 1e-6
    """Epsilon of the RMS norms."""
    dropout: float = 0.0
    """On inputs and outputs of both stacks, on attention weights, inside the FFN, and on what each sub-layer adds."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_positive(self, "n_heads", "local_radius", "global_block", "norm_eps", "bias_lr_scale")
        check_widths(self, "d_kv", "d_ff", "n_decoder_layers")
        if not self.d_kv and dims.d_model % self.n_heads:
            raise ConfigError(
                "n_heads", f"{self.n_heads} does not divide d_model {dims.d_model}, and d_kv is not given"
            )
        check_choice(self, "attention", ATTENTIONS)
        check_choice(self, "ffn", FFNS)
        if self.n_buckets < 4 or self.n_buckets % 2:
            raise ConfigError("n_buckets", f"expected an even number of at least 4, got {self.n_buckets}")
        # the encoder has a half of the buckets per direction, the decoder all of them for the past
        exact = self.n_buckets // (2 if dims.mode == "seq2seq" else 4)
        if self.max_distance <= exact:
            raise ConfigError(
                "max_distance",
                f"{self.max_distance} must exceed the {exact} distances that n_buckets {self.n_buckets} keeps apart",
            )
        check_fraction(self, "dropout")

    def head_width(self, d_model: int) -> int:
        """d_kv, or what follows from d_model."""
        return self.d_kv or d_model // self.n_heads

    def ffn_width(self, d_model: int) -> int:
        """d_ff, or what follows from d_model."""
        return self.d_ff or 8 * d_model // 3
