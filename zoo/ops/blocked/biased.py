"""Softmax attention of blocks of queries with learned biases on the scores, keeping no scores for backward.

PyTorch's fused kernels give a bias no gradient. Here some blocks at a time are computed, in place as far as possible,
and computed again in backward, which is written out.

r blocks, n of them per example (B examples, r = B n), H heads, S queries and K keys of a block, M side keys of an
example, d head dimension, dv of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops.attention import reference_attention
from zoo.ops.blocked.pattern import Side
from zoo.ops.chunks import slices
from zoo.ops.dtypes import at_least_float32
from zoo.ops.tracing import draw_seed, plain_only

PIECE = 1 << 18
"""Scores that are in memory at once on a CPU, few enough for its caches; on a GPU 128 times as many."""

VisibleOf = Callable[[slice], Tensor]
"""Maps a slice of the blocks to the keys that they see: (part, H or 1, S or 1, K + M) bool."""


def biased_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    side: Side | None,
    visible_of: VisibleOf,
    scale: float,
    dropout: float,
) -> Tensor:
    """Compute softmax(scale q kᵀ + bias) v over the block's keys and behind them the side keys: (r, H, S, dv) like v.

    q, k, v  (r, H, S, d), (r, H, K, d), (r, H, K, dv)
    bias     (H, K) of each query: (H, S, K), the same for all blocks
    side     k, v and bias as in `Side`, row (r, S): query s of a block takes row `row[., s]` of the bias

    A query that sees no key gets zero, with zero gradients. Softmax in at least float32. Not differentiable twice.
    All scores are kept where a tracer can follow neither our backward pass nor, in torch.compile, the seed of dropout.
    """
    if plain_only() or (dropout and torch.compiler.is_compiling()):
        return _plain_attention(q, k, v, bias, side, visible_of(slice(0, len(q))), scale, dropout)
    seed = draw_seed() if dropout else 0
    side_tensors = (None,) * 4 if side is None else (side.k, side.v, side.bias, side.row)
    return _BiasedAttention.apply(q, k, v, bias, *side_tensors, visible_of, scale, dropout, seed)


def _plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    side: Side | None,
    visible: Tensor,
    scale: float,
    dropout: float,
) -> Tensor:
    """`biased_attention` in plain operations, all blocks at once."""
    (r, H, S, _), K = q.shape, k.shape[2]
    scores = q.new_zeros(()) if bias is None else bias
    if side is not None:
        example = torch.arange(r, device=q.device) // (r // side.k.shape[0])
        k, v = torch.cat([k, side.k[example]], 2), torch.cat([v, side.v[example]], 2)
        far = scores.new_zeros(())
        if side.bias is not None and side.row is not None:
            far = side.bias[:, side.row].transpose(0, 1)
        scores = torch.cat([scores.expand(r, H, S, K), far.expand(r, H, S, k.shape[2] - K)], -1)
    wide_q, wide_k = at_least_float32(q), at_least_float32(k)
    return reference_attention(wide_q, wide_k, v, visible=visible, bias=scores, dropout=dropout, scale=scale)


def _pieces(tensors: Sequence[Any], visible_of: VisibleOf, scale: float) -> Iterator[tuple[Any, ...]]:
    """Compute the softmax of some blocks at a time, in at least float32, uniform where a query sees no key.

    tensors are q, k, v, bias, and k, v, bias and row of the side keys.
    Yields the slice of p blocks, the example of each (p,), scaled queries (p, H, S, d), keys (p, H, K + M, d), values
    (p, H, K + M, dv), visible, and weights (p, H, S, K + M).
    """
    q, k, v, bias, side_k, side_v, side_bias, row = tensors
    (r, H, S, _), K = q.shape, k.shape[2]
    M, n = (0, 1) if side_k is None else (side_k.shape[2], r // side_k.shape[0])
    for part in slices(r, max(1, PIECE * (1 if q.device.type == "cpu" else 128) // (H * S * (K + M)))):
        example = torch.arange(part.start, part.stop, device=q.device) // n
        queries, keys, values = (at_least_float32(x[part]) for x in (q, k, v))
        queries = queries * scale
        if side_k is not None:
            keys = torch.cat([keys, at_least_float32(side_k.index_select(0, example))], 2)
            values = torch.cat([values, at_least_float32(side_v.index_select(0, example))], 2)
        weights = queries @ keys.transpose(-1, -2)
        if bias is not None:
            weights[..., :K] += bias
        if side_bias is not None:
            # not index_select, which would copy the whole of a bias that is a view, here a view of its distances
            weights[..., K:] += side_bias[:, row[part]].transpose(0, 1)
        visible = visible_of(part)
        weights.masked_fill_(~visible, torch.finfo(weights.dtype).min)  # finite, so that a row without any key is
        weights = torch.softmax(weights, -1)
        yield part, example, queries, keys, values, visible, weights


def _dropout_factors(weights: Tensor, dropout: float, seed: int) -> Tensor:
    """Draw the factors of dropout, 0 or 1/(1 - dropout), the same for the same seed."""
    generator = torch.Generator(weights.device).manual_seed(seed)
    drawn = torch.rand(weights.shape, dtype=weights.dtype, device=weights.device, generator=generator)
    return (drawn >= dropout).to(weights.dtype).div_(1 - dropout)


class _BiasedAttention(torch.autograd.Function):
    """Attention y = (m * p) v with p = softmax(s) and dropout's m, computed again in backward.

    With g = dL/dy and e = m * (g vᵀ):  dL/dv = (m * p)ᵀ g,  dL/ds = p * (e - sum_j p_j e_j),  sum_j p_j e_j = y·g
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, visible_of, scale, dropout, seed = inputs  # tensors as `_pieces` takes them
        outs = []
        for part, _, _, _, values, visible, p in _pieces(tensors, visible_of, scale):
            if dropout:
                p *= _dropout_factors(p, dropout, seed + part.start)
            outs.append((p @ values).masked_fill_(~visible.any(-1, keepdim=True), 0))
        y = torch.cat(outs)
        ctx.save_for_backward(*tensors, y)
        ctx.constants = visible_of, scale, dropout, seed
        return y.to(tensors[2].dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, y = ctx.saved_tensors
        visible_of, scale, dropout, seed = ctx.constants
        *inputs, row = tensors
        K = inputs[1].shape[2]
        grads: list[Any] = [x.new_empty(x.shape, dtype=y.dtype) for x in inputs[:3]]
        grads += [None if x is None else x.new_zeros(x.shape, dtype=y.dtype) for x in inputs[3:]]
        dq, dk, dv, d_bias, d_side_k, d_side_v, d_side_bias = grads
        for part, example, queries, keys, values, visible, p in _pieces(tensors, visible_of, scale):
            g_part = at_least_float32(g[part]).masked_fill(~visible.any(-1, keepdim=True), 0)
            e = g_part @ values.transpose(-1, -2)  # (p, H, S, K + M)
            dropped = p
            if dropout:
                factors = _dropout_factors(p, dropout, seed + part.start)
                e *= factors
                dropped = factors.mul_(p)
            d_values = dropped.transpose(-1, -2) @ g_part
            ds = e.sub_((y[part] * g_part).sum(-1, keepdim=True)).mul_(p)
            d_keys = ds.transpose(-1, -2) @ queries
            torch.mul(ds @ keys, scale, out=dq[part])
            dk[part], dv[part] = d_keys[:, :, :K], d_values[:, :, :K]
            if d_bias is not None:
                d_bias += ds[..., :K].sum(0)
            if d_side_k is not None:
                d_side_k.index_add_(0, example, d_keys[:, :, K:])
                d_side_v.index_add_(0, example, d_values[:, :, K:])
            if d_side_bias is not None:
                d_side_bias.index_add_(1, row[part].flatten(), ds[..., K:].transpose(0, 1).flatten(1, 2))
        return *(None if d is None else d.to(x.dtype) for d, x in zip(grads, inputs, strict=True)), *[None] * 5
