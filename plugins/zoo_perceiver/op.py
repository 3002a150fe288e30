"""Attention of a few queries over many keys, and the alignment that Perceiver AR needs.

Shapes: B batch, N queries (latents), K keys, L seq_len, H heads, D width of x.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.attention import join_heads, split_heads
from zoo.ops.positions import rope, rope_tables, rotate


def attend(q: Tensor, k: Tensor, v: Tensor, n_heads: int, visible: Tensor | None = None, rotary_dim: int = 0) -> Tensor:
    """concat over heads of softmax(q kᵀ / sqrt(width of a head)) v.

    q           (B, N, channels of q and k), k (B, K, the same), v (B, K, channels of v)
    visible     bool, broadcastable to (B, H, N, K); a query that sees nothing reads zero
    rotary_dim  channels of each head turned by rotary positions; the queries then stand at the last N keys
    Returns (B, N, channels of v). Memory O((N + K) d): the (N, K) weights live inside PyTorch's kernel.
    """
    q, k, v = (split_heads(x, n_heads) for x in (q, k, v))  # (B, H, N or K, width)
    if rotary_dim:
        position = torch.arange(k.shape[2], device=k.device)
        cos, sin = rope_tables(position, rope(rotary_dim, device=k.device))  # (K, rotary_dim/2)
        N = q.shape[2]
        q, k = _turn(q, cos[-N:], sin[-N:]), _turn(k, cos, sin)
    if visible is None:
        z = F.scaled_dot_product_attention(q, k, v)
    else:
        sees = visible.any(dim=-1, keepdim=True)
        # an empty softmax is opened and its result wiped, so that neither it nor its gradient is a NaN
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | ~sees).masked_fill(~sees, 0.0)
    return join_heads(z)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first channels of every head, pass the rest."""
    turned = 2 * cos.shape[-1]
    return torch.cat([rotate(x[..., :turned], cos, sin), x[..., turned:]], dim=-1)


def trailing_pads(mask: Tensor) -> Tensor:
    """Pads after the last real token of each row, (B, L) -> (B,); L for a row without any."""
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return mask.shape[1] - (mask * place).amax(dim=1)


def roll_rows(x: Tensor, shift: Tensor) -> Tensor:
    """Roll row b of x (B, L, ...) right by shift[b], so that trailing pads come first."""
    L = x.shape[1]
    source = (torch.arange(L, device=x.device) - shift[:, None]) % L  # (B, L)
    return x[torch.arange(x.shape[0], device=x.device)[:, None], source]
