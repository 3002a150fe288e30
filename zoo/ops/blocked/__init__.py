"""Attention over a pattern of blocks: a sliding window or listed key blocks, and side keys, in one softmax.

    y_i = sum_j softmax_j(scale q_i.k_j + bias_ij) v_j        over the set of keys that the pattern shows to query i

Longformer (Beltagy et al. 2020, arXiv 2004.05150): window and global keys. BigBird (Zaheer et al. 2020, arXiv
2007.14062): listed blocks. LongT5 (Guo et al. 2022, arXiv 2112.07916): window and transient-global keys with biases.

B batch, H heads, L seq_len, d head dimension, dv of the values, M side keys; S queries of a block, n = ceil(L / S)
blocks, K keys that a block meets, T listed blocks of a block.

Forms: "torch" computes queries in blocks of S, so that scores are (L, K), never (L, L): without biases by PyTorch's
fused kernels (chunked.py), with them some blocks at a time, computed again in backward (biased.py). "reference" is the
dense masked softmax (reference.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.ops.backend import choose_form, register_op
from zoo.ops.blocked.chunked import dilated_window_attention, table_attention, window_attention
from zoo.ops.blocked.pattern import Pattern, Side, check_arguments
from zoo.ops.blocked.reference import dense_attention
from zoo.ops.tracing import without_autocast

register_op("blocked_attention", ("torch", "reference"))


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
    """Attend to a window or listed blocks, and to side keys, in one softmax: (B, H, L, dv) in the dtype of v.

    q, k, v   (B, H, L, d), (B, H, L, d), (B, H, L, dv); any L >= 1. Fastest as transposed views of (B, L, H, d).
              With a window, keys and values may be P + L: P of them come before the first query (a cache)
    window    (back, ahead): query i sees keys i - back … i + ahead, cut at the ends of the sequence
    dilation  window only; one number, or one per head: keys i + dilation t, t = -back … ahead
    bias      window only; (H, back + 1 + ahead): column t + back is added to the score of key i + dilation t (T5's
              bias by relative distance: column c is that of key position - query position = c - back)
    table     instead of a window: (B or 1, H or 1, n, T) int64. Queries of block b see the keys of the blocks
              table[:, :, b]. A block listed twice counts once, -1 stands for none; n = ceil(L / block)
    block     with a table, S: the size of its blocks; with a window, only speed depends on it
    side      keys for all queries: Longformer's and LongT5's global keys
    causal    no query sees a later key: ahead is cut to 0, listed blocks at the query itself, side keys by `position`
    mask      (B, P + L) bool, True = key may be seen through window or table (any pattern, not only right padding)
    scale     of the scores; None = 1/√d, T5: 1.0
    dropout   on the attention weights

    A query that sees no key gets zero, with zero gradients. Softmax in at least float32. Memory O(L (back + ahead + M))
    or O(L S T), in forward and backward. ValueError when shapes do not fit together.
    """
    dilations = (dilation,) * q.shape[1] if isinstance(dilation, int) else tuple(dilation)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    pattern = Pattern(window, dilations, bias, table, block, side, causal, mask, scale, dropout)
    check_arguments(q, k, v, pattern)
    with without_autocast(q):
        if choose_form("blocked_attention", q.device) == "reference":
            return dense_attention(q, k, v, pattern)
        if table is not None:
            return table_attention(q, k, v, pattern)
        positions = torch.arange(q.shape[2], device=q.device)[None]
        dilated = set(dilations) != {1}
        return (dilated_window_attention if dilated else window_attention)(q, k, v, positions, pattern)


__all__ = ["Side", "blocked_attention"]
