"""The arguments of blocked attention other than queries, keys and values, and their checks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from zoo.ops.shapes import check_shapes
from zoo.ops.tracing import has_values


class Side(NamedTuple):
    """Keys that every query sees in the same softmax, wherever it stands (global keys).

    k         (B, H, M, d)
    v         (B, H, M, dv)
    mask      (B, M) bool, True = real; None = all
    position  (B, M) int64, needed when causal: key m is seen by queries i >= position only (i = 0 … L - 1)
    bias      (H, R, M) added to the scores; query i takes row `row[b, i]`
    row       (B, L) int64 in 0 … R-1, beside `bias`

    A token that is a side key and lies in the window too would count twice: hide it there with `mask` of the call.
    """

    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    position: Tensor | None = None
    bias: Tensor | None = None
    row: Tensor | None = None


class Pattern(NamedTuple):
    """Which keys each query sees, and how their scores are made; `blocked_attention` describes the fields."""

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


def check_arguments(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> None:
    """Raise ValueError when the arguments of blocked attention do not fit together."""
    window, dilations, bias, table, block, side, causal, mask, *_ = pattern
    sizes = {"offsets": window[0] + 1 + window[1]} if window is not None else {}
    if table is not None and block:
        sizes["blocks"] = -(-q.shape[-2] // block)  # n
    tensors: dict[str, dict[str, Tensor | None]] = {
        "batch heads seq_len d": {"q": q},
        "batch heads keys d": {"k": k},
        "batch heads keys dv": {"v": v},
        "batch keys": {"mask": mask},
        "heads offsets": {"bias": bias},
        "1|batch 1|heads blocks listed": {"table": table},
    }
    if side is not None:
        tensors |= {
            "batch heads side_keys d": {"side.k": side.k},
            "batch heads side_keys dv": {"side.v": side.v},
            "batch side_keys": {"side.mask": side.mask, "side.position": side.position},
            "heads rows side_keys": {"side.bias": side.bias},
            "batch seq_len": {"side.row": side.row},
        }
    check_shapes("blocked_attention", tensors, **sizes)
    problem = None
    heads, length, keys = q.shape[1], q.shape[2], k.shape[2]
    if (window is None) == (table is None):
        problem = "expected either a window or a table of blocks"
    elif block is not None and block < 1:
        problem = f"block must be positive, got {block}"
    elif window is not None and min(window) < 0:
        problem = f"window {window}: expected (back >= 0, ahead >= 0)"
    elif window is not None and (len(dilations) != heads or min(dilations) < 1):
        problem = f"dilation {dilations}: expected a positive number for each of {heads} heads"
    elif keys < length or (window is None and keys > length):
        problem = f"{keys} keys for {length} queries: expected as many, or more before them with a window"
    elif table is not None and (block is None or bias is not None or set(dilations) != {1}):
        problem = "a table needs its block, and has neither bias nor dilation"
    elif table is not None and table.device.type == "cpu" and has_values(table):  # a GPU would wait for the answer
        n, low, high = table.shape[2], int(table.min()), int(table.max())
        if low < -1 or high >= n:
            problem = f"table lists blocks {low} … {high} of {n} blocks of {block} tokens"
    if problem is None and side is not None:
        if (side.bias is None) != (side.row is None):
            problem = "side.bias and side.row come together"
        elif causal and side.position is None:
            problem = "causal side keys need their position"
    if problem is not None:
        raise ValueError(f"blocked_attention: {problem}")
