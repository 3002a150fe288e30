"""The residual stack that most architectures share: blocks of norm, mixer, norm and channel MLP, and a final norm.

B batch, L seq_len, D d_model. An architecture of this form supplies its mixer and says how a block is built.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.backbone import Backbone, Output, State
from zoo.nn.state import elements
from zoo.spec.architecture import ModelDims


class Mixer(nn.Module):
    """A sublayer that mixes along the sequence, such as attention. A stateless one ignores `state` and returns None."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> y (B, L, D), state after the last token."""
        raise NotImplementedError

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """Create the state before the first token; None if this mixer, in its mode, carries none."""
        return None

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Process one token: x_t (B, D), state -> y_t (B, D), state. By default `forward` on one token."""
        if state is None:
            raise TypeError(f"{type(self).__name__} has no step form")
        y, state = self.forward(x_t[:, None], state=state)
        return y[:, 0], state

    def state_size(self, seq_len: int) -> int:
        """Count the elements carried per sample after `seq_len` tokens, as `Backbone.state_size`."""
        return elements(self.init_state(1, device="meta", dtype=torch.float32))


ACTIVATIONS: dict[str, Any] = {
    "relu": F.relu,
    "squared_relu": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


class MLP(nn.Module):
    """The channel MLP W2 act(W1 x + b1) + b2 on every token. `activation`: one of ACTIVATIONS; gelu is the erf form."""

    def __init__(self, d_model: int, d_ff: int, *, activation: str = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r}: expected one of {sorted(ACTIVATIONS)}")
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(ACTIVATIONS[self.activation](self.linear1(x))))


class Block(nn.Module):
    """A residual block of a mixer and, with `mlp`, a channel MLP.

        pre-norm   h = x + mixer(norm1 x),     y = h + mlp(norm2 h)
        post-norm  h = norm1(x + mixer(x)),    y = norm2(h + mlp(h))

    `residual_scale` multiplies x in every sum: DeepNorm's alpha.
    """

    def __init__(
        self,
        mixer: Mixer,
        norm1: nn.Module,
        *,
        mlp: nn.Module | None = None,
        norm2: nn.Module | None = None,
        prenorm: bool = True,
        dropout: float = 0.0,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if (mlp is None) != (norm2 is None):
            raise ValueError("a block has both an MLP and its norm, or neither")
        self.mixer, self.norm1, self.mlp, self.norm2 = mixer, norm1, mlp, norm2
        self.prenorm = prenorm
        self.residual_scale = residual_scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        y, state = self.mixer(self.norm1(x, mask) if self.prenorm else x, mask=mask, state=state)
        return self.apply_mlp(self.add_residual(x, y, self.norm1, mask), mask), state

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        y_t, state = self.mixer.step(self.norm1(x_t, None) if self.prenorm else x_t, state)
        return self.apply_mlp(self.add_residual(x_t, y_t, self.norm1, None), None), state

    def add_residual(self, x: Tensor, y: Tensor, norm: nn.Module, mask: Tensor | None) -> Tensor:
        """Add a sublayer's output y to x; post-norm, apply its norm to the sum."""
        x = (x if self.residual_scale == 1.0 else self.residual_scale * x) + self.dropout(y)
        return x if self.prenorm else norm(x, mask)

    def apply_mlp(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Apply the second sublayer, the channel MLP with its norm and residual, where there is one."""
        if self.mlp is None or self.norm2 is None:
            return x
        y = self.mlp(self.norm2(x, mask) if self.prenorm else x)
        return self.add_residual(x, y, self.norm2, mask)


class ResidualStack(nn.Module):
    """Blocks in order and a final norm. Takes and returns one state per block."""

    def __init__(self, blocks: Iterable[Block], final_norm: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = final_norm

    def forward(self, x: Tensor, *, mask: Tensor | None, states: list[State]) -> tuple[Tensor, list[State]]:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D), states."""
        after: list[State] = []
        for block, state in zip(self.blocks, states, strict=True):
            x, state = block(x, mask=mask, state=state)
            after.append(state)
        return x if self.final_norm is None else self.final_norm(x, mask), after

    def step(self, x_t: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
        """One token: x_t (B, D) -> y_t (B, D), states."""
        after: list[State] = []
        for block, state in zip(self.blocks, states, strict=True):
            x_t, state = cast("Block", block).step(x_t, state)
            after.append(state)
        return x_t if self.final_norm is None else self.final_norm(x_t, None), after


class StackBackbone(Backbone):
    """A backbone that is a residual stack: a subclass builds the blocks; forward, step and state are here.

    The state is a list with one entry per block, or None if no mixer carries one. A subclass that has initial values
    of its own sets them at the end of its `__init__`.
    """

    def __init__(self, config: Any, dims: ModelDims) -> None:
        super().__init__(config, dims)
        self.build_positions()
        self.stack = ResidualStack(self.build_blocks(), self.build_final_norm())

    def build_block(self, layer: int) -> Block:
        """Build the block of a layer, counted from 0."""
        raise NotImplementedError

    def build_blocks(self) -> Iterable[Block]:
        """Build all blocks; overridden where they share parameters."""
        return (self.build_block(layer) for layer in range(self.dims.n_layers))

    def build_final_norm(self) -> nn.Module | None:
        """Build the norm after the last block; None = no norm."""
        return None

    def build_positions(self) -> None:
        """Create the parameters of `add_positions`, before any block is built."""

    def add_positions(self, x: Tensor, state: State) -> Tensor:
        """Add absolute positions to the stack's input, after the tokens in `state`: x (B, L, D) -> (B, L, D). By
        default none."""
        return x

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D), state."""
        states = [None] * self.dims.n_layers if state is None else state
        x, states = self.stack(self.add_positions(x, state), mask=mask, states=states)
        return Output(x, None if all(s is None for s in states) else states)

    def forward_step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Process one token: x_t (B, D), state -> y_t (B, D), state. TypeError if no state is carried in this mode."""
        if state is None:
            raise TypeError("no step form: this backbone carries no state in its mode")
        return self.stack.step(self.add_positions(x_t[:, None], state)[:, 0], state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        states = [mixer.init_state(batch, device=device, dtype=dtype) for mixer in self.mixers()]
        return None if all(s is None for s in states) else states

    def state_size(self, seq_len: int) -> int:
        return sum(mixer.state_size(seq_len) for mixer in self.mixers())

    def mixers(self) -> list[Mixer]:
        """Return the mixers of all blocks, in order."""
        return [cast("Block", block).mixer for block in self.stack.blocks]
