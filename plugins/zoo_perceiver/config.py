"""Configuration of the Perceiver. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_fraction, check_positive

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
    """Hidden width of the latent layers' MLPs, as a multiple of the latents' width."""
    cross_widening: int = 1
    """Hidden width of the cross-attention layer's MLP, as a multiple of the latents' width."""
    d_latents: int | None = None
    """Width of the latents; null = d_model. A linear map at the end brings latents of another width to d_model."""
    qk_channels: int | None = None
    """Channels of queries and keys, all heads together; null = the width of what the keys are made from."""
    v_channels: int | None = None
    """Channels of the values, all heads together; null = as many as the keys have."""
    query_residual: bool = True
    """Add the latents to what they read in the cross-attention."""
    activation: str | None = None
    """Of the MLPs: gelu | gelu_tanh | relu | squared_relu; null = gelu, or squared_relu when causal, as published."""
    rotary_dim: int = 0
    """Causal only: channels of each head that are turned by rotary positions; 0 = only the input's own positions."""
    latent_keys: bool = False
    """Causal only: at the latents' own positions the cross-attention reads the latents, normalised as queries, rather
    than the inputs (lucidrains' form)."""
    dropout: float = 0.0
    """On the output of every sub-layer."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError when the backbone cannot be built for `shape`."""
        check_positive(self, "n_latents", "n_heads", "n_cross_heads", "n_blocks", "widening", "cross_widening")
        check_positive(self, "d_latents", "qk_channels", "v_channels", optional=True)
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
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ConfigError("activation", f"{self.activation!r}: expected null or one of {', '.join(ACTIVATIONS)}")
        check_fraction(self, "dropout")
        if dims.mode == "causal":
            if self.n_blocks != 1:
                raise ConfigError("n_blocks", f"Perceiver AR repeats no block; only 1 applies, got {self.n_blocks}")
            narrowest = min(qk_channels // getattr(self, name) for name, qk_channels in keys.items())
            if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= narrowest:
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
        """Width of the latents, filled in."""
        return dims.d_model if self.d_latents is None else self.d_latents
