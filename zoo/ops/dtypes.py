"""Floating-point types to compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Convert a half-precision tensor to float32; float32 and float64 are returned as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 when one of the tensors is float64."""
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def wide_dtype(device: torch.device) -> torch.dtype:
    """The widest float of a device: float64, or float32 on Apple GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
