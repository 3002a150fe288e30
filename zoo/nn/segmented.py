"""Backbones that read a text segment by segment, and how they read it token by token.

B batch, L tokens of a text, T tokens of a segment, r tokens of the running segment, D d_model.

A state is what the whole segments so far have left, the memory, and the running segment: the inputs of each layer at
its tokens. A token that is read by `step` is computed from both. Once the running segment has T tokens, it is read as
one call and so becomes memory: about as much work as its T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from zoo.nn.backbone import Backbone, Output, State, check_input
from zoo.nn.masks import pack_rows, unpack_rows
from zoo.nn.state import select_rows, where_rows
from zoo.ops.memory import real_last, take_rows
from zoo.spec.architecture import ModelDims


class SegmentBackbone(Backbone):
    """A backbone whose call is one segment, with a memory that is carried from segment to segment.

    Subclasses write `forward_segment`, `init_memory` and, where a token can be computed from what is carried of those
    before it, `extend` with `n_cached`. In mode causal the state is the memory and {"segment": [n_cached tensors
    (B, r, D)], "running": (B, r) bool}, the running segment, whose real tokens are the last ones of each row; there is
    none after a call, which is a segment of its own and makes one of what was running. In other modes the state is the
    memory.
    """

    n_cached: int = 1
    """Tensors (B, r, D) that are carried of the running segment; the first are its tokens."""

    def __init__(self, config: Any, dims: ModelDims) -> None:
        super().__init__(config, dims)
        self.segment_len = dims.max_len
        """Tokens after which `step` begins a new segment."""

    # -- what an architecture defines --------------------------------------------------------------------------------

    def forward_segment(
        self, x: Tensor, *, mask: Tensor | None = None, memory: State = None
    ) -> tuple[Output, Sequence[Tensor]]:
        """Compute one segment, x (B, T, D) and mask (B, T) as of `Backbone.forward`; None = the initial memory.

        Returns the output, whose state is the next memory, and what is to be carried of the segment while it runs:
        n_cached tensors (B, T, D).
        """
        raise NotImplementedError

    def init_memory(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """Create the memory before the first segment, as `Backbone.init_state`."""
        raise NotImplementedError

    def extend(
        self, x: Tensor, memory: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Compute the next token of the running segment: x (B, 1, D), segment and running as in the state.

        Returns hidden (B, 1, D), that of the last token of `forward_segment` over the running segment and x, and what
        is to be carried of x, n_cached tensors (B, 1, D). By default the running segment is read again.
        """
        tokens = torch.cat([segment[0].to(x.dtype), x], dim=1)
        real = F.pad(running, (0, 1), value=True)
        packed, mask, _ = pack_rows(tokens, real)
        out, _ = self.forward_segment(packed, mask=mask, memory=memory)
        return take_rows(out.hidden, real.sum(1, keepdim=True) - 1), [x]

    # -- the contract of `Backbone` ----------------------------------------------------------------------------------

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """One segment; a running one in `state` becomes memory before."""
        out, _ = self.forward_segment(x, mask=mask, memory=None if state is None else self.close(state))
        return out._replace(state={**out.state, **self.no_segment(len(x), device=x.device, dtype=x.dtype)})

    def forward_step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token of the running segment, or the first of a new one."""
        if self.dims.mode != "causal":
            return super().forward_step(x_t, state)
        memory, segment, running = self.close_full(state)
        y, cached = self.extend(x_t[:, None], memory, segment, running)
        segment = [torch.cat([rows, new.to(rows.dtype)], dim=1) for rows, new in zip(segment, cached, strict=True)]
        return y[:, 0], {**memory, "segment": segment, "running": F.pad(running, (0, 1), value=True)}

    def prefill(self, x: Tensor, *, mask: Tensor | None = None) -> Output:
        """Whole segments become memory; of each row the rest, if there is one, is its running segment."""
        check_input(x, mask, self.dims)
        if self.dims.mode != "causal":
            return super().prefill(x, mask=mask)
        (B, L, _), T, order = x.shape, self.segment_len, None
        if mask is not None:
            x, mask, order = pack_rows(x, mask)
        state, memory = self.init_state(B, device=x.device, dtype=x.dtype), None
        hidden = []
        for start in range(0, L, T):
            piece, here = x[:, start : start + T], None if mask is None else mask[:, start : start + T]
            out, cached = self.forward_segment(piece, mask=here, memory=memory)
            hidden.append(out.hidden)
            real = x.new_ones(piece.shape[:2], dtype=torch.bool) if here is None else here
            whole = real.sum(1) == T  # (B,)
            memory = where_rows(whole, out.state, without_segment(state))
            state = {**memory, **begin_segment(state, cached, real, real.any(1) & ~whole)}
        text = torch.cat(hidden, dim=1)
        return Output(text if order is None else unpack_rows(text, order), trim(state))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """The initial memory, and no running segment."""
        memory = self.init_memory(batch, device=device, dtype=dtype)
        return {**memory, **self.no_segment(batch, device=device, dtype=dtype)}

    # -- the running segment -----------------------------------------------------------------------------------------

    def no_segment(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """The running segment of no token, r = 0; in other modes than causal there is none."""
        if self.dims.mode != "causal":
            return {}
        empty = torch.zeros(batch, 0, self.dims.d_model, device=device, dtype=dtype)
        running = torch.zeros(batch, 0, device=device, dtype=torch.bool)
        return {"segment": [empty] * self.n_cached, "running": running}

    def close(self, state: State) -> State:
        """The memory after the running segment, which is read as one call; that of the state where none is running."""
        memory = without_segment(state)
        if self.dims.mode != "causal" or not state["running"].shape[1]:
            return memory
        tokens, mask, _ = pack_rows(state["segment"][0], state["running"])
        out, _ = self.forward_segment(tokens, mask=mask, memory=memory)
        return out.state

    def close_full(self, state: State) -> tuple[State, Sequence[Tensor], Tensor]:
        """Memory, segment and running before the next token: rows with a full segment begin a new one.

        Shapes say whether a row may be full; which ones are, the device says, and is waited for once a segment (once a
        token where rows began with texts of several lengths).
        """
        running = state["running"]
        if running.shape[1] >= self.segment_len:
            full, memory = running.sum(1) >= self.segment_len, without_segment(state)
            if full.any():
                closed = self.close(select_rows(state, full))
                memory = put_state_rows(memory, full.nonzero()[:, 0], closed)
            state = trim({**memory, "segment": state["segment"], "running": running & ~full[:, None]})
        return without_segment(state), state["segment"], state["running"]


def without_segment(state: State) -> State:
    """The memory of a state."""
    return {name: part for name, part in state.items() if name not in ("segment", "running")}


def begin_segment(state: State, cached: Sequence[Tensor], real: Tensor, begins: Tensor) -> State:
    """The running segment of a state, with that of rows `begins` (B,) made of `cached`, tensors (B, T, D) of which
    real (B, T) are real."""
    order = real_last(real)
    real = real.gather(1, order)
    width = max(real.shape[1], state["running"].shape[1])

    def place(new: Tensor, old: Tensor) -> Tensor:
        new, old = (F.pad(rows, (0, 0, width - rows.shape[1], 0)) for rows in (new, old))
        return torch.where(begins[:, None, None], new.to(old.dtype), old)

    segment = [place(take_rows(new, order), old) for new, old in zip(cached, state["segment"], strict=True)]
    running = place(real[..., None], state["running"][..., None])[..., 0]
    return {"segment": segment, "running": running}


def put_state_rows(state: State, rows: Tensor, new: State) -> State:
    """Replace rows (n,) of a state by those of another, of batch size n."""
    return pytree.tree_map(lambda old, leaf: old.index_copy(0, rows, leaf.to(old.dtype)), state, new)


def trim(state: State) -> State:
    """Drop the columns in which no row has a token of its running segment; waits for the device."""
    first = state["running"].shape[1] - int(state["running"].sum(1).max())
    return {**state, "segment": [rows[:, first:] for rows in state["segment"]], "running": state["running"][:, first:]}
