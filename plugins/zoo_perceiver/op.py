"""Attention with partly rotated channels, and the row shifts that Perceiver AR needs.

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


def roll_rows(x: Tensor, shift: Tensor) -> Tensor:
    """Roll row b of x (B, L, ...) right by shift[b], so that trailing pads come first."""
    L = x.shape[1]
    source = (torch.arange(L, device=x.device) - shift[:, None]) % L  # (B, L)
    return x[torch.arange(x.shape[0], device=x.device)[:, None], source]


def shift_left(latents: Tensor, shift: Tensor) -> Tensor:
    """Move row b of the latents (B, N, D) left by its number of trailing pads, shift[b]; pads get zero.

    `hidden[:, i]` belongs to position L - N + i, but the latents are those of the row's last real positions, which
    begin at L - N - shift. The first `shift` of them are dropped.
    """
    N = latents.shape[1]
    index = torch.arange(N, device=latents.device) + shift[:, None]  # (B, N)
    moved = latents.gather(1, index.clamp_max(N - 1)[..., None].expand_as(latents))
    return moved.masked_fill((index >= N)[..., None], 0.0)
