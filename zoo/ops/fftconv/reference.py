"""The definition of the long convolution: O(L²) time, O(L) memory."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def direct_conv(x: Tensor, k: Tensor, k_back: Tensor | None) -> Tensor:
    """Compute the two sums as they are written; x (B, H, L), k (H, Lk), k_back (H, Lb) -> (B, H, L)."""
    H = x.shape[1]
    y = F.conv1d(F.pad(x, (k.shape[-1] - 1, 0)), k.flip(-1)[:, None], groups=H)
    if k_back is not None and k_back.shape[-1]:
        y = y + F.conv1d(F.pad(x, (0, k_back.shape[-1]))[..., 1:], k_back[:, None], groups=H)
    return y
