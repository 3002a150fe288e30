"""What a user may choose about BigBird."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_block, check_choice, check_fraction, check_positive

RANDOM_BLOCKS = ("drawn", "first")


@dataclass
class BigBirdConfig:
    """Blocks of tokens that see a window of blocks, two global blocks, and some random ones."""

    block_size: int = 64
    """Tokens of a block."""
    n_random: int = 3
    """Random blocks that every block sees besides its window and the global ones."""
    random_blocks: str = "drawn"
    """drawn | first: block 0 again in place of each random block, counted every time, as transformers evaluates."""
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

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_block(self, dims)
        check_fraction(self, "attn_dropout")
        check_positive(self, "block_size")
        check_choice(self, "random_blocks", RANDOM_BLOCKS)
        if self.random_blocks == "first" and dims.mode == "causal":
            raise ConfigError("random_blocks", "'first' is transformers' evaluation, which is bidirectional")
        for name in ("n_random", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(name, f"expected 0 or more, got {getattr(self, name)}")
