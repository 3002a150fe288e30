"""The key-value cache of causal softmax attention, a state that grows with the text.

B batch, H heads of keys and values, L new tokens, T all tokens so far, d head dimension. A cache is a state (`State`)
{"k", "v": (B, H, T, d), "real": (B, T) bool}: pads stay in it, masked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.backbone import State
from zoo.ops.attention import attention


def init_cache(batch: int, n_heads: int, d_head: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
    """Create the cache before the first token: T = 0."""
    k, v = (torch.zeros(batch, n_heads, 0, d_head, device=device, dtype=dtype) for _ in range(2))
    return {"k": k, "v": v, "real": torch.zeros(batch, 0, device=device, dtype=torch.bool)}


def extend_cache(cache: State, k: Tensor, v: Tensor, mask: Tensor | None) -> State:
    """Append the keys and values (B, H, L, d) of new tokens, mask (B, L), to a cache; None = none before."""
    real = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device) if mask is None else mask
    if mask is not None:
        k, v = (z.masked_fill(~mask[:, None, :, None], 0.0) for z in (k, v))
    if cache is None:
        return {"k": k, "v": v, "real": real}
    # under autocast the cache may be wider than what is projected now
    k, v = (torch.cat([cache[name].to(z.dtype), z], 2) for name, z in (("k", k), ("v", v)))
    return {"k": k, "v": v, "real": torch.cat([cache["real"], real], 1)}


def attend_to_cache(
    q: Tensor,
    cache: State,
    *,
    all_real: bool = False,
    key_bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of the last L tokens, q (B, n H, L, d), to all tokens so far: (B, n H, L, d).

    n         query heads that share a head of keys and values (grouped-query attention, Ainslie et al. 2023)
    all_real  nothing in the cache is a pad, which spares the mask
    key_bias  (1 or B, n H, 1, T), as of `attention`
    """
    groups, seq_len = q.shape[1] // cache["k"].shape[1], q.shape[2]
    k, v = (repeat_heads(cache[name], groups) for name in ("k", "v"))
    if seq_len > 1:  # zero queries at earlier tokens, so that query i sees keys 0 .. i
        q = F.pad(q, (0, 0, k.shape[2] - seq_len, 0))
    mask = None if all_real else cache["real"]
    return attention(q, k, v, mask=mask, causal=seq_len > 1, key_bias=key_bias, dropout=dropout)[:, :, -seq_len:]


def repeat_heads(x: Tensor, groups: int) -> Tensor:
    """Repeat each head of keys or values for the query heads that share it: (B, H, T, d) -> (B, groups H, T, d)."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
