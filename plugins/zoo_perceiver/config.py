"""Configuration of the Perceiver. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from zoo import ConfigError, Shape

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "squared_relu")


@dataclass
class PerceiverConfig:
    """Hyperparameters of Perceiver IO's encoder (bidirectional) and of Perceiver AR (causal).

    `model.n_layers` counts the self-attention layers of a block; the one cross-attention layer comes on top.
    """

    n_latents: int = 256
    """Latent vectors. Causal: the last n_latents positions of the input, of which alone there are outputs."""
    n_heads: int = 4
    """Heads of the latents' self-attention."""
    n_cross_heads: int = 4
    """Heads of the cross-attention to the input."""
    n_blocks: int = 1
    """How often the block of self-attention layers is applied, with the same weights. Bidirectional only."""
    widening: int = 1
    """Hidden width of the latent layers' MLPs, as a multiple of d_model."""
    cross_widening: int = 1
    """Hidden width of the cross-attention layer's MLP, as a multiple of d_model."""
    query_residual: bool = True
    """Add the latents to what they read in the cross-attention."""
    activation: Optional[str] = None  # noqa: UP045  (OmegaConf's structured configurations read this form)
    """Of the MLPs: gelu | gelu_tanh | relu | squared_relu; null = gelu, or squared_relu when causal, as published."""
    rotary_dim: int = 0
    """Causal only: channels of each head that are turned by rotary positions; 0 = only the input's own positions."""
    latent_keys: bool = False
    """Causal only: at the latents' own positions the cross-attention reads the latents, normalised as queries, rather
    than the inputs (lucidrains' form)."""
    dropout: float = 0.0
    """On the output of every sub-layer."""

    def check(self, shape: Shape) -> None:
        """Raise ConfigError when the backbone cannot be built for `shape`."""
        for name in ("n_latents", "n_heads", "n_cross_heads", "n_blocks", "widening", "cross_widening"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"expected a positive number, got {getattr(self, name)}")
        for name in ("n_heads", "n_cross_heads"):
            heads = getattr(self, name)
            if shape.d_model % heads:
                raise ConfigError(name, f"{heads} heads do not divide d_model {shape.d_model}")
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ConfigError("activation", f"{self.activation!r}: expected null or one of {', '.join(ACTIVATIONS)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError("dropout", f"expected a fraction in [0, 1), got {self.dropout}")
        if shape.mode == "causal":
            if self.n_blocks != 1:
                raise ConfigError("n_blocks", f"Perceiver AR repeats no block; only 1 applies, got {self.n_blocks}")
            narrowest = shape.d_model // max(self.n_heads, self.n_cross_heads)
            if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= narrowest:
                raise ConfigError(
                    "rotary_dim",
                    f"expected an even number up to the head's {narrowest} channels, got {self.rotary_dim}",
                )
        elif self.rotary_dim or self.latent_keys:
            name = "rotary_dim" if self.rotary_dim else "latent_keys"
            raise ConfigError(name, f"the learned latents of the {shape.mode} mode stand at no position of the input")
