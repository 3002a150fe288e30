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
from zoo.ops.positions import real_positions, rope, rope_tables, rotate
from zoo.spec.errors import ConfigError


def self_extend_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    group_size: int,
    window: int,
    mask: Tensor | None = None,
    theta: float = 10000.0,
    block: int = 256,
) -> Tensor:
    """SelfExtend: q (B, H, Lq, d), k (B, H, L, d) before rotation, v (B, H, L, dv) -> (B, H, Lq, dv).

    The queries are the last Lq of the L tokens; `block` of them are computed at a time. mask (B, L), True = real key.
    """
    outs = [
        self_extend_weights(q, k, group_size=group_size, window=window, mask=mask, theta=theta, rows=rows) @ v
        for rows in slices(q.shape[-2], block)
    ]
    return torch.cat(outs, dim=-2)


def self_extend_weights(
    q: Tensor,
    k: Tensor,
    *,
    group_size: int,
    window: int,
    mask: Tensor | None = None,
    theta: float = 10000.0,
    rows: slice = slice(None),
) -> Tensor:
    """Attention weights of the queries `rows`, with the arguments of `self_extend_attention` -> (B, H, rows, L).

    Raises ConfigError when G does not divide W: the shift W - W/G of grouped queries must be whole.
    """
    if group_size < 1 or window < 1 or window % group_size:
        raise ConfigError("window", f"must be a positive multiple of group_size {group_size}, got {window}")
    index = torch.arange(k.shape[-2], device=k.device)
    j = index if mask is None else real_positions(mask)[:, None]  # (L,) or (B, 1, L)
    i = j[..., k.shape[-2] - q.shape[-2] :][..., rows]
    hidden = index > index[k.shape[-2] - q.shape[-2] :][rows][:, None]  # (rows, L)
    hidden = hidden if mask is None else hidden | ~mask[:, None, None, :]
    frequencies = rope(k.shape[-1], theta=theta, device=k.device)
    q = q[..., rows, :] / math.sqrt(q.shape[-1])

    def scores(query_positions: Tensor, key_positions: Tensor) -> Tensor:
        rotated = rotate(k, *rope_tables(key_positions, frequencies))
        return rotate(q, *rope_tables(query_positions, frequencies)) @ rotated.transpose(-1, -2)

    near = scores(i, j)
    far = scores(i // group_size + window - window // group_size, j // group_size)
    is_near = i[..., :, None] - j[..., None, :] < window
    chosen = torch.where(is_near, near, far).masked_fill(hidden, -torch.inf)
    weights = torch.softmax(chosen, dim=-1, dtype=compute_dtype(chosen)).to(chosen.dtype)
    return weights.masked_fill(hidden, 0)  # a query that sees no key: NaN before
