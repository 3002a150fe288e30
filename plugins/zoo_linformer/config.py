"""What a user may choose about the Linformer."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_block, check_choice, check_fraction

COMPRESS = ("after", "before")


@dataclass
class LinformerConfig:
    """The pre-norm block h = x + MHA(LN x), y = h + MLP(LN h) with compressed keys and values."""

    n_heads: int = 4
    """Attention heads; must divide d_qkv."""
    k: int = 32
    """Compressed length: how many mixtures of positions each query attends to."""
    d_qkv: int = 0
    """Width of all heads together; 0 = d_model."""
    d_ff: int = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    share_kv: bool = True
    """One matrix for keys and values (E = F), the paper's key-value sharing, instead of E and F."""
    share_layers: bool = False
    """One matrix for all layers too, the paper's layerwise sharing; needs share_kv."""
    per_head: bool = False
    """A matrix for each head instead of one for all; needs compress=after."""
    compress: str = "after"
    """after | before: E acts on the projected keys and values, or on the block's input (then biases stay whole)."""
    activation: str = "gelu"
    """gelu (exact) | gelu_tanh | relu | silu: in the channel MLP."""
    bias: bool = True
    """Biases in the attention's projections (the MLP always has them)."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    dropout: float = 0.0
    """Dropout on what each sublayer adds, and inside the MLP."""
    attn_dropout: float = 0.0
    """Dropout on the attention weights."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_block(self, dims)
        check_fraction(self, "attn_dropout")
        if not 1 <= self.k <= dims.max_len:
            raise ConfigError("k", f"expected 1 to max_len {dims.max_len} compressed positions, got {self.k}")
        check_choice(self, "compress", COMPRESS)
        if self.per_head and self.compress == "before":
            raise ConfigError(
                "per_head", "compress=before acts on the input, which has no heads yet; use compress=after"
            )
        if self.share_layers and not self.share_kv:
            raise ConfigError("share_layers", "one matrix for all layers is also one for keys and values; set share_kv")
