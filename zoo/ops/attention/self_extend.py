"""SelfExtend (Jin et al. 2024, §3.2): RoPE attention over more positions than were trained on, without training.

Keys nearer than `window` W are seen at their own distance, farther ones at distances of floor(position / G), so that a
model trained on L0 positions reads (L0 - W) G + W. Causal; for inference only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.ops.chunks import slices
from zoo.ops.dtypes import compute_dtype
from zoo.ops.positions import rope, rope_tables, rotate
from zoo.spec.errors import ConfigError


def self_extend_attention(
    q: Tensor, k: Tensor, v: Tensor, *, group_size: int, window: int, theta: float = 10000.0, block: int = 256
) -> Tensor:
    """SelfExtend: q, k (B, H, L, d) before rotation, v (B, H, L, dv) -> (B, H, L, dv), `block` queries at a time."""
    outs = [
        self_extend_weights(q, k, group_size=group_size, window=window, theta=theta, rows=rows) @ v
        for rows in slices(q.shape[-2], block)
    ]
    return torch.cat(outs, dim=-2)


def self_extend_weights(
    q: Tensor, k: Tensor, *, group_size: int, window: int, theta: float = 10000.0, rows: slice = slice(None)
) -> Tensor:
    """Attention weights of the queries `rows`: q, k (B, H, L, d) before rotation -> (B, H, rows, L).

    Raises ConfigError when G does not divide W: the shift W - W/G of grouped queries must be whole.
    """
    if group_size < 1 or window < 1 or window % group_size:
        raise ConfigError("window", f"must be a positive multiple of group_size {group_size}, got {window}")
    j = torch.arange(k.shape[-2], device=k.device)
    i = j[rows]
    frequencies = rope(k.shape[-1], theta=theta, device=k.device)
    q = q[..., rows, :] / math.sqrt(q.shape[-1])

    def scores(query_positions: Tensor, key_positions: Tensor) -> Tensor:
        rotated = rotate(k, *rope_tables(key_positions, frequencies))
        return rotate(q, *rope_tables(query_positions, frequencies)) @ rotated.transpose(-1, -2)

    near = scores(i, j)
    far = scores(i // group_size + window - window // group_size, j // group_size)
    lag = i[:, None] - j
    chosen = torch.where(lag < window, near, far).masked_fill(lag < 0, -torch.inf)
    return torch.softmax(chosen, dim=-1, dtype=compute_dtype(chosen)).to(chosen.dtype)
