"""Configuration of BigBird. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import Activation, BlockConfig, ConfigError, Fraction, ModelDims, NonNegativeInt, PositiveInt


@dataclass
class BigBirdConfig(BlockConfig):
    """Block-sparse attention: a window of blocks, two global blocks, and random blocks."""

    block_size: PositiveInt = 64
    """Tokens of a block."""
    n_random: NonNegativeInt = 3
    """Random blocks that every block sees besides its window and the global ones."""
    random_blocks: Literal["drawn", "first"] = "drawn"
    """first: block 0 again in place of each random block, counted every time, as transformers evaluates."""
    seed: NonNegativeInt = 0
    """Seed of the random blocks of each layer and head; not the run's seed."""
    prenorm: bool = True
    """Norms inside the residual branches and one at the end (Long Range Arena); off: after them, as BERT."""
    activation: Activation = "gelu_tanh"
    """Activation of the channel MLP; gelu is exact, gelu_tanh its tanh approximation."""
    attn_dropout: Fraction = 0.0
    """Dropout on the attention weights; on a CPU it costs the fused kernel."""

    @property
    def full_below(self) -> int:
        """Number of blocks up to which bidirectional attention is full."""
        return 5 + 2 * self.n_random

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        super().check(dims)
        if self.random_blocks == "first" and dims.mode == "causal":
            raise ConfigError("random_blocks", "'first' is transformers' evaluation, which is bidirectional")
