"""The definition of the diagonal scan."""

from __future__ import annotations

import torch
from torch import Tensor


def scan_reference(a: Tensor, v: Tensor, x0: Tensor, reverse: bool) -> Tensor:
    """Compute one state after the other under autograd: a (P,), v (B, L, P), x0 (B, P) -> x (B, L, P)."""
    steps = v.unbind(1)
    x, xs = x0, []
    for v_t in reversed(steps) if reverse else steps:
        x = a * x + v_t
        xs.append(x)
    return torch.stack(xs[::-1] if reverse else xs, 1)
