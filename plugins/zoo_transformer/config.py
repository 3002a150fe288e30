"""What a user may choose about the Transformer."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_block, check_choice, check_fraction

POSITIONS = ("rope", "sinusoidal", "learned", "alibi")


@dataclass
class TransformerConfig:
    """The pre-norm block h = x + MHA(LN x), y = h + MLP(LN h)."""

    n_heads: int = 4
    """Attention heads; must divide d_qkv."""
    d_qkv: int = 0
    """Width of all heads together; 0 = d_model."""
    d_ff: int = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    positions: str = "rope"
    """rope | sinusoidal | learned | alibi: how the model knows where a token stands."""
    rope_theta: float = 10000.0
    """Base of the rotation speeds theta^(-2t/d); only for rope."""
    activation: str = "gelu"
    """gelu (exact) | gelu_tanh | relu | silu: in the channel MLP."""
    bias: bool = True
    """Biases in the attention's projections (the MLP always has them)."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    dropout: float = 0.0
    """Dropout on what each sublayer adds, and inside the MLP."""
    attn_dropout: float = 0.0
    """Dropout on the attention weights; on a CPU it costs the fused kernel, and with it O(L²) memory."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_block(self, dims)
        check_fraction(self, "attn_dropout")
        check_choice(self, "positions", POSITIONS)
        d_qkv = self.d_qkv or dims.d_model
        d_head = d_qkv // self.n_heads
        if self.positions == "rope" and d_head % 2:
            raise ConfigError(
                "n_heads", f"rope needs an even head dimension; {d_qkv} / {self.n_heads} heads = {d_head}"
            )
        if self.positions == "rope" and self.rope_theta <= 1:
            raise ConfigError("rope_theta", f"expected a base above 1, got {self.rope_theta}")
