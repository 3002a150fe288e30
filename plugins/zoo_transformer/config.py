"""Configuration of the Transformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt

from zoo import BlockConfig, ConfigError, Fraction, ModelDims


@dataclass
class TransformerConfig(BlockConfig):
    """The pre-norm block h = x + MHA(LN x), y = h + MLP(LN h)."""

    positions: Literal["rope", "sinusoidal", "learned", "alibi"] = "rope"
    """Position encoding; sinusoidal and learned are added to the input."""
    rope_theta: Annotated[float, Gt(1)] = 10000.0
    """Base of the rotation speeds theta^(-2t/d); only for rope."""
    attn_dropout: Fraction = 0.0
    """Dropout on the attention weights; on a CPU it costs the fused kernel, and with it O(L²) memory."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        super().check(dims)
        d_qkv = self.d_qkv or dims.d_model
        d_head = d_qkv // self.n_heads
        if self.positions == "rope" and d_head % 2:
            raise ConfigError(
                "n_heads", f"rope needs an even head dimension; {d_qkv} / {self.n_heads} heads = {d_head}"
            )
