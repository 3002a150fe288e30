"""Configuration of the Transformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt

from zoo import BlockConfig, ConfigError, Fraction, ModelDims, NonNegativeInt, RopeScaling, SelfExtend


@dataclass
class TransformerConfig(BlockConfig):
    """The pre-norm block h = x + MHA(LN x), y = h + MLP(LN h)."""

    n_kv_heads: NonNegativeInt = 0
    """Heads of keys and values, each shared by several heads of queries (grouped-query attention); 0 = n_heads."""
    positions: Literal["rope", "sinusoidal", "learned", "alibi", "none"] = "rope"
    """Position encoding; sinusoidal and learned are added to the input."""
    rope_theta: Annotated[float, Gt(1)] = 10000.0
    """Base of the rotation speeds theta^(-2t/d); only for rope."""
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    """How rope reads beyond the trained length."""
    self_extend: SelfExtend = field(default_factory=SelfExtend)
    """SelfExtend, in evaluation only; for causal rope."""
    attn_dropout: Fraction = 0.0
    """Dropout on the attention weights; on a CPU it costs the fused kernel, and with it O(L²) memory."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        super().check(dims)
        d_qkv = self.d_qkv or dims.d_model
        d_head = d_qkv // self.n_heads
        if self.n_kv_heads and self.n_heads % self.n_kv_heads:
            raise ConfigError("n_kv_heads", f"{self.n_kv_heads} does not divide n_heads {self.n_heads}")
        if self.positions == "rope" and d_head % 2:
            raise ConfigError(
                "n_heads", f"rope needs an even head dimension; {d_qkv} / {self.n_heads} heads = {d_head}"
            )
        scales, extends = self.rope_scaling.rope_type != "default", self.self_extend.group_size > 1
        for key, used in (("rope_scaling.rope_type", scales), ("self_extend.group_size", extends)):
            if used and self.positions != "rope":
                raise ConfigError(key, f"changes rotary positions, and positions is {self.positions}; it needs rope")
        self.rope_scaling.check(d_head)
        self.self_extend.check()
        if extends and scales:
            raise ConfigError("self_extend.group_size", f"goes with no rope_type, got {self.rope_scaling.rope_type}")
        if extends and dims.mode != "causal":
            raise ConfigError("self_extend.group_size", f"needs model.mode causal, got {dims.mode}")
