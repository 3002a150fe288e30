"""Softmax attention of blocks of queries with learned biases on the scores, keeping no scores for backward.

PyTorch's fused kernels give a bias no gradient. Here some blocks at a time are computed, in place as far as possible,
and computed again in backward, which is written out.

r blocks, n of them per example (B examples, r = B n), H heads, S queries and K near keys of a block, M side keys of an
example, d head dimension, dv of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.nn.norms import at_least_float32

PIECE = 1 << 18
"""Scores that are in memory at once on a CPU, few enough for its caches; on a GPU 128 times as many."""


class Plan(NamedTuple):
    """What is no tensor. seen(part): which keys these blocks see, (part, H or 1, S or 1, K + M) bool."""

    seen: Callable[[slice], Tensor]
    scale: float
    dropout: float
    seed: int = 0


def biased_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    near: Tensor | None,
    side: tuple[Tensor, Tensor] | None,
    far: Tensor | None,
    row: Tensor | None,
    plan: Plan,
) -> Tensor:
    """softmax(scale q kᵀ + bias) v over the keys that are seen, side keys behind the near ones: (r, H, S, dv) like v.

    q, k, v  (r, H, S, d), (r, H, K, d), (r, H, K, dv)
    near     (H, S, K), the same for all blocks: the bias of near keys
    side     (B, H, M, d) and (B, H, M, dv)
    far      (H, R, M) with row (r, S): query s of a block takes row `row[., s]` for the scores of side keys

    A query that sees nothing gets zero, with zero gradients. Softmax in at least float32. Not differentiable twice.
    """
    if plan.dropout:
        plan = plan._replace(seed=int(torch.randint(1 << 62, (), device="cpu")))
    side_k, side_v = side if side is not None else (None, None)
    return _Biased.apply(q, k, v, near, side_k, side_v, far, row, plan)


def _weights(
    q: Tensor, k: Tensor, near: Tensor | None, far: Tensor | None, row: Tensor | None, seen: Tensor, K: int
) -> Tensor:
    """softmax of the scores of some blocks, (p, H, S, K + M); uniform where nothing is seen. q is scaled already."""
    scores = q @ k.transpose(-1, -2)
    if near is not None:
        scores[..., :K] += near
    if far is not None and row is not None:
        scores[..., K:] += far.index_select(1, row.flatten()).unflatten(1, row.shape).transpose(0, 1)
    scores.masked_fill_(~seen, torch.finfo(scores.dtype).min)  # finite, so that a row without any key is
    return torch.softmax(scores, -1)


def _kept(weights: Tensor, dropout: float, seed: int) -> Tensor:
    """What dropout multiplies the weights with: the same for the same seed."""
    generator = torch.Generator(weights.device).manual_seed(seed)
    drawn = torch.rand(weights.shape, dtype=weights.dtype, device=weights.device, generator=generator)
    return (drawn >= dropout).to(weights.dtype).div_(1 - dropout)


def _parts(q: Tensor, k: Tensor, side_k: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Blocks that are computed together, and the example of each."""
    r, H, S, _ = q.shape
    keys = k.shape[2] + (0 if side_k is None else side_k.shape[2])
    n = 1 if side_k is None else r // side_k.shape[0]
    step = max(1, PIECE * (1 if q.device.type == "cpu" else 128) // (H * S * keys))
    for start in range(0, r, step):
        part = slice(start, min(start + step, r))
        yield part, torch.arange(part.start, part.stop, device=q.device) // n


def _join(near: Tensor, side: Tensor | None, example: Tensor) -> Tensor:
    """Near and side keys (or values) of some blocks in at least float32: (p, H, K + M, d)."""
    near = at_least_float32(near)
    return near if side is None else torch.cat([near, at_least_float32(side.index_select(0, example))], 2)


class _Biased(torch.autograd.Function):
    """p = softmax(s), y = (m * p) v with dropout's m. In backward, with g = dL/dy and e = m * (g vᵀ):

    dL/dv = (m * p)ᵀ g,  dL/ds = p * (e - sum_j p_j e_j), where sum_j p_j e_j = y·g
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        near: Tensor | None,
        side_k: Tensor | None,
        side_v: Tensor | None,
        far: Tensor | None,
        row: Tensor | None,
        plan: Plan,
    ) -> Tensor:
        outs = []
        for part, example in _parts(q, k, side_k):
            wide_q, own = at_least_float32(q[part]) * plan.scale, None if row is None else row[part]
            seen = plan.seen(part)
            p = _weights(wide_q, _join(k[part], side_k, example), near, far, own, seen, k.shape[2])
            if plan.dropout:
                p *= _kept(p, plan.dropout, plan.seed + part.start)
            y = p @ _join(v[part], side_v, example)
            outs.append(y.masked_fill_(~seen.any(-1, keepdim=True), 0))
        y = torch.cat(outs)
        ctx.save_for_backward(q, k, v, near, side_k, side_v, far, row, y)
        ctx.plan = plan
        return y.to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, near, side_k, side_v, far, row, y = ctx.saved_tensors
        plan, K = ctx.plan, k.shape[2]
        wide = y.dtype
        dq, dk, dv = (torch.empty(x.shape, dtype=wide, device=x.device) for x in (q, k, v))
        d_near, d_side_k, d_side_v, d_far = (
            None if x is None else torch.zeros(x.shape, dtype=wide, device=x.device)
            for x in (near, side_k, side_v, far)
        )
        for part, example in _parts(q, k, side_k):
            wide_q, own = at_least_float32(q[part]) * plan.scale, None if row is None else row[part]
            seen = plan.seen(part)
            keys, values = _join(k[part], side_k, example), _join(v[part], side_v, example)
            p = _weights(wide_q, keys, near, far, own, seen, K)
            g_part = at_least_float32(g[part]).masked_fill(~seen.any(-1, keepdim=True), 0)
            e = g_part @ values.transpose(-1, -2)  # (p, H, S, K + M)
            used = p
            if plan.dropout:
                kept = _kept(p, plan.dropout, plan.seed + part.start)
                e *= kept
                used = kept.mul_(p)
            d_values = used.transpose(-1, -2) @ g_part
            ds = e.sub_((y[part] * g_part).sum(-1, keepdim=True)).mul_(p)
            d_keys = ds.transpose(-1, -2) @ wide_q
            torch.mul(ds @ keys, plan.scale, out=dq[part])
            dk[part], dv[part] = d_keys[:, :, :K], d_values[:, :, :K]
            if d_near is not None:
                d_near += ds[..., :K].sum(0)
            if d_side_k is not None and d_side_v is not None:
                d_side_k.index_add_(0, example, d_keys[:, :, K:])
                d_side_v.index_add_(0, example, d_values[:, :, K:])
            if d_far is not None and own is not None:
                d_far.index_add_(1, own.flatten(), ds[..., K:].transpose(0, 1).flatten(1, 2))
        found = (dq, dk, dv, d_near, d_side_k, d_side_v, d_far)
        given = (q, k, v, near, side_k, side_v, far)
        return (*(None if d is None else d.to(x.dtype) for d, x in zip(found, given, strict=True)), None, None)
