"""Relative positions, attention of slots, and forgetting (Wu et al. 2022).

Shapes: B batch, T tokens of the segment, S slots, H heads, E width of a head, D = H E.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn import at_least_float32, without_autocast
from zoo.ops.positions import t5_buckets

MAX_DISTANCE = 128


def relative_bias(table: Tensor, n_tokens: int, *, two_sided: bool) -> Tensor:
    """Compute T5's bias of query i and key j, a number per head and bucket of j - i: table (N, H) -> (H, T, T).

    One-sided, all keys on the right have the bucket of the query itself. The table is looked up once per lag, not once
    per pair: the gradient of a lookup is slow.
    """
    lag = torch.arange(1 - n_tokens, n_tokens, device=table.device)  # (2T-1,), rising
    bucket = t5_buckets(lag, bidirectional=two_sided, n_buckets=table.shape[0], max_distance=MAX_DISTANCE)
    return table[bucket].T.unfold(-1, n_tokens, 1).flip(1)  # the unfolded rows begin with the last query


def slot_attention(
    q: Tensor,
    own: tuple[Tensor, Tensor],
    tokens: tuple[Tensor, Tensor],
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    dropout: float = 0.0,
) -> Tensor:
    """Attend from each slot to itself and to all tokens, never to another slot: memory writing.

        A_i = softmax(q_i · [k_{m_i}; K_x] / (√E τ)),   m'_i = A_i [v_{m_i}; V_x]

    q       (B, H, S, E) queries of the slots
    own     key and value of each slot, (B, H, S, E) each
    tokens  keys and values of the tokens, (B, H, T, E) each
    mask    (B, T) bool, True = real token; a slot without any keeps its own value

    Returns (B, H, S, E) in at least float32. Scores are (S, 1 + T) per head, none of them between slots.
    """
    (k_own, v_own), (k, v) = own, tokens
    itself, others = (q * k_own).sum(-1, keepdim=True), q @ k.transpose(-1, -2)  # (B, H, S, 1), (B, H, S, T)
    with without_autocast(q):
        score = at_least_float32(torch.cat([itself.to(others.dtype), others], dim=-1))
        score = score / (q.shape[-1] ** 0.5 * temperature)
        if mask is not None:
            score = score.masked_fill(~F.pad(mask, (1, 0), value=True)[:, None, None, :], -torch.inf)
        weight = F.dropout(score.softmax(dim=-1), dropout, training=dropout > 0.0)
        v_own, v = v_own.to(weight.dtype), v.to(weight.dtype)
        return weight[..., :1] * v_own + weight[..., 1:] @ v


def biased_normalisation(m: Tensor, v: Tensor) -> Tensor:
    """Apply biased memory normalisation, m_i <- m_i + v_i, m_i <- m_i / |m_i|: m (B, S, D), v (S, D).

    A slot that is not renewed turns towards v_i/|v_i|, its initial state; a longer v_i turns it faster.
    """
    with without_autocast(m):
        m = at_least_float32(m)
        return F.normalize(m + v.to(m.dtype), dim=-1)
