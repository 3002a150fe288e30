"""The selective scan (Gu & Dao 2023, arXiv 2312.00752, algorithm 2) with a carried state.

    delta = softplus(delta + delta_bias)
    h_t[d,n] = exp(delta_t[d] A[d,n]) h_{t-1}[d,n] + delta_t[d] B_t[n] u_t[d]     (eq. 2a; A: zero-order hold, B: Euler)
    y_t[d] = (sum_n C_t[n] h_t[d,n] + D[d] u_t[d]) * SiLU(z_t[d])                 (eq. 2b, skip, gate)

B batch, L seq_len, D channels, N state size. Everything is real, in float32 or float64.

Forms of the recurrence in the middle: "triton", one GPU kernel per direction (triton.py); "numba", one compiled loop
per direction for the CPU, in float32 (numba.py); "torch", in chunks (chunked.py); "reference", one token after the
other (reference.py). What stands before and after it is shared, and cheap: it has no state axis.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.backend import REFERENCE, choose_form, register_op
from zoo.ops.dtypes import compute_dtype
from zoo.ops.selective_scan.chunked import ChunkedScan
from zoo.ops.selective_scan.numba import NumbaScan
from zoo.ops.selective_scan.reference import advance, scan_reference
from zoo.ops.shapes import check_shapes
from zoo.ops.tracing import plain_only, without_autocast


def forms_on(device_type: str) -> tuple[str, ...]:
    """Forms that run on a type of device, best first. On a CPU Triton only interprets: correct, but very slow."""
    forms = ("numba", "torch", "reference") if device_type == "cpu" else ("torch", "reference")
    if find_spec("triton") is None:
        return forms
    if device_type == "cuda":
        return ("triton", *forms)
    interpreted = device_type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return (*forms, "triton") if interpreted else forms


register_op("selective_scan", forms_on)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    h0: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan a sequence: y (B, L, D) in u's dtype, and the state after the last token (B, D, N) in at least float32.

    u, delta, z    (B, L, D) input, step size, gate (no gate when None)
    A              (D, N), negative
    B, C           (B, L, N)
    D, delta_bias  (D,), left out when None
    h0             (B, D, N) state before the first token; None = zeros
    mask           (B, L) bool; where it is False the state does not change (delta_t = 0)

    Gradients flow through everything, h0 and the returned state included. ValueError when shapes do not fit together.
    """
    check_shapes(
        "selective_scan",
        {
            "batch seq_len channels": {"u": u, "delta": delta, "z": z},
            "channels d_state": {"A": A},
            "batch seq_len d_state": {"B": B, "C": C},
            "channels": {"D": D, "delta_bias": delta_bias},
            "batch channels d_state": {"h0": h0},
            "batch seq_len": {"mask": mask},
        },
    )
    with without_autocast(u):
        u_wide, A, B, C, delta = _prepare(u, delta, A, B, C, delta_bias, delta_softplus)
        if mask is not None:
            delta = delta.masked_fill(~mask.unsqueeze(-1), 0.0)
        h0 = u_wide.new_zeros(u.shape[0], *A.shape) if h0 is None else h0.to(u_wide.dtype)
        form = choose_form("selective_scan", u.device, among=_forms_for(u_wide))
        scan = {"numba": NumbaScan.apply, "torch": ChunkedScan.apply}.get(form, scan_reference)
        if form == "triton":
            from zoo.ops.selective_scan.triton import triton_scan as scan  # importable only where triton is installed
        y, h = scan(u_wide, delta, A, B, C, h0)
        return _skip_and_gate(y, u_wide, D, z).to(u.dtype), h


def selective_scan_step(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    h: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Process one token of `selective_scan`: u, delta, z (B, D), B, C (B, N), h (B, D, N) -> y (B, D), h."""
    with without_autocast(u):
        u_wide, A, B, C, delta = _prepare(u, delta, A, B, C, delta_bias, delta_softplus)
        y, h = advance(h.to(u_wide.dtype), u_wide, delta, A, B, C)
        return _skip_and_gate(y, u_wide, D, z).to(u.dtype), h


def _forms_for(u: Tensor) -> tuple[str, ...]:
    """Forms for an input where a backward pass of our own is kept, and for its dtype."""
    if plain_only():
        return REFERENCE
    forms = forms_on(u.device.type)
    return forms if u.dtype is torch.float32 else tuple(form for form in forms if form != "numba")


def _prepare(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, delta_bias: Tensor | None, delta_softplus: bool
) -> tuple[Tensor, ...]:
    """Convert to one dtype, at least float32, and finish delta (bias, softplus): (u, A, B, C, delta)."""
    dtype = compute_dtype(u, A)
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)
    return u, A, B, C, F.softplus(delta) if delta_softplus else delta


def _skip_and_gate(y: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """Apply the skip and then the gate: (y + D u) SiLU(z)."""
    if D is not None:
        y = y + D.to(y.dtype) * u
    return y if z is None else y * F.silu(z.to(y.dtype))
