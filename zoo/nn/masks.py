"""What backbones read off a mask. B batch, L seq_len."""

from __future__ import annotations

import torch
from torch import Tensor


def last_real(mask: Tensor) -> Tensor:
    """(B, L) bool -> (B,) number of tokens up to and including the last real one; 0 where there is none."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * places).amax(1)
