"""Attention over a pattern of blocks: a sliding window or listed key blocks, and side keys, in one softmax.

    y_i = sum_j softmax_j(scale q_i.k_j + bias_ij) v_j        over the set of keys that the pattern shows to query i

Longformer (Beltagy et al. 2020, arXiv 2004.05150): window and global keys. BigBird (Zaheer et al. 2020, arXiv
2007.14062): listed blocks. LongT5 (Guo et al. 2022, arXiv 2112.07916): window and transient-global keys with biases.

Two forms:
    reference   dense masked softmax over (L, L): the definition
    torch       queries in blocks of S. A block meets its K keys as one piece, so scores are (L, K), never (L, L).
                Without biases PyTorch's fused kernels run it and keep no scores at all; with them some blocks at a
                time are computed, and computed again in backward.

B batch, H heads, L seq_len, d head dimension, dv of the values, M side keys; S queries of a block, n = ceil(L / S)
blocks, K keys that a block meets, T listed blocks of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.norms import at_least_float32
from zoo.ops.attention import reference_attention
from zoo.ops.backend import choose
from zoo.ops.biased import Plan, biased_attention

FORMS = {"blocked_attention": lambda device: ("torch", "reference")}
"""Forms of the op on any device, best first; for `choose` and `zoo doctor`."""


class Side(NamedTuple):
    """Keys outside the window that every query sees in the same softmax.

    k         (B, H, M, d)
    v         (B, H, M, dv)
    mask      (B, M) bool, True = real; None = all
    position  (B, M) int64, needed when causal: key m is seen by queries i >= position only (i = 0 .. L - 1)
    bias      (H, R, M) added to the scores; query i takes row `row[b, i]`
    row       (B, L) int64 in 0 .. R-1, beside `bias`

    A token that is a side key and lies in the window too would count twice: hide it there with `mask` of the call.
    """

    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    position: Tensor | None = None
    bias: Tensor | None = None
    row: Tensor | None = None


def blocked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: tuple[int, int] | None = None,
    dilation: int | Sequence[int] = 1,
    bias: Tensor | None = None,
    table: Tensor | None = None,
    block: int | None = None,
    side: Side | None = None,
    causal: bool = False,
    mask: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax over window or listed blocks, and side keys; see the head of this file. Returns (B, H, L, dv) like v.

    q, k, v   (B, H, L, d), (B, H, L, d), (B, H, L, dv); any L >= 1. Fastest as transposed views of (B, L, H, d).
              With a window, keys and values may be P + L: P of them come before the first query (a cache)
    window    (back, ahead): query i sees keys i - back .. i + ahead, cut at the ends of the sequence
    dilation  window only; one number, or one per head: keys i + dilation t, t = -back .. ahead
    bias      window only; (H, back + 1 + ahead): column t + back is added to the score of key i + dilation t (T5's
              bias by relative distance: column c is that of key position - query position = c - back)
    table     instead of a window: (B or 1, H or 1, n, T) int64. Queries of block b see the keys of the blocks
              table[:, :, b]. A block listed twice counts once, -1 stands for none; n = ceil(L / block)
    block     with a table, S: what its entries count in; with a window, only speed depends on it
    side      keys for all queries: Longformer's and LongT5's global keys
    causal    nobody sees a later key: ahead is cut to 0, listed blocks at the query itself, side keys by `position`
    mask      (B, P + L) bool, True = key may be seen through window or table (any pattern, not only right padding)
    scale     of the scores; None = 1/sqrt(d), T5: 1.0
    dropout   on the attention weights

    A query that sees no key at all gets zero, with zero gradients. Softmax in at least float32, float64 in float64
    out. Memory O(L (back + ahead + M)), or O(L S T), in forward and backward. ValueError when shapes do not fit.
    """
    dilations = (dilation,) * q.shape[1] if isinstance(dilation, int) else tuple(dilation)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    call = _Call(window, dilations, bias, table, block, side, causal, mask, scale, dropout)
    _check(q, k, v, call)
    form = choose("blocked_attention", FORMS["blocked_attention"]("any"))
    with torch.autocast(q.device.type, enabled=False):
        if form == "reference" or table is not None:
            return (_reference if form == "reference" else _listed)(q, k, v, call)
        place = torch.arange(q.shape[2], device=q.device)[None]
        return (_window if set(dilations) == {1} else _dilated)(q, k, v, place, call)


class _Call(NamedTuple):
    """The pattern and the rest of what was asked for; `blocked_attention` explains it."""

    window: tuple[int, int] | None
    dilations: tuple[int, ...]
    bias: Tensor | None
    table: Tensor | None
    block: int | None
    side: Side | None
    causal: bool
    mask: Tensor | None
    scale: float
    dropout: float


# -- the definition ------------------------------------------------------------------------------------------------


def _window_pattern(q: Tensor, keys: int, call: _Call) -> tuple[Tensor, Tensor | None]:
    """Which keys a query sees through its window, (H, L, P + L), and with which bias, (1, H, L, P + L)."""
    assert call.window is not None
    (back, ahead), device = call.window, q.device
    j = torch.arange(keys, device=device)
    lag = j - j[keys - q.shape[2] :, None]  # (L, P + L): key position - query position
    D = torch.tensor(call.dilations, device=device)[:, None, None]  # per head
    t = lag.div(D, rounding_mode="floor")  # (H, L, P + L)
    visible = (t * D == lag) & (t >= -back) & (t <= ahead)
    if call.bias is None:
        return visible, None
    head = torch.arange(q.shape[1], device=device)[:, None, None]
    return visible, call.bias[head, (t + back).clamp(0, back + ahead)][None]


def _listed_pattern(q: Tensor, table: Tensor, S: int) -> Tensor:
    """(B or 1, H or 1, L, L): the key's block stands in the list of the query's block."""
    block_of = torch.arange(q.shape[2], device=q.device) // S
    listed = F.one_hot(table + 1, table.shape[2] + 1).any(3)[..., 1:]  # (B|1, H|1, n, n); column 0 was -1, no block
    return listed[:, :, block_of][..., block_of]


def _reference(q: Tensor, k: Tensor, v: Tensor, call: _Call) -> Tensor:
    """Every score of every pair in memory."""
    (batch, heads, length, d), keys, side = q.shape, k.shape[2], call.side
    if call.table is not None and call.block is not None:
        visible, bias = _listed_pattern(q, call.table, call.block), None
    else:
        visible, bias = _window_pattern(q, keys, call)
    if call.causal:
        visible = visible.tril(keys - length)
    visible = visible.expand(batch, heads, length, keys)
    if call.mask is not None:
        visible = visible & call.mask[:, None, None, :]
    if side is not None:
        M = side.k.shape[2]
        shown = torch.ones(batch, 1, length, M, dtype=torch.bool, device=q.device)
        if side.mask is not None:
            shown = shown & side.mask[:, None, None, :]
        if call.causal and side.position is not None:
            shown = shown & (side.position[:, None, None, :] <= torch.arange(length, device=q.device)[:, None])
        visible = torch.cat([visible, shown.expand(batch, heads, length, M)], -1)
        near = q.new_zeros(()) if bias is None else bias
        far = q.new_zeros(())
        if side.bias is not None and side.row is not None:
            far = side.bias[:, side.row].transpose(0, 1)  # (B, H, L, M)
        bias = torch.cat([near.expand(batch, heads, length, keys), far.expand(batch, heads, length, M)], -1)
        k, v = torch.cat([k, side.k], 2), torch.cat([v, side.v], 2)
    q, k = at_least_float32(q) * (call.scale * math.sqrt(d)), at_least_float32(k)
    return reference_attention(q, k, v, visible=visible, bias=bias, dropout=call.dropout)


# -- queries in blocks ---------------------------------------------------------------------------------------------


def _window(q: Tensor, k: Tensor, v: Tensor, place: Tensor, call: _Call) -> Tensor:
    """Queries bS .. bS + S - 1 meet keys bS - back .. bS + S - 1 + ahead. place (B or 1, L): the queries' positions."""
    assert call.window is not None
    length, total, (back, ahead), bias = q.shape[2], k.shape[2], call.window, call.bias
    if bias is not None:
        bias = bias[:, max(back - total + 1, 0) :]
    back, ahead = min(back, total - 1), 0 if call.causal else min(ahead, length - 1)  # more is never seen
    P = min(total - length, back)
    k, v = k[:, :, total - length - P :], v[:, :, total - length - P :]
    S = min(length, call.block if call.block is not None else max(32, back, ahead))
    n = -(-length // S)
    if call.block is None and n * S * (back + S + ahead) >= length * (P + length):
        S, n = length, 1  # fewer scores than blocks would have
    if n == 1:
        before, after, K, own = 0, 0, P + length, P  # one block meets the sequence itself
    else:
        before, after, K, own = back - P, n * S - length + ahead, back + S + ahead, back
    lag = torch.arange(K, device=q.device) - own - torch.arange(S, device=q.device)[:, None]  # (S, K)
    visible = ((lag >= -back) & (lag <= ahead))[None, None, None]  # (1, 1, 1, S, K)
    if call.mask is not None or n > 1:
        real = q.new_ones(1, P + length, dtype=torch.bool) if call.mask is None else call.mask[:, total - length - P :]
        visible = visible & F.pad(real, (before, after)).unfold(1, K, S)[:, :, None, None]  # (B or 1, n, 1, S, K)
    if bias is not None:
        bias = bias[:, (lag + back).clamp(0, back + ahead)]  # (H, S, K)
    keys, values = (F.pad(x, (0, 0, before, after)).unfold(2, K, S).permute(0, 2, 1, 4, 3) for x in (k, v))
    return _blocks(q, keys, values, visible, bias, S, place, call)


def _dilated(q: Tensor, k: Tensor, v: Tensor, place: Tensor, call: _Call) -> Tensor:
    """A window of dilation D is a plain window over each of the D sequences of tokens that are D apart."""
    (batch, heads, length, _), keys, side = q.shape, k.shape[2], call.side
    mask = torch.ones(batch, keys, dtype=torch.bool, device=q.device) if call.mask is None else call.mask
    outs: dict[int, Tensor] = {}

    def apart(x: Tensor, dim: int, D: int) -> Tensor:
        """Split `dim` of (B, ..., P + L, ...) into D sequences, which join the batch: (B D, ..., (P + L) / D, ...).

        P and L are rounded up, so that the first query begins a row of D.
        """
        longer = [0, 0] * (x.ndim - dim - 1) + [(length - x.shape[dim]) % D, -length % D]
        x = F.pad(x, longer).unflatten(dim, (-1, D))
        return x.movedim(dim + 1, 1).flatten(0, 1)

    for D in sorted(set(call.dilations)):
        own = [h for h in range(heads) if call.dilations[h] == D]
        part = None
        if side is not None:
            part = Side(
                side.k[:, own].repeat_interleave(D, 0),
                side.v[:, own].repeat_interleave(D, 0),
                None if side.mask is None else side.mask.repeat_interleave(D, 0),
                None if side.position is None else side.position.repeat_interleave(D, 0),
                None if side.bias is None else side.bias[own],
                None if side.row is None else apart(side.row, 1, D),
            )
        bias = None if call.bias is None else call.bias[own]
        spread = call._replace(bias=bias, side=part, mask=apart(mask, 1, D))
        q_D, k_D, v_D = (apart(x[:, own], 2, D) for x in (q, k, v))
        y = _window(q_D, k_D, v_D, apart(place.expand(batch, -1), 1, D), spread)
        y = y.unflatten(0, (batch, D)).movedim(1, 3).flatten(2, 3)[:, :, :length]  # (B, own, L, dv)
        outs.update(zip(own, y.unbind(1), strict=True))
    return torch.stack([outs[h] for h in range(heads)], 1)


def _listed(q: Tensor, k: Tensor, v: Tensor, call: _Call) -> Tensor:
    """Queries of block b meet the keys of blocks table[:, b], one listed block beside the other."""
    assert call.table is not None
    table, S, mask = call.table, call.block or 1, call.mask
    (batch, heads, length, _), (_, _, n, T), device = q.shape, table.shape, q.device
    order = table.sort(-1).values.transpose(1, 2)  # (B|1, n, H|1, T)
    once = order >= 0
    once[..., 1:] &= order[..., 1:] != order[..., :-1]
    order = order.clamp(min=0)
    real = q.new_ones(1, length, dtype=torch.bool) if mask is None else mask
    real = F.pad(real, (0, n * S - length)).unflatten(1, (n, S))  # (B or 1, n, S)
    example = torch.arange(max(len(real), len(order)), device=device)[:, None, None, None]
    real = real.expand(len(example), -1, -1)[example, order]  # (B|1, n, H|1, T, S)
    visible = (real & once[..., None]).flatten(3).unsqueeze(3)  # (B|1, n, H|1, 1, T S)
    if call.causal:
        j = (order[..., None] * S + torch.arange(S, device=device)).flatten(3)  # (B|1, n, H|1, T S): keys' positions
        i = torch.arange(n * S, device=device).view(n, 1, S, 1)
        visible = visible & (j.unsqueeze(3) <= i)  # (B|1, n, H|1, S, T S)
    row = torch.arange(batch * heads, device=device).view(batch, 1, heads, 1)
    pick = (order + n * row).flatten()  # (B, n, H, T) of the (B, H, n) blocks

    def gather(x: Tensor) -> Tensor:
        """(B, H, L, d) -> (B, n, H, T S, d)"""
        x = F.pad(x, (0, 0, 0, n * S - length)).reshape(batch * heads * n, -1)  # (B H n, S d)
        return x.index_select(0, pick).view(batch, n, heads, T * S, -1)

    place = torch.arange(length, device=device)[None]
    return _blocks(q, gather(k), gather(v), visible, None, S, place, call)


def _blocks(
    q: Tensor, keys: Tensor, values: Tensor, visible: Tensor, bias: Tensor | None, S: int, place: Tensor, call: _Call
) -> Tensor:
    """Each block of S queries against its keys, the side keys beside them, in one softmax.

    q (B, H, L, d), keys, values (B, n, H, K, d), visible (B|1, n|1, H|1, S|1, K), bias (H, S, K) -> (B, H, L, dv).
    """
    (batch, heads, length, d), n, side = q.shape, keys.shape[1], call.side
    short = n * S - length
    q = F.pad(q, (0, 0, 0, short)).transpose(1, 2).reshape(batch * n, S, heads, d).transpose(1, 2)  # (B n, H, S, d)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # (B n, H, K, d)
    visible = visible.expand(batch, n, -1, -1, -1).flatten(0, 1)  # (B n, H|1, S|1, K)
    place = F.pad(place, (0, short)).expand(batch, -1).reshape(batch * n, S)
    row = None
    if side is not None and side.row is not None:
        row = F.pad(side.row, (0, short)).reshape(batch * n, S)

    def seen(part: slice) -> Tensor:
        """(part, H|1, S|1, K + M)"""
        if side is None:
            return visible[part]
        example = torch.arange(part.start, part.stop, device=q.device) // n
        return _with_shown(visible[part], side, example, place[part] if call.causal else None)

    sides = None if side is None else (side.k, side.v)
    if bias is not None or (side is not None and side.bias is not None):
        far = None if side is None else side.bias
        y = biased_attention(q, keys, values, bias, sides, far, row, Plan(seen, call.scale, call.dropout))
    else:
        if side is not None:
            example = torch.arange(len(q), device=q.device) // n
            keys = torch.cat([keys, side.k.index_select(0, example)], 2)
            values = torch.cat([values, side.v.index_select(0, example)], 2)
        y = _fused(q, keys, values, seen(slice(0, len(q))), call)
    return y.transpose(1, 2).reshape(batch, n * S, heads, -1)[:, :length].transpose(1, 2)


def _with_shown(see: Tensor, side: Side, example: Tensor, place: Tensor | None) -> Tensor:
    """see (r, H|1, S|1, K) and which side keys the r blocks see: (r, H|1, S|1, K + M). place (r, S) when causal."""
    M = side.k.shape[2]
    shown = see.new_ones(len(example), 1, 1, M) if side.mask is None else side.mask[example][:, None, None]
    if place is not None and side.position is not None:
        shown = shown & (side.position[example][:, None, None] <= place[:, None, :, None])  # (r, 1, S, M)
    H, S = see.shape[1], max(see.shape[2], shown.shape[2])
    return torch.cat([see.expand(-1, H, S, -1), shown.expand(-1, H, S, -1)], -1)


def _fused(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, call: _Call) -> Tensor:
    """PyTorch's fused kernels; a query that sees nothing is shown everything, and its result dropped."""
    blind = ~visible.any(-1, keepdim=True)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | blind, dropout_p=call.dropout, scale=call.scale)
    return y.masked_fill(blind, 0)


def _check(q: Tensor, k: Tensor, v: Tensor, call: _Call) -> None:
    window, dilations, table, block, side = call.window, call.dilations, call.table, call.block, call.side

    def wrong(why: str) -> ValueError:
        return ValueError(f"blocked_attention: {why}")

    if q.ndim != 4 or not q.numel():
        raise wrong(f"q has shape {tuple(q.shape)}, expected (batch, heads, seq_len >= 1, d)")
    batch, heads, length, d = q.shape
    keys = k.shape[2] if k.ndim == 4 and window is not None and k.shape[2] > length else length
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "k": (k, (batch, heads, keys, d)),
        "v": (v, (batch, heads, keys, v.shape[-1])),
        "mask": (call.mask, (batch, keys)),
    }
    if (window is None) == (table is None):
        raise wrong("expected either a window or a table of blocks")
    if block is not None and block < 1:
        raise wrong(f"block must be positive, got {block}")
    if window is not None:
        if min(window) < 0:
            raise wrong(f"window {window}: expected (back >= 0, ahead >= 0)")
        if len(dilations) != heads or min(dilations) < 1:
            raise wrong(f"dilation {dilations}: expected a positive number for each of {heads} heads")
        wanted["bias"] = (call.bias, (heads, window[0] + 1 + window[1]))
    if table is not None:
        if block is None or call.bias is not None or set(dilations) != {1}:
            raise wrong("a table needs its block, and has neither bias nor dilation")
        n = -(-length // block)
        rows = zip(table.shape, (batch, heads), strict=False)  # 1 stands for all
        if table.ndim != 4 or any(have not in (1, all_) for have, all_ in rows) or table.shape[2] != n:
            want = f"(1 or {batch}, 1 or {heads}, {n}, any): {length} tokens are {n} blocks of {block}"
            raise wrong(f"table has shape {tuple(table.shape)}, expected {want}")
        if table.device.type == "cpu" and not (int(table.min()) >= -1 and int(table.max()) < n):  # a GPU would wait
            raise wrong(f"table lists blocks {int(table.min())} .. {int(table.max())} of {n} blocks of {block} tokens")
    if side is not None:
        M = side.k.shape[2] if side.k.ndim == 4 else 0
        wanted |= {
            "side.k": (side.k, (batch, heads, M, d)),
            "side.v": (side.v, (batch, heads, M, v.shape[-1])),
            "side.mask": (side.mask, (batch, M)),
            "side.position": (side.position, (batch, M)),
            "side.row": (side.row, (batch, length)),
        }
        if (side.bias is None) != (side.row is None):
            raise wrong("side.bias and side.row come together")
        if side.bias is not None:
            wanted["side.bias"] = (side.bias, (heads, side.bias.shape[1], M))
        if call.causal and side.position is None:
            raise wrong("causal side keys need their position")
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise wrong(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
