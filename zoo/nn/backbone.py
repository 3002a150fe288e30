"""The contract that every architecture keeps. B batch, L seq_len, D d_model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.nn.state import State, elements
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


def check_input(x: Tensor, mask: Tensor | None, dims: ModelDims) -> None:
    """Raise ValueError unless x is (B >= 1, L >= 1, D) with the D of `dims`, and mask (B, L) bool.

    Broadcasting would turn nearly everything else into garbage without an error.
    """
    if x.ndim != 3 or x.shape[-1] != dims.d_model or 0 in x.shape:
        expected = f"(batch, seq_len, {dims.d_model}) with at least one row and one token"
        raise ValueError(f"an input of shape {tuple(x.shape)}, expected {expected}")
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        given = f"{mask.dtype} mask of shape {tuple(mask.shape)}"
        raise ValueError(f"a {given} for an input of {tuple(x.shape[:2])}, expected bool of that shape")


class Backbone(nn.Module):
    """A sequence-to-sequence map on vectors: no embeddings, heads, pooling or losses.

    Subclasses are built from `(config, dims)` and call `super().__init__(config, dims)` first. `forward` is a pure
    function of (parameters, x, mask, state): buffers never carry state from call to call.
    """

    returns_latents: bool = False
    """Whether `hidden` are latents, which belong to no position of the input."""

    def __init__(self, config: Any, dims: ModelDims) -> None:
        super().__init__()
        self.config = config
        self.dims = dims

    def __call__(self, *args: Any, **kwargs: Any) -> Output:
        """Check the input's shapes, then run `forward`. ValueError for shapes that do not fit."""
        check_input(args[0] if args else kwargs["x"], kwargs.get("mask"), self.dims)
        return super().__call__(*args, **kwargs)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """Map a sequence, or its next chunk (for "memory" architectures: its next segment).

        x      (B, L, D)
        mask   (B, L) bool, True = real token; None = all real
        state  what an earlier call returned, or `init_state`; None = the initial state

        An architecture whose capabilities declare a state returns it from every causal call; a bidirectional call of
        a "recurrent" architecture neither takes nor returns one.
        """
        raise NotImplementedError

    def on_step(self, step: int) -> None:
        """Hook before optimiser step number `step` (from 0) in training; with accumulation it is called more than once.

        For what follows a schedule and is not learned, such as random features that are drawn anew. It must be a
        function of `step` and of persistent buffers alone, so that a resumed run goes on as an unbroken one.
        """

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """Create the state before the first token; passing None to `forward` means the same."""
        return None

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Process one token: x_t (B, D), state -> y_t (B, D), state. Only if `capabilities.step`."""
        raise TypeError(f"{type(self).__name__} has no step form")

    def decode(self, y: Tensor, *, memory: Tensor, memory_mask: Tensor | None = None, state: State = None) -> Output:
        """Run the decoder over an encoded source: y (B, T, D), memory (B, L, D). Only for mode "seq2seq"."""
        raise TypeError(f"{type(self).__name__} has no decoder")

    def state_size(self, seq_len: int) -> int:
        """Count the elements carried per sample after `seq_len` tokens (complex numbers count twice).

        By default those of `init_state`, for a state that does not grow.
        """
        return elements(self.init_state(1, device="meta", dtype=torch.float32))
