"""Some rows of a sequence taken out, and put back. B batch, H heads, L seq_len, g chosen rows, d head dimension."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """x (B, H, L, d) at index (B, g), 0 .. L - 1 -> (B, H, g, d)"""
    return x.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def put_rows(y: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """y (B, H, L, d) with rows (B, H, g, d) in place of its own at index (B, g); an index of L drops its row.

    No position below L may be listed twice for an example: which of its rows would win is not determined.
    """
    where = index[:, None, :, None].expand(-1, y.shape[1], -1, y.shape[3])
    return F.pad(y, (0, 0, 0, 1)).scatter(2, where, rows.to(y.dtype))[:, :, :-1]
