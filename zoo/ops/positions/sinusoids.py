"""Fixed absolute positions (Vaswani et al. 2017, §3.5)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.dtypes import wide_dtype
from zoo.spec.errors import ConfigError


def sinusoidal(positions: Tensor, d_model: int, *, layout: str = "interleaved", base: float = 10000.0) -> Tensor:
    """Sines and cosines of each position: positions (L,) -> (L, D) in the wide dtype.

    layout  "interleaved"  (p, 2u) = sin(p base^(-2u/D)), (p, 2u + 1) = cos of the same: the paper, Long Range Arena
            "concatenated" all sines, then all cosines, frequency base^(-u/(D/2 - 1)): tensor2tensor; D even
    """
    p = positions.to(wide_dtype(positions.device))[:, None]
    if layout == "interleaved":
        u = torch.arange((d_model + 1) // 2, dtype=p.dtype, device=p.device)
        angles = p * base ** (-2 * u / d_model)  # (L, ceil(D/2))
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :d_model]
    if layout == "concatenated":
        if d_model % 2:
            raise ConfigError("d_model", f"concatenated sinusoids need an even width, got {d_model}")
        u = torch.arange(d_model // 2, dtype=p.dtype, device=p.device)
        angles = p * base ** (-u / max(d_model // 2 - 1, 1))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
    raise ConfigError("layout", f"{layout!r}: expected interleaved or concatenated")
