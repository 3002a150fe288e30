"""Which row of [read memory; tokens; write memory] sees which (Bulatov et al. 2022, §3, and its code).

Shapes: B batch, T tokens of the segment, n memory tokens, M rows of cache before them, R = 2n + T rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def published_mask(
    n_mem: int,
    seg_len: int,
    *,
    n_tokens: Tensor | None = None,
    cached: Tensor | None = None,
    read_mem_from_cache: bool = False,
    device: torch.device,
) -> Tensor:
    """True = row may attend to column, (1 or B, R, M + R).

    A token sees the cache, the read rows and the tokens up to itself, never the write rows. A read row sees the read
    rows, a write row all rows; both see the cache only if `read_mem_from_cache`.

    n_tokens  (B,) real tokens of each segment; the write rows follow the last of them, pads come after those and see
              themselves only
    cached    (1 or B, M) bool, the real rows of the cache; None = there is none
    """
    n, rows = n_mem, 2 * n_mem + seg_len
    mem_len = 0 if cached is None else cached.shape[1]
    i = torch.arange(rows, device=device)[:, None]
    j = torch.arange(-mem_len, rows, device=device)
    tokens_end = n + (seg_len if n_tokens is None else n_tokens[:, None, None])
    a_token, a_pad = (i >= n) & (i < tokens_end), i >= tokens_end + n  # (..., R, 1)
    among_read, among_real = (j >= 0) & (j < n), (j >= 0) & (j < tokens_end + n)
    sees = torch.where(a_token, j <= i, torch.where(i < n, among_read, among_real))
    if read_mem_from_cache:
        sees = sees | (j < 0)
    if cached is not None and mem_len:
        real = torch.cat([cached, cached.new_ones(cached.shape[0], rows)], dim=1)  # (B, M + R)
        sees = sees & real[:, None, :]
    sees = torch.where(a_pad, j == i, sees)
    return sees if sees.ndim == 3 else sees[None]
