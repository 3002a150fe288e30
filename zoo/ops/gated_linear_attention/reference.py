"""The definition of gated linear attention, which is that of retention, too: there the gates are constant."""

from __future__ import annotations

import torch
from torch import Tensor


def advance(S: Tensor, k_t: Tensor, v_t: Tensor, alpha_t: Tensor) -> Tensor:
    """Advance the state by one token: S (B, H, k, v), k_t (B, H, k), v_t (B, H, v), alpha_t (…, k or 1) -> S."""
    return alpha_t.unsqueeze(-1) * S + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)


def recurrent_attention(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """Run over the tokens: q, k (B, H, L, k), v (B, H, L, v), alpha (B, H, L, k or 1), S (B, H, k, v) -> o, S."""
    outs = []
    for t in range(q.shape[2]):
        S = advance(S, k[:, :, t], v[:, :, t], alpha[:, :, t])
        outs.append((q[:, :, t].unsqueeze(-2) @ S).squeeze(-2))
    return torch.stack(outs, 2), S
