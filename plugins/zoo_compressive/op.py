"""The Compressive Transformer's memories, their compression, and its loss (Rae et al. 2019, §3).

Shapes: B batch, T tokens of the segment, M rows of memory, C rows of compressed memory, c compression rate, N groups
of c old rows, D d_model, H heads, E width of a head. Memory and compressed memory have full size beside masks of their
real rows, which are at the end; each sequence of a batch evicts as many rows as its own real tokens displace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.nn import RelativeLayer, at_least_float32
from zoo.ops.attention import attention
from zoo.ops.memory import kept_rows, take_rows


class Compression(nn.Module):
    """f_c: c rows become one, (B, N c, D) -> (B, N, D). Convolution with kernel and stride c, or mean or maximum."""

    def __init__(self, kind: str, d_model: int, rate: int) -> None:
        super().__init__()
        self.kind, self.rate = kind, rate
        self.conv = nn.Conv1d(d_model, d_model, kernel_size=rate, stride=rate) if kind == "conv" else None

    def forward(self, old: Tensor) -> Tensor:
        if self.conv is not None:
            return self.conv(old.transpose(1, 2)).transpose(1, 2)
        groups = old[:, : old.shape[1] // self.rate * self.rate].unflatten(1, (-1, self.rate))  # (B, N, c, D)
        return groups.mean(2) if self.kind == "mean" else groups.amax(2)


class Eviction(NamedTuple):
    """The update of the memories after one segment, as row indices and masks, the same for all layers.

    old, old_real    (B, N c) rows of [memory; segment] that are compressed
    new_real         (B, N) which of the new compressed rows are real
    row, real        (B, M) rows of [memory; segment] that are the next memory
    c_row, c_real    (B, C) rows of [compressed; new] that are the next compressed memory
    """

    old: Tensor
    old_real: Tensor
    new_real: Tensor
    row: Tensor
    real: Tensor
    c_row: Tensor
    c_real: Tensor


def plan_eviction(m_real: Tensor, c_real: Tensor, n_new: Tensor, T: int, sizes: tuple[int, int, int]) -> Eviction:
    """Choose the rows that are evicted and kept, so that no row is lost uncompressed.

    The memory holds M rows; of more, the oldest ceil(excess / c) c leave it. With M and all segments multiples of c
    this is the paper's rule: T rows leave a full memory, T / c are written.

    m_real, c_real  (B, M or 0), (B, C) bool, real rows of the memories so far
    n_new           (B,) real tokens of the segment, which are at its beginning
    sizes           M, C, c
    """
    M, C, c = sizes
    n_rows, device = m_real.shape[1], m_real.device
    n_old = m_real.sum(1)  # (B,)
    n_groups = (n_old + n_new - M).clamp_min(0).add(c - 1).div(c, rounding_mode="floor")  # (B,)
    N = -(-max(n_rows + T - M, 0) // c)
    first = (n_rows - n_old)[:, None]  # where the real rows of [memory; segment] begin
    j = torch.arange(N * c, device=device)
    old = (first + j).clamp_max(n_rows + T - 1)
    old_real = j < n_groups[:, None] * c
    new_real = torch.arange(N, device=device) < n_groups[:, None]
    position = torch.arange(n_rows + T, device=device)
    stays = (position >= first + n_groups[:, None] * c) & (position < n_rows + n_new[:, None])
    row, real = kept_rows(stays, n_new, n_rows, M)
    c_row, c_kept = kept_rows(torch.cat([c_real, new_real], dim=1), n_groups, c_real.shape[1], C)
    return Eviction(old, old_real, new_real, row, real, c_row, c_kept)


def update_memories(
    f_c: Callable[[Tensor], Tensor], memory: Tensor, compressed: Tensor, h: Tensor, plan: Eviction
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Carry out `plan` for one layer: memory (B, M, D), compressed (B, C, D), input h (B, T, D).

    Returns the next memory and compressed memory, the evicted rows old (B, N c, D), and new = f_c(old) (B, N, D), which
    alone has a gradient, to f_c.
    """
    rows = torch.cat([memory, h], dim=1).detach()
    old = gather_rows(rows, plan.old, plan.old_real)
    new = f_c(old).to(old.dtype) if old.shape[1] else old
    memory = gather_rows(rows, plan.row, plan.real)
    compressed = gather_rows(torch.cat([compressed, new.detach()], dim=1), plan.c_row, plan.c_real)
    return memory, compressed, old, new


def gather_rows(x: Tensor, row: Tensor, real: Tensor) -> Tensor:
    """Take rows (B, N) of x (B, L, D), zero where not real (B, N)."""
    return take_rows(x, row).masked_fill(~real[..., None], 0.0)


def reconstruction_loss(
    layer: RelativeLayer, h: Tensor, old: Tensor, new: Tensor, plan: Eviction | None = None, real: Tensor | None = None
) -> Tensor:
    """Algorithm 2: the squared difference of content attention over the old rows and over the compressed ones.

    layer  gives its norm and W_q, W_k, W_v, all of them constants here
    h      (B, T, D) input of the layer, with real (B, T) where it has pads
    old    (B, N c, D) evicted rows, and new = f_c(old) (B, N, D), of which `plan` says which are real

    Returns the mean over a sequence's real tokens, then over the batch; zero for sequences that evicted nothing. The
    gradient reaches `new` only.
    """
    part: Any = layer.attention

    def project(x: Tensor, projection: nn.Module) -> Tensor:
        z = freeze(layer.norm_attn)(x) if layer.pre_lnorm else x
        return part.heads(freeze(projection)(z)).transpose(1, 2)  # (B, H, ., E)

    with torch.no_grad():
        q = project(h, part.W_q)
        k, v = project(old, part.W_kE), project(old, part.W_v)
        target = attention(q, k, v, mask=None if plan is None else plan.old_real)
    k, v = project(new, part.W_kE), project(new, part.W_v)
    y = attention(q, k, v, mask=None if plan is None else plan.new_real)
    error = at_least_float32(y - target).square().mean((1, 3))  # (B, T)
    if real is None:
        return error.mean()
    return ((error * real).sum(1) / real.sum(1).clamp_min(1)).mean()


def freeze(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return `module` as a function with its parameters as constants."""
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return lambda x: functional_call(module, constants, (x,))
