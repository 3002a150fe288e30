"""Dropout with one mask for all tokens of a sequence. B batch, L seq_len, D d_model."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class TiedDropout(nn.Module):
    """Drops whole channels of a sequence, (B, 1, D), instead of single tokens."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D), or a single token (B, D), which has no sequence to tie."""
        if not self.training or self.p == 0.0:
            return x
        shape = x.shape if x.ndim == 2 else (x.shape[0], 1, x.shape[2])
        return x * F.dropout(x.new_ones(shape), self.p)
