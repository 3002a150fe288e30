"""Configuration of the Perceiver. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, NonNegativeInt, PositiveInt


@dataclass
class PerceiverConfig:
    """Hyperparameters of Perceiver IO's encoder (bidirectional) and of Perceiver AR (causal).

    `model.n_layers` counts the self-attention layers of a block; the one cross-attention layer comes on top.
    """

    n_latents: PositiveInt = 256
    """Latent vectors. Causal: the last n_latents positions of the input, of which alone there are outputs."""
    n_heads: PositiveInt = 4
    """Heads of the latents' self-attention."""
    n_cross_heads: PositiveInt = 4
    """Heads of the cross-attention to the input."""
    n_blocks: PositiveInt = 1
    """Number of times the block of self-attention layers is applied, with the same weights. Bidirectional only."""
    widening: PositiveInt = 1
    """Hidden width of the latent layers' MLPs, as a multiple of the latents' width."""
    cross_widening: PositiveInt = 1
    """Hidden width of the cross-attention layer's MLP, as a multiple of the latents' width."""
    d_latents: PositiveInt | None = None
    """Width of the latents; null = d_model. A linear map at the end brings latents of another width to d_model."""
    qk_channels: PositiveInt | None = None
    """Channels of queries and keys, all heads together; null = the width of what the keys are made from."""
    v_channels: PositiveInt | None = None
    """Channels of the values, all heads together; null = as many as the keys have."""
    query_residual: bool = True
    """Add the latents to the output of the cross-attention."""
    activation: Literal["gelu", "gelu_tanh", "relu", "squared_relu"] | None = None
    """Activation of the MLPs; null = gelu, or squared_relu when causal, as published."""
    rotary_dim: NonNegativeInt = 0
    """Causal only: channels of each head with rotary positions; 0 = only the input's own positions."""
    latent_keys: bool = False
    """Causal only: at the latents' own positions the cross-attention reads the latents, normalised as queries, rather
    than the inputs (lucidrains' form)."""
    dropout: Fraction = 0.0
    """On the output of every sub-layer."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        d_latents = self.latent_width(dims)
        keys = {"n_heads": self.qk_channels or d_latents, "n_cross_heads": self.qk_channels or dims.d_model}
        for name, qk_channels in keys.items():
            heads = getattr(self, name)
            default = "d_latents" if name == "n_heads" and self.d_latents is not None else "d_model"
            if qk_channels % heads:
                raise ConfigError(
                    name, f"{heads} heads do not divide {'qk_channels' if self.qk_channels else default} {qk_channels}"
                )
            if self.v_channels is not None and self.v_channels % heads:
                raise ConfigError(name, f"{heads} heads do not divide v_channels {self.v_channels}")
        if dims.mode == "causal":
            if self.n_blocks != 1:
                raise ConfigError("n_blocks", f"Perceiver AR repeats no block; only 1 applies, got {self.n_blocks}")
            narrowest = min(qk_channels // getattr(self, name) for name, qk_channels in keys.items())
            if self.rotary_dim % 2 or self.rotary_dim > narrowest:
                raise ConfigError(
                    "rotary_dim",
                    f"expected an even number up to the head's {narrowest} channels, got {self.rotary_dim}",
                )
            if self.latent_keys and d_latents != dims.d_model:
                raise ConfigError(
                    "latent_keys", f"latents of width {d_latents} are no keys among inputs of width {dims.d_model}"
                )
        elif self.rotary_dim or self.latent_keys:
            name = "rotary_dim" if self.rotary_dim else "latent_keys"
            raise ConfigError(name, f"the learned latents of the {dims.mode} mode stand at no position of the input")

    def latent_width(self, dims: ModelDims) -> int:
        """d_latents, or its default for these dimensions."""
        return dims.d_model if self.d_latents is None else self.d_latents
