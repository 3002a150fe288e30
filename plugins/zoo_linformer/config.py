"""Configuration of the Linformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import BlockConfig, ConfigError, Fraction, ModelDims, PositiveInt


@dataclass
class LinformerConfig(BlockConfig):
    """The pre-norm block h = x + MHA(LN x), y = h + MLP(LN h) with compressed keys and values."""

    k: PositiveInt = 32
    """Compressed length: how many mixtures of positions each query attends to."""
    share_kv: bool = True
    """One matrix for keys and values (E = F), the paper's key-value sharing, instead of E and F."""
    share_layers: bool = False
    """One matrix for all layers too, the paper's layerwise sharing; needs share_kv."""
    per_head: bool = False
    """A matrix for each head instead of one for all; needs compress=after."""
    compress: Literal["after", "before"] = "after"
    """E acts on the projected keys and values (after) or on the block's input (before; biases are not compressed)."""
    attn_dropout: Fraction = 0.0
    """Dropout on the attention weights."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        super().check(dims)
        if self.k > dims.max_len:
            raise ConfigError("k", f"expected at most max_len {dims.max_len} compressed positions, got {self.k}")
        if self.per_head and self.compress == "before":
            raise ConfigError(
                "per_head", "compress=before acts on the input, which has no heads yet; use compress=after"
            )
        if self.share_layers and not self.share_kv:
            raise ConfigError("share_layers", "one matrix for all layers is also one for keys and values; set share_kv")
