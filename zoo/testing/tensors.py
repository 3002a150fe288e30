"""Test tensors and their comparison."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def noise_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Fixed Gaussian noise of the tensor's shape and dtype."""
    generator = torch.Generator().manual_seed(2000 + seed)
    return torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.dtype)


def weighted_sum(hidden: Tensor, seed: int = 0) -> Tensor:
    """A scalar that depends on every element of `hidden`, each with a weight of its own."""
    return (hidden * noise_like(hidden, seed)).sum()


def right_padded(seq_len: int, lengths: Sequence[int]) -> Tensor:
    """A mask (B, seq_len) of rows with lengths[b] real tokens, then pads."""
    return torch.arange(seq_len) < torch.tensor(lengths)[:, None]


def relative_size(part: Tensor, whole: Tensor) -> float:
    """Largest magnitude of `part` over that of `whole`; 0 for an empty part, inf where a NaN is."""
    if not part.numel() or not part.any():
        return 0.0
    ratio = (part.abs().max() / whole.abs().max().clamp_min(1e-30)).item()
    return ratio if ratio == ratio else float("inf")
