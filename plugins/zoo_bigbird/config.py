"""What a user may choose about BigBird."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, Shape

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


@dataclass
class BigBirdConfig:
    """Blocks of tokens that see a window of blocks, two global blocks, and some random ones."""

    block_size: int = 64
    """Tokens of a block."""
    n_random: int = 3
    """Random blocks that every block sees besides its window and the global ones."""
    seed: int = 0
    """Decides which blocks are the random ones, with layer and head; not the run's seed."""
    n_heads: int = 4
    """Attention heads; must divide d_qkv."""
    d_qkv: int = 0
    """Width of all heads together; 0 = d_model."""
    d_ff: int = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    prenorm: bool = True
    """Norms inside the residual branches and one at the end (Long Range Arena); off: after them, as BERT."""
    activation: str = "gelu_tanh"
    """gelu (exact) | gelu_tanh | relu | silu: in the channel MLP."""
    bias: bool = True
    """Biases in the attention's projections (the MLP always has them)."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    dropout: float = 0.0
    """Dropout on what each sublayer adds, and inside the MLP."""
    attn_dropout: float = 0.0
    """Dropout on the attention weights; on a CPU it costs the fused kernel."""

    @property
    def full_below(self) -> int:
        """Up to so many blocks a bidirectional example is attended to in full."""
        return 5 + 2 * self.n_random

    def check(self, shape: Shape) -> None:
        """Raise ConfigError for what cannot be built."""
        for name in ("n_heads", "block_size"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"expected a positive number, got {getattr(self, name)}")
        for name in ("d_qkv", "d_ff"):
            if getattr(self, name) < 0:
                raise ConfigError(name, f"expected a positive number, or 0 for the default, got {getattr(self, name)}")
        for name in ("n_random", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(name, f"expected 0 or more, got {getattr(self, name)}")
        d_qkv = self.d_qkv or shape.d_model
        if d_qkv % self.n_heads:
            width = f"d_qkv {d_qkv}" if self.d_qkv else f"d_model {d_qkv}"
            raise ConfigError("n_heads", f"{self.n_heads} does not divide {width}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError("activation", f"{self.activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if self.norm_eps <= 0:
            raise ConfigError("norm_eps", f"expected a positive number, got {self.norm_eps}")
        for name in ("dropout", "attn_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(name, f"expected a number in [0, 1), got {getattr(self, name)}")
