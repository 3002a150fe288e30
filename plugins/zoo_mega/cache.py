"""The attention cache of a causal Mega: keys and values of the chunk that is still open, per sequence.

The sequences of a padded batch end at different positions, so each has its own number of cached tokens. Columns count
from the start of the open chunk: column j holds the chunk's token j in every sequence. Unused columns are zero.

Shapes: B batch, M columns of the cache (c - 1, or all tokens so far without chunks), L new tokens, T = M + L columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn import sequence_lengths


class Cache(NamedTuple):
    """Cached keys k (B, M, z), values v (B, M, E) and real (B, M) bool; a sequence ends at its last real column."""

    k: Tensor
    v: Tensor
    real: Tensor

    def append(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Cache, Tensor]:
        """Append new keys and values with their mask: a cache of T columns, and the new tokens' columns (B, L)."""
        L = k.shape[1]
        at = sequence_lengths(self.real)[:, None] + torch.arange(L, device=k.device)
        new = torch.ones_like(at, dtype=torch.bool) if mask is None else mask
        k = scatter_tokens(F.pad(self.k, (0, 0, 0, L)), at, k)
        v = scatter_tokens(F.pad(self.v, (0, 0, 0, L)), at, v)
        return Cache(k, v, F.pad(self.real, (0, L)).scatter(1, at, new)), at

    def open_chunk(self, c: int) -> Cache:
        """Keep the first c - 1 columns of the chunk that each sequence's next token belongs to."""
        end = sequence_lengths(self.real)[:, None]  # (B, 1)
        column = end - end % c + torch.arange(c - 1, device=end.device)  # (B, c - 1)
        index = column.clamp(max=self.real.shape[1] - 1)
        real = self.real.gather(1, index) & (column < end)
        return Cache(gather_tokens(self.k, index), gather_tokens(self.v, index), real)

    def without_pads(self) -> Cache:
        """Set the keys and values of pads to zero."""
        pad = ~self.real[..., None]
        return Cache(self.k.masked_fill(pad, 0.0), self.v.masked_fill(pad, 0.0), self.real)


def gather_tokens(x: Tensor, at: Tensor) -> Tensor:
    """Take the tokens at (B, L) out of x (B, T, ·): (B, L, ·)."""
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))


def scatter_tokens(x: Tensor, at: Tensor, new: Tensor) -> Tensor:
    """Put new (B, L, ·) at the positions (B, L) of x (B, T, ·), in the dtype of `new`."""
    return x.to(new.dtype).scatter(1, at[..., None].expand(-1, -1, x.shape[-1]), new)
