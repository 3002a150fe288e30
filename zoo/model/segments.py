"""Drive a long input through a backbone segment by segment. B batch, L seq_len, T segment length, D d_model.

The frame splits, not the plugin: truncation depth, alignment of ragged input and activation checkpointing are written
once, here.

Rows and pads. A row whose segment is all pad keeps the state that it had. Where the state has one form from
`init_state` on (full size, with a valid mask), the driver sees to that by mixing old and new state row by row. Where it
has not (a memory that grows while it fills, a fresh state of length zero, an `init_state` of None), rows cannot be
mixed leaf by leaf, and the backbone's own promise is what holds: pads never enter the state, so a fully masked row
comes out with the state that it went in with. The conformance suite proves that promise for every architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from zoo.nn.backbone import Backbone, Output, State
from zoo.nn.state import batch_size, compatible, detach, reset_rows, return_state, returns_state, where_rows
from zoo.ops.memory import real_last
from zoo.ops.tracing import has_values
from zoo.spec.constraints import PositiveInt, validate_fields
from zoo.spec.errors import ConfigError

Align = Literal["left", "right"]
ActivationCheckpointing = Literal["none", "checkpoint"]


@dataclass(frozen=True)
class SegmentPlan:
    """How a long input is fed.

    length  tokens per segment; None = the whole input in one call
    align   "left": segments are counted from the first token, the last one may be short
            "right": each row is shifted so that its pads come first, and segments are counted from the end, so that
            the last one is full and the first may be short
    tbptt    gradient flows through the carried state of at most this many successive segments: the state is detached
            every `tbptt` segments, counted from the last one, so that the end of the input has the full depth; None =
            through all. Without effect for backbones that detach what they emit
    activation_checkpointing
            "none": every segment's activations are kept until backward
            "checkpoint": per segment only its input, the state that entered it and the random state are kept, and
            backward runs it again (`torch.utils.checkpoint`). This is the memory replay back-propagation of
            Memformer (Wu et al. 2022, 2010.06891, algorithm 1). Equals "none" in value, dropout included; modules that
            count their calls in buffers (BatchNorm's running statistics) see each segment twice
    """

    length: PositiveInt | None = None
    align: Align = "left"
    tbptt: PositiveInt | None = None
    activation_checkpointing: ActivationCheckpointing = "none"

    def __post_init__(self) -> None:
        try:
            validate_fields(self)
        except ConfigError as error:
            raise error.under("segments") from error


class Segment(NamedTuple):
    """What one call gave.

    hidden  (B, out_len, D)
    mask    (B, out_len) bool, the hidden vectors that stand for real tokens (for latents: of rows that have a real
            token in this segment); None = all
    state   carried into the next segment, not yet detached by `tbptt`
    aux     auxiliary losses by name
    start   position of the segment's first token in the (aligned) input
    """

    hidden: Tensor
    mask: Tensor | None
    state: State
    aux: dict[str, Tensor]
    start: int


def drive(backbone: nn.Module, x: Tensor, mask: Tensor | None, state: State, plan: SegmentPlan) -> Iterator[Segment]:
    """Feed x (B, L, D) with mask (B, L) through `backbone` and yield segment after segment.

    `state` is what an earlier input left (None = fresh); the last segment's `state` is what this one leaves, None where
    `zoo.nn.state.return_state` says so. Detaching it between optimiser steps is the caller's decision.
    """
    seq_len = x.shape[1]
    if plan.align == "right" and mask is not None:
        order = real_last(mask)
        x = x.gather(1, order.unsqueeze(-1).expand_as(x))
        mask = mask.gather(1, order)
    bounds = _bounds(seq_len, plan)
    live = _live_rows(mask, bounds)
    for i, (start, stop) in enumerate(bounds):
        if i and plan.tbptt is not None and (len(bounds) - i) % plan.tbptt == 0:
            state = detach(state)
        piece, piece_mask = x[:, start:stop], None if mask is None else mask[:, start:stop]
        needs_state = i + 1 < len(bounds) or returns_state()
        out = _CALLS[plan.activation_checkpointing](backbone, piece, piece_mask, state, needs_state)
        hidden = out.hidden
        if hidden.ndim != 3 or (hidden.shape[0], hidden.shape[2]) != (x.shape[0], x.shape[2]):
            raise ValueError(
                f"{type(backbone).__name__} returned hidden vectors of shape {tuple(hidden.shape)} for an input of "
                f"shape {tuple(piece.shape)}; expected (batch, out_len, d_model)"
            )
        rows = live[i]
        new = out.state if rows is None else _keep(backbone, rows, out.state, state, x)
        yield Segment(out.hidden, _hidden_mask(backbone, piece_mask, out.hidden, stop - start), new, out.aux, start)
        state = new


def _bounds(seq_len: int, plan: SegmentPlan) -> list[tuple[int, int]]:
    """Start and stop of every segment."""
    if plan.length is None:
        return [(0, seq_len)]
    short = seq_len % plan.length
    first = short if plan.align == "right" and short else plan.length
    edges = [0, *range(first, seq_len, plan.length), seq_len]
    return list(pairwise(edges))


def _live_rows(mask: Tensor | None, bounds: Sequence[tuple[int, int]]) -> list[Tensor | None]:
    """Per segment the rows (B,) that have a real token in it; None where all are known to have."""
    if mask is None:
        return [None] * len(bounds)
    rows = torch.stack([mask[:, start:stop].any(dim=1) for start, stop in bounds])  # (S, B)
    # a program that is traced is for any rows, and whoever calls a device would wait for the answer
    if not has_values(mask) or mask.device.type != "cpu":
        return list(rows.unbind())
    return [None if whole else rows[i] for i, whole in enumerate(rows.all(dim=1).tolist())]


def _keep(backbone: nn.Module, rows: Tensor, new: State, old: State, x: Tensor) -> State:
    """`new` for live rows, `old` for the others, where the two have one form (see the head of the file)."""
    if new is None:
        return None
    if old is None:
        old = backbone.init_state(x.shape[0], device=x.device, dtype=x.dtype)  # type: ignore[operator]
    return where_rows(rows, new, old) if compatible(new, old) else new


def _hidden_mask(backbone: nn.Module, mask: Tensor | None, hidden: Tensor, seq_len: int) -> Tensor | None:
    """Which hidden vectors stand for real tokens."""
    out_len = hidden.shape[1]
    if mask is None or (out_len == seq_len and not getattr(backbone, "returns_latents", False)):
        return mask
    if backbone.dims.mode == "causal":
        return mask[:, seq_len - out_len :]
    return mask.any(dim=1, keepdim=True).expand(-1, out_len)


def _call(backbone: nn.Module, x: Tensor, mask: Tensor | None, state: State, needs_state: bool) -> Output:
    with return_state(needs_state):
        out = Output(*backbone(x, mask=mask, state=state))
    return out if needs_state else out._replace(state=None)


def _call_checkpoint(backbone: nn.Module, x: Tensor, mask: Tensor | None, state: State, needs_state: bool) -> Output:
    leaves, tree = pytree.tree_flatten(state)

    def call(x: Tensor, mask: Tensor | None, *leaves: Tensor) -> Output:
        return _call(backbone, x, mask, pytree.tree_unflatten(list(leaves), tree), needs_state)

    return checkpoint(call, x, mask, *leaves, use_reentrant=False)


_CALLS = {"none": _call, "checkpoint": _call_checkpoint}


def entering_state(backbone: Backbone, state: State, fresh: Tensor | None, rows: int) -> State:
    """The state that the next piece of each row goes on from.

    state  what the piece before left; None = nothing, and of another number of rows nothing is continued
    fresh  (B,) bool, rows in which a text begins; None = all
    """
    if state is None or fresh is None or batch_size(state) not in (None, rows):
        return None
    parameter = next(backbone.parameters())
    new = backbone.init_state(rows, device=parameter.device, dtype=parameter.dtype)
    return reset_rows(state, fresh, new)
