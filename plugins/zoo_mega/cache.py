"""What attention carries from call to call: keys and values of the chunk that is still open, row by row.

Rows of a padded batch stop at different places, so each has its own number of carried tokens. Everything is laid out
from the start of the open chunk: column j holds the chunk's token j in every row, and chunks begin at multiples of c.

B batch, M columns of the cache (c - 1, or without chunks all tokens so far), L new tokens, T = M + L columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn import last_real


class Cache(NamedTuple):
    """k (B, M, z), v (B, M, v), real (B, M) bool: a row's carried tokens are those up to its last real column."""

    k: Tensor
    v: Tensor
    real: Tensor


class Columns(NamedTuple):
    """Where [carried; new] of every row goes.

    start  (B,) carried tokens, hence the column of the first new one
    source (B, T) which of the M + L numbers a column takes
    filled (B, T) False where a column takes none
    """

    start: Tensor
    source: Tensor
    filled: Tensor

    def lay(self, carried: Tensor, new: Tensor) -> Tensor:
        """carried (B, M, ·), new (B, L, ·) -> (B, T, ·); what no token fills holds some token's numbers."""
        return torch.cat([carried, new], 1).gather(1, self.source[..., None].expand(-1, -1, new.shape[2]))

    def positions(self, L: int) -> Tensor:
        """Columns of the new tokens: (B, L)."""
        return self.start[:, None] + torch.arange(L, device=self.start.device)


def columns(cache: Cache, L: int) -> Columns:
    """Columns for L new tokens behind those of the cache."""
    M = cache.real.shape[1]
    start = last_real(cache.real)
    j = torch.arange(M + L, device=start.device)
    source = torch.where(j < start[:, None], j, j + (M - start[:, None])).clamp(max=M + L - 1)
    return Columns(start, source, j < start[:, None] + L)


def remember(k: Tensor, v: Tensor, real: Tensor | None, ends: Tensor | int, chunk: int | None) -> Cache:
    """The cache after a call: of k (B, T, z), v (B, T, v), real (B, T) what belongs to each row's open chunk.

    ends   (B,) columns up to each row's last real token, or one number for all
    chunk  c, or None = no chunks: everything stays
    """
    B, T = k.shape[:2]
    if real is None:
        real = torch.ones(B, T, dtype=torch.bool, device=k.device)
    if chunk is not None:
        place = torch.as_tensor(ends, device=k.device).expand(B)[:, None]  # (B, 1)
        j = torch.arange(chunk - 1, device=k.device)
        source = (place - place % chunk + j).clamp(max=T - 1)
        real = real.gather(1, source) & (j < place % chunk)
        k, v = (t.gather(1, source[..., None].expand(-1, -1, t.shape[2])) for t in (k, v))
    pad = ~real[..., None]
    return Cache(k.masked_fill(pad, 0.0), v.masked_fill(pad, 0.0), real)


def in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(B, T, ·) -> (B, C, c, ·), with zeros behind the end."""
    return F.pad(x, (0, 0, 0, -x.shape[1] % chunk)).unflatten(1, (-1, chunk))
