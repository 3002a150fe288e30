"""Perceiver IO's decoder (§3.2), used by converted checkpoints. B batch, N latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.nn import trunc_normal_
from zoo_perceiver.backbone import Attention, Layer


class Decoder(nn.Module):
    """One cross-attention layer whose queries are learned vectors, one for each output."""

    def __init__(
        self,
        *,
        n_queries: int,
        d_query: int,
        d_latents: int,
        n_heads: int,
        qk_channels: int,
        v_channels: int,
        activation: str,
        query_residual: bool,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(n_queries, d_query))
        trunc_normal_(self.queries, std=0.02)
        attention = Attention(d_query, d_latents, n_heads=n_heads, qk_channels=qk_channels, v_channels=v_channels)
        self.layer = Layer(attention, d_query, activation=activation, query_residual=query_residual)

    def forward(self, latents: Tensor) -> Tensor:
        """latents (B, N, d_latents) -> (B, n_queries, d_query)."""
        return self.layer(self.queries.to(latents.dtype).expand(latents.shape[0], -1, -1), latents)
