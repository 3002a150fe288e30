"""Scan of a diagonal linear recurrence, whose decay is the same at every step or varies with time.

    x_t = a_t * x_{t-1} + v_t          (reversed in time: x_t = a_t * x_{t+1} + v_t)

B batch, L seq_len, P states. S5 (Smith et al. 2023, arXiv 2208.04933) has one a for all steps; minGRU and minLSTM (Feng
et al. 2024, arXiv 2410.01201), the RG-LRU and other gated recurrences compute a_t from the token. Mamba's recurrence is
`zoo.ops.selective_scan`, which never writes its N states per channel to memory.

Forms: "torch" in chunks, all chunks at once (chunked.py); "reference" one token after the other (reference.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops.backend import REFERENCE, choose_form, register_op
from zoo.ops.scan.chunked import ChunkedScan
from zoo.ops.scan.reference import scan_reference
from zoo.ops.shapes import check_shapes
from zoo.ops.tracing import plain_only, without_autocast

register_op("diagonal_scan", ("torch", "reference"))


def diagonal_scan(
    a: Tensor, v: Tensor, x0: Tensor | None = None, *, mask: Tensor | None = None, reverse: bool = False
) -> Tensor:
    """Compute all states of the recurrence x_t = a_t * x_{t-1} + v_t.

    a        (P,), the same at every step and best in double precision, or (B, L, P); real or complex
    v        (B, L, P) inputs, real or complex
    x0       (B, P) state before the first token (after the last one when `reverse`); None = zeros
    mask     (B, L) bool; where it is False the state does not change
    reverse  run from the last token to the first
    Returns  x (B, L, P) in v's precision, at least float32, complex when any of the three is. The final state is
             x[:, -1] (x[:, 0] when `reverse`). a, v and x0 get gradients.

    ValueError when shapes do not fit together.
    """
    constant, varying = (a, None) if a.ndim == 1 else (None, a)
    check_shapes(
        "diagonal_scan",
        {
            "states": {"a": constant},
            "batch seq_len states": {"v": v, "a": varying},
            "batch states": {"x0": x0},
            "batch seq_len": {"mask": mask},
        },
    )
    with without_autocast(v):
        dtype = torch.promote_types(v.dtype, torch.float32)
        if a.is_complex() or (x0 is not None and x0.is_complex()):
            dtype = torch.promote_types(dtype, torch.complex64)
        v = v.to(dtype)
        if mask is not None:
            real = mask.unsqueeze(-1)
            a, v = torch.where(real, a, 1.0), v.masked_fill(~real, 0.0)
        x0 = v.new_zeros(v.shape[0], v.shape[2]) if x0 is None else x0.to(dtype)
        if choose_form("diagonal_scan", v.device, among=REFERENCE if plain_only() else None) == "reference":
            return scan_reference(a.to(dtype), v, x0, reverse)
        wide = torch.promote_types(dtype, torch.float64) if a.ndim == 1 else dtype
        return ChunkedScan.apply(a.to(wide), v, x0, reverse)
