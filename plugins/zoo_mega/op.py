"""Mega's operators: the multi-dimensional damped moving average, relative biases, and attention under them.

B batch, L seq_len, D d_model, R directions (1, or 2 when bidirectional), N dimensions of the moving average (h in
the paper); z width of queries and keys, v of the values, Lq queries, T keys. "..." is (B,), or (B, C) for C chunks.

Source: Ma et al. 2023 (arXiv 2209.10655), sections 3.1 (moving average), 3.2-3.3 (attention), 3.4 (laplace).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zoo.nn import at_least_float32
from zoo.ops.diagonal import DiagonalSSM
from zoo.ops.positions import rope, rope_tables, rotate

SCORES_AT_ONCE = 1 << 24
"""More scores than this in one call are computed in slices of queries, and again in backward."""
MU, SIGMA = 0.707107, 0.282095
"""Laplace attention: mean sqrt(1/2) and deviation sqrt(1/(4 pi)), the digits of the published code."""


def damped_ema(alpha: Tensor, delta: Tensor, beta: Tensor, eta: Tensor) -> DiagonalSSM:
    """The moving average of R D channels as a diagonal system, in double precision.

        u_t = beta x_t        h_t = a * u_t + (1 - a * d) * h_{t-1}        y_t = eta . h_t / sqrt(N)

    with a = sigmoid(alpha) and d = sigmoid(delta), all four given as (R, D, N).
    """
    alpha, delta, beta, eta = (p.double().flatten(0, 1) for p in (alpha, delta, beta, eta))
    a, d = torch.sigmoid(alpha), torch.sigmoid(delta)
    return DiagonalSSM(1 - a * d, a * beta, eta[None] / math.sqrt(eta.shape[-1]))


# -- relative biases ---------------------------------------------------------------------------------------------------


def simple_bias(w: Tensor, at: Tensor, T: int) -> Tensor:
    """b[i, j] = w[P - 1 + j - i]: w (2P - 1,), queries at (..., Lq), keys at 0 .. T - 1 -> (..., Lq, T).

    ValueError when T exceeds the P positions.
    """
    P = (w.shape[0] + 1) // 2
    if P < T:
        raise ValueError(f"{T} positions, the simple relative bias has {P}: build for a longer max_len, or use rotary")
    # row i is the stretch of w that begins at P - 1 - i
    return w.unfold(0, T, 1).index_select(0, (P - 1 - at).flatten()).unflatten(0, at.shape)


def rotary_bias(a: Tensor, b: Tensor, at: Tensor, T: int) -> Tensor:
    """b[i, j] = <R_i a, R_j b>, a function of i - j: a, b (z,), queries at (..., Lq), keys at 0 .. T - 1."""
    speeds = rope(a.shape[0], device=a.device)
    rows = rotate(a.expand(*at.shape, -1), *rope_tables(at, speeds))
    columns = rotate(b.expand(T, -1), *rope_tables(torch.arange(T, device=b.device), speeds))
    with torch.autocast(a.device.type, enabled=False):
        return rows @ columns.transpose(-1, -2)


def relative_bias(parameters: Sequence[Tensor], at: Tensor, T: int) -> Tensor:
    """The simple bias of one parameter, the rotary one of two: -> (..., Lq, T)."""
    if len(parameters) == 1:
        return simple_bias(parameters[0], at, T)
    a, b = parameters
    return rotary_bias(a, b, at, T)


# -- attention -------------------------------------------------------------------------------------------------------


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
    """f(q kᵀ / tau + b) v over the keys that a query may see.

    q, k, v  (..., Lq, z), (..., T, z), (..., T, v)
    bias     parameters of `relative_bias`
    at       (Lq,) or (B, Lq) int, where the queries stand among the keys
    real     (..., T) bool, or None = all real
    returns  (..., Lq, v)

    Never more than SCORES_AT_ONCE scores are kept: of more than that, slices of queries are computed again in
    backward.
    """

    def rows(q: Tensor, k: Tensor, v: Tensor, at: Tensor, real: Tensor | None, *bias: Tensor) -> Tensor:
        return attention_weights(q, k, bias, at, real, kind=kind, causal=causal).to(v.dtype) @ v

    Lq, T = q.shape[-2], k.shape[-2]
    n_rows = max(1, SCORES_AT_ONCE // (math.prod(q.shape[:-2]) * T))
    if n_rows >= Lq:
        return rows(q, k, v, at, real, *bias)
    slices = zip(q.split(n_rows, -2), at.split(n_rows, -1), strict=True)
    if torch.is_grad_enabled():
        # the parameters go in as arguments: a closure over a module would see other ones under functional_call
        parts = [checkpoint(rows, q_i, k, v, at_i, real, *bias, use_reentrant=False) for q_i, at_i in slices]
    else:
        parts = [rows(q_i, k, v, at_i, real, *bias) for q_i, at_i in slices]
    return torch.cat(parts, -2)


def attention_weights(
    q: Tensor,
    k: Tensor,
    bias: Sequence[Tensor],
    at: Tensor,
    real: Tensor | None,
    *,
    kind: str,
    causal: bool,
) -> Tensor:
    """The weights (..., Lq, T), in at least float32. Arguments as in `single_head_attention`.

        softmax   softmax(q kᵀ / sqrt(z) + b), unseen keys at -inf; a query that would see none sees the pads
        laplace   0.5 (1 + erf((s - mu) / (sigma sqrt 2))) of s = q kᵀ / n + b, unseen keys 0
        relu2     relu(s)² of the same s, unseen keys 0

    n is the number of keys up to the query when causal, and of real keys, at least 1, otherwise.
    """
    T = k.shape[-2]
    earlier = torch.arange(T, device=q.device) <= at[..., None] if causal else None  # (Lq, T) or (B, Lq, T)
    visible = earlier
    if real is not None:
        visible = real[..., None, :] if earlier is None else real[..., None, :] & earlier
    scores = at_least_float32(q @ k.transpose(-1, -2))
    with torch.autocast(q.device.type, enabled=False):
        b = relative_bias(bias, at, T).to(scores.dtype)
        if kind == "softmax":
            scores = scores * q.shape[-1] ** -0.5 + b
            if visible is not None:
                if real is not None:
                    blind = ~visible.any(-1, keepdim=True)
                    visible = visible | (blind if earlier is None else blind & earlier)
                scores = scores.masked_fill(~visible, -torch.inf)
            return torch.softmax(scores, -1)
        if causal:
            n: Tensor | int = at[..., None] + 1
        else:
            n = T if real is None else real.sum(-1).clamp(min=1)[..., None, None]
        scores = scores / n + b
        weights = laplace(scores) if kind == "laplace" else torch.relu(scores).square()
        return weights if visible is None else weights.masked_fill(~visible, 0.0)


def laplace(x: Tensor) -> Tensor:
    """The normal distribution function of mean MU and deviation SIGMA: near relu(x)², bounded in value and slope."""
    return 0.5 * (1 + torch.erf((x - MU) / (SIGMA * math.sqrt(2))))
