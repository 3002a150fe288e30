"""Which row of [read memory; tokens; write memory] sees which (Bulatov et al. 2022, §3, and its code).

Shapes: B batch, T tokens of the segment, n memory tokens, M rows of cache before them, R = 2n + T rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_mask(
    n: int,
    T: int,
    *,
    n_tokens: Tensor | None = None,
    cached: Tensor | None = None,
    read_mem_from_cache: bool = False,
    device: torch.device,
) -> Tensor:
    """Compute which rows attend to which columns, True = visible: (1 or B, R, M + R).

    A token sees the cache, the read rows and the tokens up to itself, never the write rows. A read row sees the read
    rows, a write row sees all rows; both see the cache only if `read_mem_from_cache`.

    n_tokens  (B,) real tokens of each segment; the write rows follow the last of them, then come pads, which see
              themselves only. None = all T are real
    cached    (1 or B, M) bool, the real rows of the cache; None = no cache
    """
    R, M = 2 * n + T, 0 if cached is None else cached.shape[1]
    i = torch.arange(R, device=device)[:, None]
    j = torch.arange(-M, R, device=device)
    end = n + (T if n_tokens is None else n_tokens[:, None, None])  # where the tokens end
    is_token, is_pad = (i >= n) & (i < end), i >= end + n  # (..., R, 1)
    visible = torch.where(is_token, j <= i, (j >= 0) & (j < torch.where(i < n, n, end + n)))
    if read_mem_from_cache:
        visible = visible | (j < 0)
    if cached is not None:
        real = torch.cat([cached, cached.new_ones(cached.shape[0], R)], dim=1)  # (B, M + R)
        visible = visible & real[:, None, :]
    visible = torch.where(is_pad, j == i, visible)
    return visible if visible.ndim == 3 else visible[None]
