"""Rows of a memory: which are real, and how pads stay out of it.

Shapes: B batch, L rows of any kind, T tokens of a segment, M rows of memory, D d_model. A memory is a tensor of full
size beside a mask of its real rows, which stand at its end: the newest is next to the segment. A segment's real rows
are moved to its beginning, so that in [memory; segment] all real rows of a sequence stand together and distances count
nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor


def take_rows(x: Tensor, row: Tensor) -> Tensor:
    """x (B, L, D) at row (B, N) -> (B, N, D)."""
    return x.gather(1, row[..., None].expand(-1, -1, x.shape[-1]))


def real_first(mask: Tensor) -> Tensor:
    """Source indices (B, L) that put each row's real entries first and keep their order: mask (B, L) bool."""
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)


def real_last(mask: Tensor) -> Tensor:
    """Source indices (B, L) that put each row's real entries last and keep their order: mask (B, L) bool."""
    return mask.to(torch.uint8).argsort(dim=1, stable=True)


def kept_rows(valid: Tensor, n_new: Tensor, n_old: int, mem_len: int) -> tuple[Tensor, Tensor]:
    """Which rows of [memory; segment] are the next memory: the last `mem_len` real ones, the newest at the end.

    valid  (B, K) bool: real rows of the memory, which stand at its end, then of the segment, at its beginning
    n_new  (B,) real tokens of the segment
    Returns row indices (B, mem_len) and whether each is real (B, mem_len).
    """
    index = (n_old + n_new)[:, None] - mem_len + torch.arange(mem_len, device=valid.device)
    row = index.clamp_min(0)
    return row, valid.gather(1, row) & (index >= 0)
