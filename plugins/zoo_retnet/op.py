"""Rotation, denominators and group norm around the sums of `zoo.ops.retention`.

    o_n = sum_{m<=n} gamma^(n-m) (rot(q_n, n) . rot(k_m, m)) v_m / sqrt(s_n),   s_n = 1 + gamma s_{n-1}   (eq. 5-6)

B batch, H heads, L seq_len, k and v key and value dimensions per head, c chunk. The group norm cancels any positive
factor per position and head, but for its eps. `decay_sums` (s above) exists in every form; the reference's parallel and
chunkwise forms divide by other numbers, each by its own (`published_denominator`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.dtypes import wide_dtype
from zoo.ops.positions import Rope, rope_tables, rotate
from zoo.ops.retention import decay_matrix


def log_decays(n_heads: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ln gamma_h (H,) in the wide dtype, gamma_h = 1 - 2^(-5-h)."""
    h = torch.arange(n_heads, dtype=wide_dtype(torch.device(device)), device=device)
    return torch.log1p(-(2.0 ** (-5 - h)))


def rotation_speeds(key_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """Return theta_m = 10000^(-m/(k/2-1)) (k/2,), radians per token of pair m; unlike RoPE's, the last is 1/10000."""
    return 10000.0 ** -torch.linspace(0, 1, key_dim // 2, dtype=wide_dtype(torch.device(device)), device=device)


def rotate_pairs(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate adjacent pairs of channels by position * theta: x (..., L, k), positions (..., L)."""
    tables = rope_tables(positions, Rope(rotation_speeds(x.shape[-1], x.device)))
    return rotate(x, *tables, layout="interleaved")


def rotate_state(state: Tensor, n: Tensor) -> Tensor:
    """Rotate the key side of a state (B, H, k, v) by n (B,) or (1,) positions."""
    return rotate_pairs(state.mT, n[:, None, None]).mT


def decay_sums(log_gamma: Tensor, L: int, *, seen: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """Return s, the sum of the decays of all tokens that a token sees, itself included -> (B or 1, H, L).

    seen     (B,) tokens before this call; None = none
    lengths  (B,) for the two-sided form: tokens of each row, whose later ones count too; None = causal
    """
    log_gamma = log_gamma[None, :, None]
    i = torch.arange(L, device=log_gamma.device, dtype=log_gamma.dtype)
    back = (i + 1 if seen is None else seen[:, None] + i + 1).view(-1, 1, L)
    s = torch.expm1(log_gamma * back) / torch.expm1(log_gamma)
    if lengths is not None:
        ahead = (lengths[:, None] - 1 - i).clamp(min=0)[:, None]  # (B, 1, L)
        s = s + log_gamma.exp() * torch.expm1(log_gamma * ahead) / torch.expm1(log_gamma)
    return s


@torch.no_grad()
def published_denominator(q: Tensor, k: Tensor, v: Tensor, log_gamma: Tensor, form: str, chunk: int) -> Tensor:
    """Return what the reference's form divides its sums by, detached as there: q, k rotated and scaled -> (B, H, L).

    parallel   sqrt(s_n) clamp(sum_m |S_nm|, 1, 5e4), S the scores divided by sqrt(s_n)
    chunkwise  s over the chunk only, and the larger of the chunk's clamped score sum and the size of the state before
    recurrent  sqrt(s_n)
    """
    L = q.shape[2]
    if form == "recurrent":
        return decay_sums(log_gamma, L).sqrt().to(q.dtype)
    log_gamma = log_gamma.to(q.dtype)
    c = L if form == "parallel" else min(chunk, L)
    decay = decay_matrix(log_gamma, c)  # (H, c, c)
    root = decay.sum(-1).sqrt()[None, :, None]  # (1, H, 1, c)
    q, k, v = (F.pad(x, (0, 0, 0, -L % c)).unflatten(2, (-1, c)) for x in (q, k, v))  # (B, H, N, c, ·)
    sums = (q @ k.mT * decay[:, None]).abs().sum(-1) / root  # (B, H, N, c)
    if form == "parallel":
        return (root * sums.clamp(1, 5e4)).flatten(2)
    to_end = decay[:, -1] / decay[:, -1].sum(-1, keepdim=True)  # (H, c)
    added = (k * to_end[:, None, :, None]).mT @ v  # (B, H, N, k, v)
    S, size, sizes = torch.zeros_like(added[:, :, 0]), None, []
    for n in range(added.shape[2]):
        sizes.append(S.new_ones(S.shape[:2]) if size is None else size)
        S = torch.exp(log_gamma * c)[:, None, None] * S + added[:, :, n]
        size = S.abs().sum(-2).amax(-1).clamp(min=1)  # (B, H)
    scale = torch.maximum(sums.clamp(min=1), torch.stack(sizes, 2)[..., None])
    return (root * scale).flatten(2)[..., :L]


def group_norm(o: Tensor, eps: float) -> Tensor:
    """Return o / sqrt(mean(o²) + eps) over the values of each head; no mean is subtracted, there is no weight."""
    return o * torch.rsqrt(o.square().mean(-1, keepdim=True) + eps)
