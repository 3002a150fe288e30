"""The causal depthwise convolution against `conv1d`, and its carried state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.conv import causal_conv1d, causal_conv1d_step


def make(batch: int, seq_len: int, D: int, K: int, seed: int = 0) -> tuple[Tensor, ...]:
    """x, weight, bias, state."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((batch, seq_len, D), (D, K), (D,), (batch, D, K))
    return tuple(torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes)


sizes = {"batch": st.integers(1, 3), "seq_len": st.integers(1, 20), "D": st.integers(1, 5), "K": st.integers(1, 6)}


@settings(max_examples=40, deadline=None)
@given(**sizes, with_bias=st.booleans(), with_state=st.booleans())
def test_equals_conv1d(batch: int, seq_len: int, D: int, K: int, with_bias: bool, with_state: bool) -> None:
    x, weight, bias, state = make(batch, seq_len, D, K)
    past = state if with_state else torch.zeros_like(state)
    inputs = torch.cat([past, x.transpose(1, 2)], 2)
    expected_y = F.conv1d(inputs[..., 1:], weight.unsqueeze(1), bias if with_bias else None, groups=D).transpose(1, 2)
    y, last = causal_conv1d(x, weight, bias if with_bias else None, state=state if with_state else None)
    torch.testing.assert_close(y, expected_y, rtol=1e-10, atol=1e-12)
    assert torch.equal(last, inputs[..., -K:])
    leaves = [x, weight, *([bias] if with_bias else []), *([state] if with_state else [])]
    gradients = torch.autograd.grad(y.square().sum() + last.square().sum(), leaves)
    expected = torch.autograd.grad(expected_y.square().sum() + inputs[..., -K:].square().sum(), leaves)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(**sizes, cut=st.integers(1, 19))
def test_pieces_and_steps_equal_the_whole(batch: int, seq_len: int, D: int, K: int, cut: int) -> None:
    x, weight, bias, state = make(batch, seq_len + 1, D, K)
    cut = min(cut, seq_len)
    y, last = causal_conv1d(x, weight, bias, state=state)
    first, between = causal_conv1d(x[:, :cut], weight, bias, state=state)
    second, end = causal_conv1d(x[:, cut:], weight, bias, state=between)
    torch.testing.assert_close(torch.cat([first, second], 1), y, rtol=1e-12, atol=1e-12)
    assert torch.equal(end, last)
    for t in range(seq_len + 1):
        y_t, state = causal_conv1d_step(x[:, t], weight, bias, state)
        torch.testing.assert_close(y_t, y[:, t], rtol=1e-10, atol=1e-12)
    assert torch.equal(state, last)


def test_lengths_pick_the_last_real_inputs() -> None:
    x, weight, bias, state = make(4, 7, 3, 4)
    lengths = torch.tensor([0, 1, 5, 7])
    _, last = causal_conv1d(x, weight, bias, state=state, lengths=lengths)
    for row, n in enumerate(lengths.tolist()):
        inputs = torch.cat([state[row], x[row, :n].T], 1)
        assert torch.equal(last[row], inputs[:, -4:])


def test_gradcheck() -> None:
    x, weight, bias, state = make(2, 5, 2, 3)
    assert torch.autograd.gradcheck(lambda *a: causal_conv1d(a[0], a[1], a[2], state=a[3]), (x, weight, bias, state))


def test_half_precision_is_summed_in_float32() -> None:
    x, weight, bias, _ = (t.detach().float() for t in make(2, 30, 4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = causal_conv1d(x.bfloat16(), weight, bias)
    assert y.dtype is torch.bfloat16
    assert state.dtype is torch.bfloat16
    torch.testing.assert_close(y, causal_conv1d(x.bfloat16().float(), weight, bias)[0].bfloat16(), rtol=0, atol=0)


def test_wrong_shapes_are_named() -> None:
    x, weight, bias, state = make(2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"state has shape \(2, 3, 3\), expected \(batch=2, channels=3, taps=4\)"):
        causal_conv1d(x, weight, bias, state=state[..., 1:])
    with pytest.raises(ValueError, match=r"bias has shape \(2,\), expected \(channels=3\)"):
        causal_conv1d(x, weight, bias[1:])
    with pytest.raises(ValueError, match=r"weight has shape \(2, 4\), expected \(channels=3, taps\)"):
        causal_conv1d(x, weight[1:], bias)
