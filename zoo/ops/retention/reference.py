"""Retention by its two definitions: the parallel form with an (L, L) matrix, and the recurrence."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.gated_linear_attention import reference as gated_linear_attention


def decay_matrix(log_gamma: Tensor, L: int, *, two_sided: bool = False) -> Tensor:
    """gamma^(i-j) for j <= i and 0 elsewhere, or gamma^|i-j| everywhere: log_gamma (H,) -> (H, L, L)."""
    t = torch.arange(L, device=log_gamma.device)
    lag = t[:, None] - t
    # the exponent is never positive, so nothing overflows where the matrix is 0 anyway
    decay = torch.exp(log_gamma[:, None, None] * lag.abs())
    return decay if two_sided else decay * (lag >= 0)


def parallel_retention(
    q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, state: Tensor | None, two_sided: bool
) -> Tensor:
    """Compute o = (q kᵀ * decay) v, plus what the state adds (eq. 5)."""
    L = q.shape[2]
    o = (q @ k.transpose(-1, -2) * decay_matrix(log_gamma, L, two_sided=two_sided)) @ v
    if state is None:
        return o
    since = torch.exp(log_gamma[:, None] * torch.arange(1, L + 1, device=q.device))  # (H, L)
    return o + (q * since.unsqueeze(-1)) @ state


def recurrent_retention(q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, state: Tensor | None) -> Tensor:
    """Compute S_n = gamma S_{n-1} + k_n v_n^T, o_n = q_n S_n, token by token (eq. 6)."""
    (B, H, L, key), value = q.shape, v.shape[-1]
    S = q.new_zeros(B, H, key, value) if state is None else state
    gamma = log_gamma.exp()[None, :, None, None].expand(B, H, L, 1)
    return gated_linear_attention.recurrent_attention(q, k, v, gamma, S)[0]


def advance(state: Tensor, k_t: Tensor, v_t: Tensor, log_gamma: Tensor) -> Tensor:
    """Advance the state by one token: state (B, H, k, v), k_t (B, H, k), v_t (B, H, v) -> state."""
    return gated_linear_attention.advance(state, k_t, v_t, log_gamma.to(state.dtype).exp()[:, None])
