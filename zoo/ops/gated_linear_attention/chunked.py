"""Gated linear attention in chunks of c tokens: (c, c) scores inside a chunk, everything before it as one (k, v) state.

The score of query i for key j of its chunk is sum_d q_i k_j alpha_{j+1} … alpha_i. Blocks of one token are merged in
pairs until they are chunks: in a block of 2h, the queries of the right half see the keys of the left one through the
product of the right half's gates up to them, times the product of the left half's gates behind the key. Products are
exponentials of sums of log alpha. These are only ever added, never subtracted: no factor exceeds 1, none loses digits
(neither with gates near 0, nor with gates near 1 over many tokens), and log alpha = -inf is as good as any. All
products of (h, k) and (k, h) together cost what one of (c, k) and (k, c) does.

The chunks' states obey a diagonal recurrence over the chunks (`zoo.ops.scan`). The tokens are taken in parts whose
tensors fit in SPACE numbers; between parts only the state is kept, and backward computes the rest again.

N chunks of a part.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.chunks import recompute, slices
from zoo.ops.scan.chunked import ChunkedScan
from zoo.ops.scan.reference import scan_reference
from zoo.ops.tracing import plain_only

SPACE = 1 << 20
"""Numbers of q, k, v or of the chunks' states that one part has at once."""


def chunked_attention(q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor, S: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """Run over the tokens: q, k (B, H, L, k), v (B, H, L, v), log_alpha (B, H, L, k or 1), S (B, H, k, v) -> o, S."""
    (B, H, L, K), V = q.shape, v.shape[-1]
    c = min(c, 1 << (L - 1).bit_length())
    tokens = c * max(1, SPACE // (B * H * max(c * max(K, V), K * V)))
    outs = []
    for part in slices(L, tokens):
        o, S = recompute(_part, *(x[:, :, part] for x in (q, k, v, log_alpha)), S, c)
        outs.append(o)
    return (outs[0] if len(outs) == 1 else torch.cat(outs, 2)), S


def _part(q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor, S: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """All chunks of a part at once."""
    L = q.shape[2]
    pad = -L % c
    q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (-1, c)) for x in (q, k, v))  # (B, H, N, c, ·)
    log_alpha = F.pad(log_alpha, (0, 0, 0, pad)).unflatten(2, (-1, c))
    scores, since_start, to_end = _scores(q, k, log_alpha)
    added = (k * to_end.exp()).mT @ v  # (B, H, N, k, v)
    decay = since_start[..., -1, :, None].exp()  # (B, H, N, k or 1, 1)
    a, x = (y.expand_as(added).flatten(3).flatten(0, 1) for y in (decay, added))  # (B H, N, k v)
    scan = scan_reference if plain_only() else ChunkedScan.apply
    after = scan(a, x, S.flatten(2).flatten(0, 1), False).view_as(added)
    before = torch.cat([S.unsqueeze(2), after[:, :, :-1]], 2)
    o = scores @ v + (q * since_start.exp()) @ before
    return o.flatten(2, 3)[:, :, :L], after[:, :, -1]


def _scores(q: Tensor, k: Tensor, log_alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The scores (…, c, c) of a chunk, 0 for later keys: q, k (…, c, k), log_alpha (…, c, k or 1).

    Also the sums of log_alpha from the start of the chunk up to each token, and from behind each token to the end.
    """
    scores = (q * k).sum(-1)[..., None, None]  # (…, blocks, h, h) with h = 1
    q, k, since_start, to_end = (x.unsqueeze(-2) for x in (q, k, log_alpha, torch.zeros_like(log_alpha)))
    while q.shape[-3] > 1:
        q, k, scores, since_start, to_end = (x.unflatten(-3, (-1, 2)) for x in (q, k, scores, since_start, to_end))
        (above, below), (since_left, since_right), (left_end, right_end) = (
            x.unbind(-3) for x in (scores, since_start, to_end)
        )
        across = (q[..., 1, :, :] * since_right.exp()) @ (k[..., 0, :, :] * left_end.exp()).mT  # (…, blocks, h, h)
        scores = torch.cat([F.pad(above, (0, above.shape[-1])), torch.cat([across, below], -1)], -2)
        since_start = torch.cat([since_left, since_right + since_left[..., -1:, :]], -2)
        to_end = torch.cat([left_end + since_right[..., -1:, :], right_end], -2)
        q, k = q.flatten(-3, -2), k.flatten(-3, -2)
    return scores.squeeze(-3), since_start.squeeze(-3), to_end.squeeze(-3)
