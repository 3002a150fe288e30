"""Quantities computed from a padding mask. B batch, L seq_len."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_lengths(mask: Tensor) -> Tensor:
    """Position after the last real token of each row: mask (B, L) bool -> (B,) integers; 0 for a row of pads."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)
