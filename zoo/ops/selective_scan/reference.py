"""The definition of the selective scan's recurrence."""

from __future__ import annotations

import torch
from torch import Tensor


def advance(h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Advance the state by one token: u, delta (B, D), A (D, N), B, C (B, N), h (B, D, N) -> y (B, D), h."""
    h = torch.exp(delta.unsqueeze(-1) * A) * h + (delta * u).unsqueeze(-1) * B.unsqueeze(1)  # (B, D, N)
    return (h * C.unsqueeze(1)).sum(-1), h


def scan_reference(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """Run over the tokens: u, delta (B, L, D), B, C (B, L, N), h0 (B, D, N) -> y (B, L, D), last h (B, D, N)."""
    h, ys = h0, []
    for u_t, delta_t, B_t, C_t in zip(u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        y_t, h = advance(h, u_t, delta_t, A, B_t, C_t)
        ys.append(y_t)
    return torch.stack(ys, 1), h
