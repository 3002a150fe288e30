"""Sequences in chunks, and scores in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zoo.ops.tracing import plain_only

Result = TypeVar("Result")

MAX_SCORES = 1 << 24
"""Attention scores that are in memory at once where they are computed in parts."""


def slices(size: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most `step` elements that cover 0 … size - 1."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def right_aligned_chunks(x: Tensor, lengths: Tensor | None, T: int) -> Tensor:
    """Move each row's real tokens to the end, zeros before them, in chunks: x (B, H, L) -> (B, H, Q, T).

    From a zero state leading zeros change nothing, so that rows of different lengths end together.
    lengths  (B,) int, real tokens of each row (right padding); None = all L
    """
    B, H, L = x.shape
    if lengths is not None:
        source = torch.arange(L, device=x.device) - (L - lengths[:, None])  # (B, L)
        moved = x.gather(2, source.clamp(min=0)[:, None].expand(B, H, L))
        x = moved.masked_fill((source < 0)[:, None], 0.0)
    Q = -(-L // T)
    return (x if Q * T == L else F.pad(x, (Q * T - L, 0))).reshape(B, H, Q, T)


def state_chunk(L: int) -> int:
    """Tokens that one GEMM folds into a state: a power of two, at most 128.

    At N = 64 the states of all chunks, (B, H, N, L / 128), then hold half as many numbers as x.
    """
    return min(128, 1 << (L - 1).bit_length())


def recompute(function: Callable[..., Result], *args: Any) -> Result:
    """Call `function`, keeping nothing but its arguments for the backward pass, which calls it again.

    Dropout draws the same numbers both times. Tensors that need a gradient must be arguments: under
    `torch.func.functional_call` a closure over a module would see other parameters in the second call. Transforms of
    torch.func and torch.export know no recomputing and keep everything.
    """
    return (
        checkpoint(function, *args, use_reentrant=False)
        if torch.is_grad_enabled() and not plain_only()
        else function(*args)
    )
