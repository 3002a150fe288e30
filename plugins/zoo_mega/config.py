"""What a user may choose about Mega."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_batch_norm, check_choice, check_fraction, check_positive, check_widths

CHOICES = {
    "attention": ("softmax", "laplace", "relu2"),
    "bias": ("simple", "rotary"),
    "norm": ("layer", "rms", "scale", "batch"),
}


@dataclass
class MegaConfig:
    """The widths default to the paper's proportions on the Long Range Arena: z = d/2, v = ff = 2d."""

    d_attn: int = 0
    """z, the width that queries and keys share; 0 = the largest even number up to d_model / 2, at least 2."""
    d_value: int = 0
    """v, the width of values and reset gate; 0 = 2 d_model."""
    d_ff: int = 0
    """Width inside the channel MLP; 0 = 2 d_model."""
    d_ema: int = 16
    """h, the dimensions that the moving average expands every channel into."""
    attention: str = "softmax"
    """softmax | laplace | relu2: what turns scores into weights; the latter two divide scores by the keys' number."""
    bias: str = "simple"
    """simple: one learned number per lag | rotary: product of two learned, rotated vectors, for any length."""
    chunk_size: int = 128
    """Attention inside chunks of so many tokens, linear in the length; -1: over everything, quadratic."""
    max_positions: int = 0
    """Longest text that the simple bias has lags for when chunk_size=-1, carried state included; 0 = the run's."""
    truncation: int | None = None
    """Taps of the moving average's kernel, only bidirectional; null = as many as tokens."""
    norm: str = "layer"
    """layer | rms | scale (one learned number) | batch (bidirectional only: batch statistics look across time)."""
    prenorm: bool = True
    """Norm before attention and MLP, and one after the last layer; false: norm after each residual sum."""
    dropout: float = 0.0
    """Dropout of the moving average's output, of the candidate, and of what the MLP adds."""

    def resolved_d_attn(self, d_model: int) -> int:
        """d_attn, or its default for this width."""
        return self.d_attn or max(2, d_model // 4 * 2)

    def resolved_d_value(self, d_model: int) -> int:
        """d_value, or its default for this width."""
        return self.d_value or 2 * d_model

    def resolved_d_ff(self, d_model: int) -> int:
        """d_ff, or its default for this width."""
        return self.d_ff or 2 * d_model

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        for name, allowed in CHOICES.items():
            check_choice(self, name, allowed)
        check_widths(self, "d_attn", "d_value", "d_ff", "max_positions")
        check_positive(self, "d_ema")
        if self.bias == "rotary" and self.d_attn % 2:
            raise ConfigError("d_attn", f"the rotary bias turns pairs of channels: expected even, got {self.d_attn}")
        if self.chunk_size != -1 and self.chunk_size < 1:
            raise ConfigError("chunk_size", f"expected at least 1 token, or -1 for no chunks, got {self.chunk_size}")
        if self.chunk_size == -1 and self.bias == "simple" and 0 < self.max_positions < dims.max_len:
            raise ConfigError(
                "max_positions",
                f"{self.max_positions} positions for calls of {dims.max_len} tokens; take more, 0, or bias=rotary",
            )
        if self.truncation is not None and self.truncation < 1:
            raise ConfigError("truncation", f"expected at least 1 tap, or null, got {self.truncation}")
        if self.truncation is not None and dims.mode == "causal":
            raise ConfigError(
                "truncation",
                f"{self.truncation} taps: the recurrence that continues a causal sequence never ends; set null",
            )
        check_batch_norm(self, dims)
        check_fraction(self, "dropout")
