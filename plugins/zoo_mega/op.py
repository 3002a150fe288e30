"""Mega's operators: the damped moving average (§3.1), relative biases, and single-head attention (§3.2 to §3.4).

Shapes: B batch, L seq_len, D d_model, R directions (1, or 2 when bidirectional), N d_ema (h in the paper), z width of
queries and keys, E width of values, Lq queries, T keys. "..." is (B,), or (B, C) for C chunks.

Source: Ma et al. 2023 (arXiv 2209.10655).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.nn import at_least_float32, without_autocast
from zoo.ops.chunks import MAX_SCORES, recompute
from zoo.ops.diagonal import DiagonalSSM
from zoo.ops.positions import rope, rope_tables, rotate

MU, SIGMA = 0.707107, 0.282095
"""Laplace attention: mean sqrt(1/2) and deviation sqrt(1/(4 pi)), to the digits of the published code."""


# -- moving average (§3.1) ---------------------------------------------------------------------------------------------


def damped_ema(alpha: Tensor, delta: Tensor, beta: Tensor, eta: Tensor) -> DiagonalSSM:
    """Build the multi-dimensional damped EMA of R D channels as a diagonal state space model, in double precision.

        u_t = beta x_t        h_t = a * u_t + (1 - a * d) * h_{t-1}        y_t = eta . h_t / sqrt(N)

    with a = sigmoid(alpha) and d = sigmoid(delta); all four parameters are (R, D, N).
    """
    alpha, delta, beta, eta = (p.double().flatten(0, 1) for p in (alpha, delta, beta, eta))
    a, d = torch.sigmoid(alpha), torch.sigmoid(delta)
    return DiagonalSSM(1 - a * d, a * beta, eta[None] / math.sqrt(eta.shape[-1]))


# -- relative biases (§3.2) --------------------------------------------------------------------------------------------


def relative_bias(parameters: Sequence[Tensor], at: Tensor, T: int) -> Tensor:
    """Compute the relative bias of queries at positions `at` (..., Lq) and keys at 0 .. T - 1: (..., Lq, T).

    `parameters` holds one tensor for the simple bias, two for the rotary bias.
    """
    if len(parameters) == 1:
        return simple_bias(parameters[0], at, T)
    return rotary_bias(parameters[0], parameters[1], at, T)


def simple_bias(w: Tensor, at: Tensor, T: int) -> Tensor:
    """Look up the learned number of each lag, b[i, j] = w[P - 1 + j - i], for w (2P - 1,).

    Raises ValueError when T exceeds the P positions.
    """
    P = (w.shape[0] + 1) // 2
    if P < T:
        raise ValueError(f"{T} positions, the simple relative bias has {P}: build for a longer max_len, or use rotary")
    # row i is the slice of w that begins at P - 1 - i
    return w.unfold(0, T, 1).index_select(0, (P - 1 - at).flatten()).unflatten(0, at.shape)


def rotary_bias(a: Tensor, b: Tensor, at: Tensor, T: int) -> Tensor:
    """Compute b[i, j] = <R_i a, R_j b>, a function of i - j, for a and b (z,)."""
    speeds = rope(a.shape[0], device=a.device)
    rows = rotate(a.expand(*at.shape, -1), *rope_tables(at, speeds))
    columns = rotate(b.expand(T, -1), *rope_tables(torch.arange(T, device=b.device), speeds))
    with without_autocast(a):
        return rows @ columns.transpose(-1, -2)


# -- attention (§3.2, §3.4) --------------------------------------------------------------------------------------------


def attention_weights(
    q: Tensor, k: Tensor, bias: Sequence[Tensor], at: Tensor, real: Tensor | None, *, kind: str, causal: bool
) -> Tensor:
    """Compute the attention weights f(q kᵀ / tau + b), (..., Lq, T), in at least float32.

        softmax   softmax(q kᵀ / sqrt(z) + b), invisible keys at -inf
        laplace   0.5 (1 + erf((s - mu) / (sigma sqrt 2))) of s = q kᵀ / n + b, invisible keys 0
        relu2     relu(s)² of the same s, invisible keys 0

    n is the number of keys up to the query if causal, else the number of real keys (at least 1). Arguments as in
    `single_head_attention`. A query without a visible key has finite weights.
    """
    T = k.shape[-2]
    visible = None if real is None else real[..., None, :]  # (..., 1, T)
    if causal:
        earlier = torch.arange(T, device=q.device) <= at[..., None]  # (Lq, T) or (B, Lq, T)
        visible = earlier if visible is None else visible & earlier
    scores = at_least_float32(q @ k.transpose(-1, -2))
    with without_autocast(q):
        b = relative_bias(bias, at, T).to(scores.dtype)
        if kind == "softmax":
            scores = scores * q.shape[-1] ** -0.5 + b
            if visible is not None:
                scores = scores.masked_fill(~visible & visible.any(-1, keepdim=True), -torch.inf)
            return torch.softmax(scores, -1)
        if causal:
            n: Tensor | int = at[..., None] + 1
        else:
            n = T if real is None else real.sum(-1).clamp(min=1)[..., None, None]
        scores = scores / n + b
        weights = laplace(scores) if kind == "laplace" else torch.relu(scores).square()
        return weights if visible is None else weights.masked_fill(~visible, 0.0)


def laplace(x: Tensor) -> Tensor:
    """Evaluate the normal CDF with mean MU and deviation SIGMA: near relu(x)², with bounded value and slope."""
    return 0.5 * (1 + torch.erf((x - MU) / (SIGMA * math.sqrt(2))))


def single_head_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Sequence[Tensor],
    at: Tensor,
    real: Tensor | None = None,
    *,
    kind: str = "softmax",
    causal: bool = False,
) -> Tensor:
    """Compute f(q kᵀ / tau + b) v over the visible keys, keeping at most MAX_SCORES scores: (..., Lq, E).

    q, k, v  (..., Lq, z), (..., T, z), (..., T, E)
    bias     parameters of `relative_bias`
    at       (Lq,) or (B, Lq) int, positions of the queries among the keys
    real     (..., T) bool, True = real key; None = all real
    """

    def weighted_values(q: Tensor, k: Tensor, v: Tensor, at: Tensor, real: Tensor | None, *bias: Tensor) -> Tensor:
        return attention_weights(q, k, bias, at, real, kind=kind, causal=causal).to(v.dtype) @ v

    Lq, T = q.shape[-2], k.shape[-2]
    n_rows = max(1, MAX_SCORES // (math.prod(q.shape[:-2]) * T))
    if n_rows >= Lq:
        return weighted_values(q, k, v, at, real, *bias)
    slices = zip(q.split(n_rows, -2), at.split(n_rows, -1), strict=True)
    return torch.cat([recompute(weighted_values, q_i, k, v, at_i, real, *bias) for q_i, at_i in slices], -2)
