"""Attention over [memory; segment] by content and distance (Dai et al. 2019, Transformer-XL, §3.3).

B batch, H heads, T tokens of the segment, M rows of memory, K = M + T keys, D d_model, E width of a head, P position
rows. Query i of the segment stands at key index M + i, so its distance to key j is M + i - j. Position rows are ordered
by falling distance: from K-1 to 0 when only the past is seen, to -(T-1) when both sides are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.dtypes import compute_dtype, wide_dtype
from zoo.ops.tracing import without_autocast


def distances(n_queries: int, n_keys: int, *, two_sided: bool, device: torch.device) -> Tensor:
    """The distances i - j of all position rows: (K,) from K-1 down to 0, or (K+T-1,) down to -(T-1)."""
    lowest = 1 - n_queries if two_sided else 0
    return torch.arange(n_keys - 1, lowest - 1, -1, device=device)


def sinusoids(distance: Tensor, d_model: int, clamp_len: int | None = None) -> Tensor:
    """Position vectors R(t) = [sin(t f) | cos(t f)], f_n = 10000^(-2n/D): (P,) -> (P, D) in the wide dtype."""
    t = distance.to(wide_dtype(distance.device))
    if clamp_len is not None:
        t = t.clamp(-clamp_len, clamp_len)
    f = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=t.dtype, device=t.device) / d_model)
    angle = t[:, None] * f  # (P, D/2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def rel_shift(x: Tensor, n_keys: int) -> Tensor:
    """Turn scores by distance into scores by key: x (B, H, T, P) -> y (B, H, T, K) with y[i, j] = x[i, T-1-i+j].

    Row i is read T-1-i columns further right. With one column more in front that is a view: in the flat array every
    row then starts one element later than the last. With P = K (past only) the entries j > K-T+i are values of the
    next row: the attention must mask them.
    """
    return _shift_padded(F.pad(x, (1, 0)), n_keys)


def _shift_padded(x: Tensor, n_keys: int) -> Tensor:
    """`rel_shift` as a view: x (B, H, T, 1+P), whose first column is never read -> (B, H, T, K)."""
    B, H, T, columns = x.shape
    return x.view(B, H, columns, T)[:, :, 1:].view(B, H, T, columns - 1)[..., :n_keys]


def visible_keys(
    n_queries: int,
    n_keys: int,
    *,
    two_sided: bool = False,
    window: int | None = None,
    valid: Tensor | None = None,
    device: torch.device,
) -> Tensor:
    """Boolean mask (T, K) of the keys each query sees: the past and itself (two-sided: all), within `window` keys.

    valid  (B, K) bool, the keys that are real -> (B, T, K). Then a query sees itself even where it is a pad, so that
           no softmax is empty; nothing real ever sees a pad.
    """
    i = torch.arange(n_keys - n_queries, n_keys, device=device)[:, None]
    distance = i - torch.arange(n_keys, device=device)
    seen = torch.ones_like(distance, dtype=torch.bool) if two_sided else distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    return seen if valid is None else seen & valid[:, None, :] | (distance == 0)


def relative_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor,
    u: Tensor,
    w: Tensor | None,
    visible: Tensor,
    dropout: float = 0.0,
    s: Tensor | None = None,
) -> Tensor:
    """Compute softmax(A^rel) V, with the four terms of A^rel paired as (a)+(c) and (b)+(d).

    q        (B, T, H, E) queries of the segment
    k, v     (B, K, H, E) keys (W_{k,E} of the hidden states) and values of [memory; segment]
    r        (P, H, E) position keys W_{k,R} R_{i-j}, by falling distance; P = K or K+T-1
    u, w     (H, E) the paper's u (content bias) and v (position bias; None = zero)
    visible  bool, broadcastable to (B, H, T, K); every query must see a key
    s        (P, H) a score of each distance whatever the query, scaled like the others; None = zero
    Returns (B, T, H, E).
    """
    scale = q.shape[-1] ** -0.5
    q, k, v = (x.transpose(1, 2) for x in (q * scale, k, v))  # (B, H, T or K, E)
    r = F.pad(r, (0, 0, 0, 0, 1, 0)).permute(1, 2, 0)  # (H, E, 1+P): the column that the shift needs, for free
    content = (q + u[:, None] * scale) @ k.transpose(-1, -2)  # (a) + (c)
    by_distance = (q if w is None else q + w[:, None] * scale) @ r  # (b) + (d), (B, H, T, 1+P)
    if s is not None:
        by_distance = by_distance + F.pad(s * scale, (0, 0, 1, 0)).T[:, None]
    position = _shift_padded(by_distance, k.shape[-2])
    with without_autocast(q):
        # in place, and the mask as a summand: passes over the (T, K) scores are what costs time beside the products
        score = content.to(compute_dtype(content)).add_(position)
        hidden = torch.zeros_like(visible, dtype=score.dtype).masked_fill(~visible, -torch.inf)
        weight = score.add_(hidden).softmax(dim=-1)
    weight = F.dropout(weight, dropout, training=dropout > 0.0).to(v.dtype)
    return (weight @ v).transpose(1, 2)
