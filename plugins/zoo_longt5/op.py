"""Transient globals: one key per block of tokens, made anew in every layer from the block's sum (LongT5 §3.2).

Shapes: B batch, L seq_len, D d_model, G tokens of a block, n real tokens of a row, F = floor(n / G) its full blocks.
Token i belongs to block c_i = min(floor(i / G), F - 1): tokens left over at the end join the last full block. A row
with fewer than G tokens has no global.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn import at_least_float32, sequence_lengths


def block_sums(x: Tensor, mask: Tensor | None, G: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the tokens of each block: x (B, L, D), mask (B, L) right-padded. Pads add nothing to any sum.

    Returns the sums (B, L // G, D) in at least float32; which of them are blocks of their row, (B, L // G) bool, the
    others being zero; and the block of each token, (B, L) int64, 0 in rows without blocks.
    """
    B, L, D = x.shape
    mask = torch.ones(B, L, dtype=torch.bool, device=x.device) if mask is None else mask
    full = (sequence_lengths(mask) // G)[:, None]  # (B, 1)
    block = torch.minimum(torch.arange(L, device=x.device) // G, full - 1).clamp_min(0)

    parts = at_least_float32(x).masked_fill(~mask[..., None], 0.0)
    parts = F.pad(parts, (0, 0, 0, -L % G)).unflatten(1, (-1, G)).sum(2)  # (B, ceil(L / G), D)
    parts = F.pad(parts, (0, 0, 0, 1))  # a row of full blocks has no left-over tokens
    left_over = parts.gather(1, full[..., None].expand(-1, 1, D))  # (B, 1, D)
    g = torch.arange(L // G, device=x.device)
    sums = parts[:, : L // G] * (g < full)[..., None] + left_over * (g == full - 1)[..., None]
    return sums, g < full, block
