"""What a user may choose about the Longformer."""

from __future__ import annotations

from dataclasses import dataclass, field

from zoo import ConfigError, ModelDims, check_block, check_fraction


@dataclass
class LongformerConfig:
    """Sliding windows, and a few tokens that see and are seen everywhere."""

    window: list[int] = field(default_factory=lambda: [512])
    """Width W of the window, one number or one per layer: a token sees W/2 keys on each side, and itself."""
    counts_self: bool = False
    """W counts the token itself, as in Long Range Arena: W//2 keys after it, W - W//2 - 1 before it; W may be odd."""
    dilation: list[int] = field(default_factory=lambda: [1])
    """Steps between the keys of a window, one number or one per layer; 1 = neighbours."""
    dilated_heads: int = 0
    """So many heads, the last ones, have the dilation and the others none; 0 = all have it."""
    n_global: int | None = None
    """The first tokens, so many of them, are global; unset = 1 (CLS, where the pooling is cls), causally 0 = none."""
    n_heads: int = 4
    """Attention heads; must divide d_qkv."""
    d_qkv: int = 0
    """Width of all heads together; 0 = d_model."""
    d_ff: int = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    prenorm: bool = True
    """Norms inside the residual branches and one at the end (character models, Long Range Arena); off: after them."""
    activation: str = "gelu"
    """gelu (exact) | gelu_tanh | relu | silu: in the channel MLP."""
    bias: bool = True
    """Biases in the attention's projections (the MLP always has them)."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    dropout: float = 0.0
    """Dropout on what each sublayer adds, and inside the MLP."""
    attn_dropout: float = 0.0
    """Dropout on the attention weights; on a CPU it costs the fused kernel."""

    def globals_in(self, mode: str) -> int:
        """Number of global tokens in this mode."""
        if self.n_global is not None:
            return self.n_global
        # causally a global row sees the first tokens only; the paper's language models have windows alone (§4.1)
        return 0 if mode == "causal" else 1

    def sides(self, layer: int) -> tuple[int, int]:
        """(keys before, keys after) a token that its window shows in this layer."""
        W = self.window[layer if len(self.window) > 1 else 0]
        return (W - W // 2 - 1, W // 2) if self.counts_self else (W // 2, W // 2)

    def dilations(self, layer: int) -> tuple[int, ...]:
        """Dilation of each head in this layer."""
        D, dilated = self.dilation[layer if len(self.dilation) > 1 else 0], self.dilated_heads or self.n_heads
        return (1,) * (self.n_heads - dilated) + (D,) * dilated

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_block(self, dims)
        check_fraction(self, "attn_dropout")
        for name in ("window", "dilation"):
            numbers = getattr(self, name)
            if len(numbers) not in (1, dims.n_layers):
                raise ConfigError(name, f"{len(numbers)} numbers for {dims.n_layers} layers; expected one, or as many")
            if min(numbers) < 1:
                raise ConfigError(name, f"expected positive numbers, got {min(numbers)}")
        odd = [W for W in self.window if W % 2]
        if odd and not self.counts_self:
            raise ConfigError("window", f"{odd[0]} is odd; half of it goes to each side (counts_self takes odd ones)")
        least = 3 if self.counts_self else 2
        if min(self.window) < least:
            raise ConfigError("window", f"{min(self.window)} shows no key before the token; the least is {least}")
        if not 0 <= self.dilated_heads <= self.n_heads:
            raise ConfigError("dilated_heads", f"expected 0 .. {self.n_heads} (n_heads), got {self.dilated_heads}")
        if self.n_global is not None and self.n_global < 0:
            raise ConfigError("n_global", f"expected 0 or more, got {self.n_global}")
