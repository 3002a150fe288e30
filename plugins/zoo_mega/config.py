"""Configuration of Mega. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, NonNegativeInt, PositiveInt


@dataclass
class MegaConfig:
    """The widths default to the paper's proportions on the Long Range Arena: z = d/2, v = ff = 2d."""

    d_attn: NonNegativeInt = 0
    """z, the width that queries and keys share; 0 = the largest even number up to d_model / 2, at least 2."""
    d_value: NonNegativeInt = 0
    """v, the width of values and reset gate; 0 = 2 d_model."""
    d_ff: NonNegativeInt = 0
    """Width inside the channel MLP; 0 = 2 d_model."""
    d_ema: PositiveInt = 16
    """h, the dimensions that the moving average expands every channel into."""
    attention: Literal["softmax", "laplace", "relu2"] = "softmax"
    """Attention function on the scores; laplace and relu2 divide them by the number of keys."""
    bias: Literal["simple", "rotary"] = "simple"
    """Relative position bias. simple: one learned number per lag. rotary: product of two learned, rotated vectors, for
    any length."""
    chunk_size: int = 128
    """Tokens of a chunk; attention stays inside chunks, linear in the length. -1 = no chunks, quadratic."""
    max_positions: NonNegativeInt = 0
    """Longest text that the simple bias has lags for when chunk_size=-1, carried state included; 0 = the run's."""
    truncation: PositiveInt | None = None
    """Taps of the moving average's kernel, bidirectional only; null = as many as tokens."""
    norm: Literal["layer", "rms", "scale", "batch"] = "layer"
    """scale has one learned number; batch is bidirectional only, because batch statistics look across time."""
    prenorm: bool = True
    """Norm before attention and MLP, and one after the last layer; false: norm after each residual sum."""
    dropout: Fraction = 0.0
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
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        if self.bias == "rotary" and self.d_attn % 2:
            raise ConfigError("d_attn", f"the rotary bias turns pairs of channels: expected even, got {self.d_attn}")
        if self.chunk_size < 1 and self.chunk_size != -1:
            raise ConfigError("chunk_size", f"expected at least 1 token, or -1 for no chunks, got {self.chunk_size}")
        if self.chunk_size == -1 and self.bias == "simple" and 0 < self.max_positions < dims.max_len:
            raise ConfigError(
                "max_positions",
                f"{self.max_positions} positions for calls of {dims.max_len} tokens; take more, 0, or bias=rotary",
            )
        if self.truncation is not None and dims.mode == "causal":
            raise ConfigError(
                "truncation",
                f"{self.truncation} taps: the recurrence that continues a causal sequence never ends; set null",
            )
        if self.norm == "batch" and dims.mode == "causal":
            raise ConfigError("norm", "batch norm averages over time: a causal model would see the future; use layer")
