"""Quantities computed from a padding mask. B batch, L seq_len."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.memory import real_first, real_last, take_rows


def sequence_lengths(mask: Tensor) -> Tensor:
    """Position after the last real token of each row: mask (B, L) bool -> (B,) integers; 0 for a row of pads."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)


def pack_rows(x: Tensor, mask: Tensor, *, pads_first: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Clear x (B, L, D) at pads and move each row's real tokens together, to its beginning or, `pads_first`, its end.

    mask (B, L) bool. Returns x, the mask that goes with it, and source indices (B, L) for `unpack_rows`. Nothing is
    moved where pads are at the end already; finding that out would wait for the device.
    """
    order = (real_last if pads_first else real_first)(mask)
    return take_rows(x.masked_fill(~mask[..., None], 0.0), order), mask.gather(1, order), order


def unpack_rows(hidden: Tensor, order: Tensor) -> Tensor:
    """Move outputs (B, N, D) for the last N of the L packed positions back to where they came from; others are zero."""
    dropped = order.shape[1] - hidden.shape[1]
    source = order.argsort(dim=1)[:, dropped:] - dropped  # (B, N)
    moved = take_rows(hidden, source.clamp_min(0))
    return moved.masked_fill((source < 0)[..., None], 0.0) if dropped else moved
