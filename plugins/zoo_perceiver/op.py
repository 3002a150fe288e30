"""Attention with partly rotated channels.

Shapes: B batch, N queries (latents), K keys, L seq_len, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.attention import attention, join_heads, split_heads
from zoo.ops.positions import rope, rope_tables, rotate


def latent_attention(
    q: Tensor, k: Tensor, v: Tensor, n_heads: int, visible: Tensor | None = None, rotary_dim: int = 0
) -> Tensor:
    """Compute concat over heads of softmax(q kᵀ / sqrt(width of a head)) v: (B, N, channels of v).

    q           (B, N, channels of q and k), k (B, K, the same), v (B, K, channels of v)
    visible     bool, broadcastable to (B, H, N, K); a query without a visible key gets zero
    rotary_dim  channels of each head that rotary positions rotate; the queries are then at the last N keys

    Memory O((N + K) d): the (N, K) weights exist only inside PyTorch's kernel.
    """
    q, k, v = (split_heads(x, n_heads) for x in (q, k, v))  # (B, H, N or K, width)
    if rotary_dim:
        N, position = q.shape[2], torch.arange(k.shape[2], device=k.device)
        cos, sin = rope_tables(position, rope(rotary_dim, device=k.device))  # (K, rotary_dim/2)
        q, k = rotate_first(q, cos[-N:], sin[-N:]), rotate_first(k, cos, sin)
    return join_heads(attention(q, k, v, visible=visible))


def rotate_first(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first channels of every head, and pass the rest."""
    n = 2 * cos.shape[-1]
    return torch.cat([rotate(x[..., :n], cos, sin), x[..., n:]], dim=-1)
