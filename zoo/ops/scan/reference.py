"""The definition of the diagonal scan."""

from __future__ import annotations

import torch
from torch import Tensor


def scan_reference(a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
    """Compute one state after the other under autograd: a (P,) or (B, L, P), v (B, L, P), x0 (B, P) -> x (B, L, P)."""
    x, xs = x0, []
    order = range(v.shape[1])
    for t in reversed(order) if reverse else order:
        x = (a if a.ndim == 1 else a[:, t]) * x + v[:, t]
        xs.append(x)
    return torch.stack(xs[::-1] if reverse else xs, 1)
