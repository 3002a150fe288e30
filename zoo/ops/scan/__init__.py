"""Scan of a diagonal linear recurrence that is the same at every step (S5, Smith et al. 2023, arXiv 2208.04933).

    x_t = a x_{t-1} + v_t          (reversed in time: x_t = a x_{t+1} + v_t)

B batch, L seq_len, P states, each with its own a.

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


def diagonal_scan(a: Tensor, v: Tensor, x0: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """Compute all states of the recurrence x_t = a x_{t-1} + v_t.

    a        (P,) real or complex, best in double precision
    v        (B, L, P) inputs, at least float32 or complex64
    x0       (B, P) state before the first token (after the last one when `reverse`); None = zeros
    reverse  run from the last token to the first
    Returns  x (B, L, P) in v's precision, complex when any of the three is. All inputs get gradients.

    ValueError when shapes do not fit together or v is in half precision.
    """
    check_shapes("diagonal_scan", {"states": {"a": a}, "batch seq_len states": {"v": v}, "batch states": {"x0": x0}})
    if v.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise ValueError(f"diagonal_scan: v in {v.dtype}: a recurrence needs at least float32")
    with without_autocast(v):
        dtype = v.dtype
        if a.is_complex() or (x0 is not None and x0.is_complex()):
            dtype = torch.promote_types(dtype, torch.complex64)
        v = v.to(dtype)
        x0 = v.new_zeros(v.shape[0], v.shape[2]) if x0 is None else x0.to(dtype)
        if choose_form("diagonal_scan", v.device, among=REFERENCE if plain_only() else None) == "reference":
            return scan_reference(a.to(dtype), v, x0, reverse)
        return ChunkedScan.apply(a.to(torch.complex128 if dtype.is_complex else torch.float64), v, x0, reverse)
