"""The contract that every architecture keeps. B batch, L seq_len, D d_model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.nn.masks import pack_rows, unpack_rows
from zoo.nn.state import State, check_state, elements
from zoo.spec.architecture import ModelDims


class Output(NamedTuple):
    """What a backbone returns.

    hidden  (B, out_len, D). Causal: hidden[:, i] belongs to position seq_len - out_len + i.
            Latent models return their latents.
    state   what the next call needs, or None
    aux     auxiliary losses by name, each a scalar: the mean over the rows of the batch, pads left out of a row
    """

    hidden: Tensor
    state: State = None
    aux: dict[str, Tensor] = {}  # noqa: RUF012  (never mutated: a NamedTuple default)


def check_input(x: Tensor, mask: Tensor | None, dims: ModelDims, what: str = "an input") -> None:
    """Raise ValueError unless x is (B >= 1, L >= 1, D) with the D of `dims`, and mask (B, L) bool.

    Broadcasting would turn nearly everything else into garbage without an error.
    """
    if x.ndim != 3 or x.shape[-1] != dims.d_model or 0 in x.shape:
        expected = f"(batch, seq_len, {dims.d_model}) with at least one row and one token"
        raise ValueError(f"{what} of shape {tuple(x.shape)}, expected {expected}")
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        given = f"{mask.dtype} mask of shape {tuple(mask.shape)}"
        raise ValueError(f"a {given} for {what} of {tuple(x.shape[:2])}, expected bool of that shape")


class Backbone(nn.Module):
    """A sequence-to-sequence map on vectors: no embeddings, heads, pooling or losses.

    Subclasses are built from `(config, dims)` and call `super().__init__(config, dims)` first. They write `forward`,
    and where they have them `forward_step` and `forward_decode`, pure functions of (parameters, arguments): buffers
    never carry state from call to call. Callers use the backbone itself, `step` and `decode`, which check every
    argument, cast the state, and keep pads out, so that an architecture meets none of it.
    """

    returns_latents: bool = False
    """Whether `hidden` are latents, which belong to no position of the input."""

    pads_first: bool = False
    """Whether `forward` gets pads before the real tokens of a row, not after them."""

    pads_count: bool = False
    """Whether `forward` gets x as it is given, for a published form in which pads are tokens like others."""

    def __init__(self, config: Any, dims: ModelDims) -> None:
        super().__init__()
        self.config = config
        self.dims = dims

    def __call__(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """Map a sequence, or its next chunk (for "memory" architectures: its next segment).

        x      (B, L, D); what it holds at pads, NaN too, has no effect on values or gradients
        mask   (B, L) bool, True = real token, pads anywhere; None = all real
        state  what an earlier call returned, in any precision, or `init_state`; None = the initial state

        Raises ValueError for shapes that do not fit, and for a state of another batch size or architecture.
        """
        check_input(x, mask, self.dims)
        state = self._own_state(state, x)
        if mask is None or self.pads_count:
            return super().__call__(x, mask=mask, state=state)
        x, packed, order = pack_rows(x, mask, pads_first=self.pads_first)
        out = Output(*super().__call__(x, mask=packed, state=state))
        out_len = out.hidden.shape[1]
        if self.returns_latents or (out_len != x.shape[1] and self.dims.mode != "causal"):
            return out
        return out._replace(hidden=unpack_rows(out.hidden, order))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """Compute a call: the arguments of `__call__`, checked.

        x is zero at pads, and the real tokens of each row stand together at its beginning (at its end, with
        `pads_first`); the outputs are moved back. The state has the dtypes of `init_state` for the dtype of x.

        An architecture whose capabilities declare a state returns it from every causal call, unless computing it is
        work of its own and `zoo.nn.returns_state` is False; a bidirectional call of a "recurrent" architecture neither
        takes nor returns one.
        """
        raise NotImplementedError

    def on_step(self, step: int) -> None:
        """Hook before optimiser step number `step` (from 0) in training; with accumulation it is called more than once.

        For what follows a schedule and is not learned, such as random features that are drawn anew. It must be a
        function of `step` and of persistent buffers alone, so that a resumed run goes on as an unbroken one.
        """

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """Create the state before the first token; passing None to `forward` means the same.

        Its dtypes follow from `dtype`, that of the input. A dimension of size 0 grows from call to call; then zeros in
        its place mean the same as nothing, because other leaves say which entries are real.
        """
        return None

    def step(self, x_t: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Process one token: x_t (B, D), state -> y_t (B, D), state. Only if `capabilities.step`.

        A state of None begins afresh. Raises ValueError as a call of the backbone does, TypeError without a step form.
        """
        if x_t.ndim != 2 or x_t.shape[-1] != self.dims.d_model or 0 in x_t.shape:
            expected = f"(batch, {self.dims.d_model}) with at least one row"
            raise ValueError(f"an input of shape {tuple(x_t.shape)} for one step, expected {expected}")
        if state is None:
            state = self.init_state(x_t.shape[0], device=x_t.device, dtype=x_t.dtype)
        else:
            state = self._own_state(state, x_t)
        return self.forward_step(x_t, state)

    def forward_step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute a step: the arguments of `step`, checked, with `init_state` in the place of None."""
        raise TypeError(f"{type(self).__name__} has no step form")

    def prefill(self, x: Tensor, *, mask: Tensor | None = None) -> Output:
        """Read the beginning of a text that `step` goes on with: a call of the backbone, x (B, L, D), mask (B, L).

        An architecture that is called segment by segment reads as many as there are (`zoo.nn.SegmentBackbone`).
        """
        return self(x, mask=mask)

    def decode(self, y: Tensor, *, memory: Tensor, memory_mask: Tensor | None = None, state: State = None) -> Output:
        """Run the decoder over an encoded source: y (B, T, D), memory (B, L, D). Only for mode "seq2seq".

        What the memory holds where memory_mask (B, L) is False has no effect. Raises ValueError as a call of the
        backbone does, TypeError without a decoder.
        """
        check_input(y, None, self.dims)
        check_input(memory, memory_mask, self.dims, "a memory")
        if memory.shape[0] != y.shape[0]:
            raise ValueError(f"a memory of batch size {memory.shape[0]} given with an input of batch size {y.shape[0]}")
        if memory_mask is not None:
            memory = memory.masked_fill(~memory_mask[..., None], 0.0)
        return self.forward_decode(y, memory=memory, memory_mask=memory_mask, state=self._own_state(state, y))

    def forward_decode(
        self, y: Tensor, *, memory: Tensor, memory_mask: Tensor | None = None, state: State = None
    ) -> Output:
        """Compute a call of the decoder: the arguments of `decode`, checked; memory is zero at pads."""
        raise TypeError(f"{type(self).__name__} in mode {self.dims.mode} has no decoder; mode seq2seq may have one")

    def state_size(self, seq_len: int) -> int:
        """Count the elements carried per sample after `seq_len` tokens (complex numbers count twice).

        By default those of `init_state`, for a state that does not grow.
        """
        return elements(self.init_state(1, device="meta", dtype=torch.float32))

    def _own_state(self, state: State, x: Tensor) -> State:
        """Check that a state fits an input x (B, ...) of this backbone, and cast it to the precision of x."""
        if state is None:
            return None
        fresh = self.init_state(x.shape[0], device="meta", dtype=x.dtype)
        if fresh is None:
            raise ValueError("a state was given to a backbone that carries none in this mode; pass no state")
        return check_state(state, fresh)
