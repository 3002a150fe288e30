"""Perceiver IO's encoder (Jaegle et al. 2022, arXiv 2107.14795) and Perceiver AR (Hawthorne et al. 2022, 2202.07765).

Shapes: B batch, L seq_len, N latents, D width of the latents, C width of the input, d_model (by default also D).
One layer, for latents z and an input x (x = z in self-attention, then with one norm):

    z <- z + W_o Attention(W_q LN(z), W_k LN(x), W_v LN(x))
    z <- z + MLP(LN(z))

Bidirectional: learned latents read the whole input once, then self-attention among them.
Causal: the latents are the last N inputs; the one at position p reads inputs up to p, then latents up to p.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import MLP, LayerNorm, init_lecun_normal, trunc_normal_
from zoo_perceiver.config import PerceiverConfig
from zoo_perceiver.op import latent_attention


class Attention(nn.Module):
    """Cross-attention with its norms, or self-attention if `d_input` is None; without the output projection."""

    def __init__(
        self,
        d_latents: int,
        d_input: int | None = None,
        *,
        n_heads: int,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        rotary_dim: int = 0,
        latent_keys: bool = False,
    ) -> None:
        super().__init__()
        d_kv = d_latents if d_input is None else d_input
        qk_channels = d_kv if qk_channels is None else qk_channels
        v_channels = qk_channels if v_channels is None else v_channels
        self.n_heads, self.rotary_dim, self.latent_keys = n_heads, rotary_dim, latent_keys
        self.norm_q = LayerNorm(d_latents)
        self.norm_kv = None if d_input is None else LayerNorm(d_input)
        self.W_q = nn.Linear(d_latents, qk_channels)
        self.W_k = nn.Linear(d_kv, qk_channels)
        self.W_v = nn.Linear(d_kv, v_channels)

    def forward(self, z: Tensor, x: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """z (B, N, D), x (B, K, C), visible broadcastable to (B, H, N, K) -> (B, N, v_channels).

        With `latent_keys`, x ends before the latents, whose keys are made of the latents themselves.
        """
        q = self.norm_q(z)
        kv = q if x is None or self.norm_kv is None else self.norm_kv(x)
        if self.latent_keys:
            kv = torch.cat([kv, q], dim=1)
        return latent_attention(self.W_q(q), self.W_k(kv), self.W_v(kv), self.n_heads, visible, self.rotary_dim)


class Layer(nn.Module):
    """Attention and MLP, each with its residual."""

    def __init__(
        self,
        attention: Attention,
        d_latents: int,
        *,
        widening: int = 1,
        activation: str = "gelu",
        query_residual: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.W_o = nn.Linear(attention.W_v.out_features, d_latents)
        self.norm_mlp = LayerNorm(d_latents)
        self.mlp = MLP(d_latents, widening * d_latents, activation=activation)
        self.query_residual = query_residual
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor, x: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """z (B, N, D), x (B, K, C) -> (B, N, D)."""
        read = self.dropout(self.W_o(self.attention(z, x, visible)))
        z = z + read if self.query_residual else read
        return z + self.dropout(self.mlp(self.norm_mlp(z)))


class PerceiverEncoder(nn.Module):
    """Perceiver IO's encoder: learned latents read x once, then `n_blocks` times the same self-attention layers."""

    def __init__(self, n_latents: int, d_latents: int, cross: Layer, layers: list[Layer], n_blocks: int = 1) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(n_latents, d_latents))
        self.cross = cross
        self.layers = nn.ModuleList(layers)
        self.n_blocks = n_blocks

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, L, C), mask (B, L) -> latents (B, N, D). Pads are no keys; latents need no mask."""
        visible = None
        if mask is not None:
            visible = mask[:, None, None, :]
        z = self.latents.to(x.dtype).expand(x.shape[0], -1, -1)
        z = self.cross(z, x, visible)
        for _ in range(self.n_blocks):
            for layer in self.layers:
                z = layer(z)
        return z


class PerceiverAR(nn.Module):
    """Perceiver AR: the last min(N, L) inputs become latents, which read the input causally, then each other."""

    def __init__(self, n_latents: int, d_input: int, d_latents: int, cross: Layer, layers: list[Layer]) -> None:
        super().__init__()
        self.n_latents = n_latents
        self.to_latents = nn.Linear(d_input, d_latents)
        self.cross = cross
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, L, C), mask (B, L), pads first -> latents (B, min(N, L), D) of the last positions."""
        L = x.shape[1]
        N = min(self.n_latents, L)
        position = torch.arange(L, device=x.device)
        visible = position <= position[L - N :, None]  # (N, L): latent u is at position L - N + u
        if mask is not None:
            itself = position == position[L - N :, None]  # a pad's latent is never used, but must be finite
            visible = (visible & mask[:, None, :] | itself)[:, None]  # (B, 1, N, L)
        z = self.to_latents(x[:, L - N :])
        z = self.cross(z, x[:, : L - N] if self.cross.attention.latent_keys else x, visible)
        for layer in self.layers:
            z = layer(z, None, visible[..., L - N :])
        return z


class PerceiverBackbone(Backbone):
    """Perceiver IO's encoder, whose hidden vectors are the latents, or Perceiver AR if causal.

    Causal: hidden[:, i] belongs to position L - N + i.

    Latents of another width than x are mapped to its width at the end.
    """

    def __init__(self, config: PerceiverConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        C, D, causal = dims.d_model, config.latent_width(dims), dims.mode == "causal"
        self.returns_latents, self.pads_first = not causal, causal
        channels: dict[str, Any] = {
            "qk_channels": config.qk_channels,
            "v_channels": config.v_channels,
            "rotary_dim": config.rotary_dim,
        }
        options: dict[str, Any] = {
            "activation": config.activation or ("squared_relu" if causal else "gelu"),
            "dropout": config.dropout,
        }
        cross = Layer(
            Attention(D, C, n_heads=config.n_cross_heads, latent_keys=config.latent_keys, **channels),
            D,
            widening=config.cross_widening,
            query_residual=config.query_residual,
            **options,
        )
        layers = [
            Layer(Attention(D, n_heads=config.n_heads, **channels), D, widening=config.widening, **options)
            for _ in range(dims.n_layers)
        ]
        self.core: PerceiverEncoder | PerceiverAR
        if causal:
            self.core = PerceiverAR(config.n_latents, C, D, cross, layers)
        else:
            self.core = PerceiverEncoder(config.n_latents, D, cross, layers, config.n_blocks)
        self.final_norm = LayerNorm(D)
        self.to_output = nn.Identity() if D == C else nn.Linear(D, C)
        if isinstance(self.core, PerceiverEncoder):
            trunc_normal_(self.core.latents, std=0.02)  # as DeepMind's code
        init_lecun_normal(*(module for module in self.modules() if isinstance(module, nn.Linear)))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        if state is not None:
            raise ValueError("the Perceiver carries no state; expected state=None")
        return Output(self.to_output(self.final_norm(self.core(x, mask))))
