"""Linear attention whose past decays by a constant factor per head: the sums of RetNet's retention.

    o_i = sum_{j<=i} gamma^(i-j) (q_i . k_j) v_j  +  gamma^(i+1) q_i S            causal, with a carried state S
    o_i = sum_j gamma^|i-j| (q_i . k_j) v_j                                       two-sided, the current token once

B batch, H heads, L seq_len, k and v key and value dimensions of a head. The carried state after n tokens is
S = sum_j gamma^(n-1-j) k_j v_j^T (B, H, k, v). Rotations, denominators and norms belong to the caller, as do pads:
tokens whose k and v are zero.

Forms: chunkwise, O(L (c + k)) time and O(L) memory (chunked.py, backend "torch"); parallel, O(L²), and recurrent, token
by token (reference.py). Source: Sun et al. 2023, Retentive Network (arXiv 2307.08621), equations 5-7; the symmetric
decay: Afzal et al. 2025, LION (arXiv 2502.16249).
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.backend import REFERENCE, choose_form, register_op
from zoo.ops.retention.chunked import ChunkwiseRetention
from zoo.ops.retention.reference import advance, decay_matrix, parallel_retention, recurrent_retention
from zoo.ops.shapes import check_shapes
from zoo.ops.tracing import in_transform, without_autocast

RETENTION_FORMS = ("chunkwise", "parallel", "recurrent")
register_op("retention", ("torch", "reference"))


def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_gamma: Tensor,
    state: Tensor | None = None,
    *,
    form: str = "chunkwise",
    chunk: int = 64,
    two_sided: bool = False,
) -> Tensor:
    """Compute the outputs o (B, H, L, v) of retention; gradients flow to q, k, v and state.

    q, k       (B, H, L, k), of one dtype, float32 or float64
    v          (B, H, L, v)
    log_gamma  (H,), at most 0; carries no gradient
    state      (B, H, k, v), or None = zeros
    form       one of RETENTION_FORMS; chunkwise becomes parallel under the backend "reference" and in torch.func

    ValueError when shapes do not fit together, or for a state or the recurrent form together with `two_sided`.
    """
    if form not in RETENTION_FORMS:
        raise ValueError(f"retention form {form!r}: expected one of {', '.join(RETENTION_FORMS)}")
    if two_sided and (state is not None or form == "recurrent"):
        raise ValueError("a two-sided retention carries no state and has no recurrent form")
    check_shapes(
        "retention",
        {
            "batch heads seq_len key": {"q": q, "k": k},
            "batch heads seq_len value": {"v": v},
            "heads": {"log_gamma": log_gamma},
            "batch heads key value": {"state": state},
        },
    )
    among = None if form == "chunkwise" and not in_transform() else REFERENCE
    backend = choose_form("retention", q.device, among=among)
    with without_autocast(q):
        log_gamma = log_gamma.detach().to(q.dtype)
        if backend == "torch":
            return ChunkwiseRetention.apply(q, k, v, state, log_gamma, min(chunk, q.shape[2]), two_sided)
        if form == "recurrent":
            return recurrent_retention(q, k, v, log_gamma, state)
        return parallel_retention(q, k, v, log_gamma, state, two_sided)


def final_state(k: Tensor, v: Tensor, log_gamma: Tensor, lengths: Tensor | None, state: Tensor | None) -> Tensor:
    """The state S after each row's last token: k (B, H, L, k), v (B, H, L, v) -> (B, H, k, v).

    lengths  (B,) tokens in each row, the others are left out; None = all L. With 0 tokens the state stays as it was.
    """
    L = k.shape[2]
    log_gamma = log_gamma.to(k.dtype)
    n = torch.full((1,), L, device=k.device) if lengths is None else lengths
    lag = n[:, None] - 1 - torch.arange(L, device=k.device)  # (B or 1, L)
    weight = torch.exp(log_gamma[None, :, None] * lag.clamp(min=0)[:, None]) * (lag >= 0)[:, None]  # (B or 1, H, L)
    after = (k * weight.unsqueeze(-1)).transpose(-1, -2) @ v
    if state is None:
        return after
    return after + torch.exp(log_gamma * n[:, None])[:, :, None, None] * state


__all__ = ["RETENTION_FORMS", "advance", "decay_matrix", "final_state", "retention"]
