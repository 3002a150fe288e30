"""Configuration of the Longformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field

from zoo import BlockConfig, ConfigError, Fraction, ModelDims, NonNegativeInt, PositiveInt


@dataclass
class LongformerConfig(BlockConfig):
    """Sliding-window attention, and a few tokens with global attention."""

    window: list[PositiveInt] = field(default_factory=lambda: [512])
    """Width W of the window, one number or one per layer: a token sees W/2 keys on each side, and itself."""
    counts_self: bool = False
    """W counts the token itself, as in Long Range Arena: W//2 keys after it, W - W//2 - 1 before it; W may be odd."""
    dilation: list[PositiveInt] = field(default_factory=lambda: [1])
    """Steps between the keys of a window, one number or one per layer; 1 = neighbours."""
    dilated_heads: NonNegativeInt = 0
    """Number of heads, the last ones, that are dilated; 0 = all."""
    n_global: NonNegativeInt | None = None
    """Number of first tokens that are global; null = 1 (CLS, where the pooling is cls), or 0 when causal."""
    prenorm: bool = True
    """Norms inside the residual branches and one at the end (character models, Long Range Arena); off: after them."""
    attn_dropout: Fraction = 0.0
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
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        super().check(dims)
        for name in ("window", "dilation"):
            numbers = getattr(self, name)
            if len(numbers) not in (1, dims.n_layers):
                raise ConfigError(name, f"{len(numbers)} numbers for {dims.n_layers} layers; expected one, or as many")
        odd = [W for W in self.window if W % 2]
        if odd and not self.counts_self:
            raise ConfigError("window", f"{odd[0]} is odd; half of it goes to each side (counts_self takes odd ones)")
        least = 3 if self.counts_self else 2
        if min(self.window) < least:
            raise ConfigError("window", f"{min(self.window)} shows no key before the token; the least is {least}")
        if self.dilated_heads > self.n_heads:
            raise ConfigError("dilated_heads", f"expected at most n_heads {self.n_heads}, got {self.dilated_heads}")
