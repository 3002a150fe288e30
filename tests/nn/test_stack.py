"""The residual stack as a backbone: order of building, states, steps, errors; the convolution and masks beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo import ModelDims, State
from zoo.nn import Block, DepthwiseConv, LayerNorm, Mixer, StackBackbone, sequence_lengths
from zoo.ops.conv import causal_conv1d


class Sum(Mixer):
    """y_t = x_1 + ... + x_t; state: the sum so far (B, D). Or, without `carries`, x itself."""

    def __init__(self, carries: bool) -> None:
        super().__init__()
        self.carries = carries

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        if not self.carries:
            return x, None
        y = x.cumsum(1) + (0 if state is None else state[:, None])
        return y, y[:, -1]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return torch.zeros(batch, 4, device=device, dtype=dtype) if self.carries else None


class Sums(StackBackbone):
    def build_positions(self) -> None:
        self.start = nn.Parameter(torch.ones(4))

    def add_positions(self, x: Tensor, state: State) -> Tensor:
        return x + self.start if self.config == "positions" else x

    def build_block(self, layer: int) -> Block:
        return Block(Sum(self.dims.mode == "causal"), LayerNorm(4))

    def build_final_norm(self) -> LayerNorm:
        return LayerNorm(4)


def build(mode: str = "causal", config: str = "") -> Sums:
    return Sums(config, ModelDims(d_model=4, n_layers=2, mode=mode, max_len=8)).double()


def test_steps_and_pieces_equal_the_whole() -> None:
    model, x = build(), torch.randn(3, 6, 4, dtype=torch.float64)
    whole, state, steps = model(x), None, model.init_state(3, device="cpu", dtype=x.dtype)
    for piece in x.split(4, 1):
        out = model(piece, state=state)
        state = out.state
    torch.testing.assert_close(out.hidden, whole.hidden[:, 4:])
    for x_t in x.unbind(1):
        y_t, steps = model.step(x_t, steps)
    torch.testing.assert_close([y_t, *steps], [whole.hidden[:, -1], *whole.state])
    assert model.state_size(6) == 8


def test_the_stack_is_its_equation_and_positions_come_first() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    norm = LayerNorm(4).double()
    h = x + 1
    for _ in range(2):
        h = h + norm(h)
    model = build("bidirectional", "positions")
    torch.testing.assert_close(model(x).hidden, norm(h))
    assert next(iter(model.state_dict())) == "start"


def test_a_state_is_refused_where_none_is_carried() -> None:
    model, x = build("bidirectional"), torch.zeros(1, 3, 4, dtype=torch.float64)
    assert model.init_state(1, device="cpu", dtype=x.dtype) is None
    assert model.state_size(3) == 0
    with pytest.raises(ValueError, match="carries none in this mode"):
        model(x, state=build()(x).state)
    with pytest.raises(TypeError, match="no step form"):
        model.step(x[:, 0], None)


def test_a_state_of_another_batch_is_refused() -> None:
    model, x = build(), torch.zeros(2, 3, 4, dtype=torch.float64)
    state = model(x[:1]).state
    for call in (lambda: model(x, state=state), lambda: model.step(x[:, 0], state)):
        with pytest.raises(ValueError, match="batch size 1 given with an input of batch size 2"):
            call()


def test_depthwise_convolution_runs_its_parameters() -> None:
    conv, x = DepthwiseConv(3, 4), torch.randn(2, 5, 3)
    y, state = conv(x)
    torch.testing.assert_close([y, state], list(causal_conv1d(x, conv.weight, conv.bias)))
    steps = conv.init_state(2, device="cpu", dtype=x.dtype)
    for t, x_t in enumerate(x.unbind(1)):
        y_t, steps = conv.step(x_t, steps)
        torch.testing.assert_close(y_t, y[:, t])
    torch.testing.assert_close(steps, state)


def test_sequence_lengths() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert sequence_lengths(mask).tolist() == [2, 0, 3, 4]
