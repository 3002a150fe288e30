"""Rows of a sequence by index. B batch, L seq_len, g chosen rows, D channels, H heads, d head dimension."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows: x (B, L, D) or (B, H, L, d) at index (B, g), 0 … L - 1 -> (B, g, D) or (B, H, g, d)."""
    return x.gather(-2, _over_channels(index, x))


def put_rows(y: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Replace the rows of y (B, H, L, d) at index (B, g) by rows (B, H, g, d); an index of L drops its row.

    No position below L may be listed twice for an example: which of its rows would win is not determined.
    """
    padded = F.pad(y, (0, 0, 0, 1))
    return padded.scatter(-2, _over_channels(index, y), rows.to(y.dtype))[..., :-1, :]


def _over_channels(index: Tensor, x: Tensor) -> Tensor:
    """Repeat index (B, g) over the heads and channels of x (B, …, L, d): (B, …, g, d)."""
    return index.view(index.shape[0], *[1] * (x.ndim - 3), -1, 1).expand(*x.shape[:-2], -1, x.shape[-1])
