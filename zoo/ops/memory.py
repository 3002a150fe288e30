"""Rows of a memory: which are real, and how pads stay out of it.

B batch, L rows of any kind, T tokens of a segment, M rows of memory. A memory is a tensor of full size beside a mask of
its real rows, which stand at its end: the newest is next to the segment. A segment's real rows are moved to its
beginning, so that in [memory; segment] all real rows of a sequence stand together and distances count nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.rows import take_rows


def real_first(mask: Tensor) -> Tensor:
    """Source indices (B, L) that put each row's real entries first and keep their order: mask (B, L) bool."""
    return real_last(~mask)


def real_last(mask: Tensor) -> Tensor:
    """Source indices (B, L) that put each row's real entries last and keep their order: mask (B, L) bool."""
    # a stable argsort, by the inverse of its permutation: ONNX has no sort that is stable
    pads = ~mask
    place = torch.where(mask, pads.sum(1, keepdim=True) + mask.cumsum(1), pads.cumsum(1)) - 1
    source = torch.arange(mask.shape[1], device=mask.device).expand_as(place)
    return torch.empty_like(place).scatter(1, place, source)


def kept_rows(valid: Tensor, n_new: Tensor, n_old: int, mem_len: int) -> tuple[Tensor, Tensor]:
    """Choose the rows of [memory; segment] for the next memory: the last `mem_len` real ones, the newest at the end.

    valid  (B, K) bool: real rows of the memory, which stand at its end, then of the segment, at its beginning
    n_new  (B,) real tokens of the segment
    n_old  M
    Returns row indices (B, mem_len) and whether each is real (B, mem_len).
    """
    index = (n_old + n_new)[:, None] - mem_len + torch.arange(mem_len, device=valid.device)
    row = index.clamp_min(0)
    return row, valid.gather(1, row) & (index >= 0)


__all__ = ["kept_rows", "real_first", "real_last", "take_rows"]
