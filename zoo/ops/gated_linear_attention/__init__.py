"""Linear attention whose state decays by a gate of each token and key dimension.

    S_t = diag(alpha_t) S_{t-1} + k_t v_t^T        o_t = q_t S_t

B batch, H heads, L seq_len, k and v key and value dimensions of a head; the carried state S is (B, H, k, v). Scales of
q, feature maps and norms belong to the caller. With one gate per head it is the recurrence of Mamba-2 and mLSTM;
RetNet's gates do not vary, and have a faster op of their own, `zoo.ops.retention`.

Forms: "torch" in chunks, O(L (c + k)) time and O(L) memory (chunked.py); "reference" one token after the other.
Source: Yang et al. 2023, Gated Linear Attention Transformers with Hardware-Efficient Training (arXiv 2312.06635).
"""

from __future__ import annotations

from torch import Tensor

from zoo.ops.backend import choose_form, register_op
from zoo.ops.dtypes import compute_dtype
from zoo.ops.gated_linear_attention.chunked import chunked_attention
from zoo.ops.gated_linear_attention.reference import recurrent_attention
from zoo.ops.shapes import check_shapes
from zoo.ops.tracing import without_autocast

register_op("gated_linear_attention", ("torch", "reference"))


def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_alpha: Tensor,
    state: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs o (B, H, L, v) in q's dtype, and the state after the last token (B, H, k, v).

    q, k       (B, H, L, k)
    v          (B, H, L, v)
    log_alpha  (B, H, L, k), or (B, H, L, 1) for one gate per head; at most 0, and -inf forgets everything
    state      (B, H, k, v) before the first token; None = zeros
    mask       (B, L) bool; where it is False the state does not change
    chunk      tokens whose scores are computed together, a power of 2

    Computed in float32, or in float64 where an argument is. Gradients flow through everything, the state and the
    returned state included. ValueError when shapes do not fit together.
    """
    check_shapes(
        "gated_linear_attention",
        {
            "batch heads seq_len key": {"q": q, "k": k},
            "batch heads seq_len 1|key": {"log_alpha": log_alpha},
            "batch heads seq_len value": {"v": v},
            "batch heads key value": {"state": state},
            "batch seq_len": {"mask": mask},
        },
    )
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"gated_linear_attention: chunk is {chunk}, expected a power of 2")
    with without_autocast(q):
        dtype = compute_dtype(q, k, v, log_alpha)
        wide_q, k, v, log_alpha = (x.to(dtype) for x in (q, k, v, log_alpha))
        S = q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
        if mask is not None:
            pads = ~mask[:, None, :, None]
            k, v, log_alpha = (x.masked_fill(pads, 0.0) for x in (k, v, log_alpha))
        if choose_form("gated_linear_attention", q.device) == "reference":
            o, S = recurrent_attention(wide_q, k, v, log_alpha.exp(), S)
        else:
            o, S = chunked_attention(wide_q, k, v, log_alpha, S, chunk)
        return o.to(q.dtype), S
