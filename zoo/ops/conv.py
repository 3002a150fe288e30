"""Causal depthwise convolution with a carried state: Mamba's and Hyena's short convolution.

    y_t[d] = bias[d] + sum_{k=0}^{K-1} weight[d,k] x_{t-K+1+k}[d]          the last tap multiplies the current token

B batch, L seq_len, D channels, K taps. One form: K multiply-adds over shifted views, on a CPU about twice as fast as a
grouped `conv1d`, which takes (B, D, L). Backward keeps the padded input and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.ops.dtypes import compute_dtype
from zoo.ops.shapes import check_shapes
from zoo.ops.tracing import plain_only, without_autocast


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolve a sequence with its past: y (B, L, D) and the state after the last real token (B, D, K), in x's dtype.

    x        (B, L, D)
    weight   (D, K)
    bias     (D,), or None
    state    (B, D, K), the last K inputs before x, newest last; None = zeros
    lengths  (B,) integers in 0 … L: x[b, lengths[b]:] is padding and does not enter the returned state; None = all L

    Computed in at least float32. ValueError when shapes do not fit together.
    """
    check_shapes(
        "causal_conv1d",
        {
            "batch seq_len channels": {"x": x},
            "channels taps": {"weight": weight},
            "channels": {"bias": bias},
            "batch channels taps": {"state": state},
        },
    )
    taps = weight.shape[1]
    past = x.new_zeros(x.shape[0], taps, x.shape[2]) if state is None else state.transpose(1, 2).to(x.dtype)
    inputs = torch.cat([past, x], 1)  # (B, K + L, D)
    with without_autocast(x):
        dtype = compute_dtype(x, weight)
        wide = inputs[:, 1:].to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        y = _grouped_conv(*wide) if plain_only() else _ShiftedSum.apply(*wide)
    return y.to(x.dtype), _last_inputs(inputs, taps, lengths).transpose(1, 2)


def causal_conv1d_step(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """Process one token of `causal_conv1d`: x (B, D), state (B, D, K) -> y (B, D), state."""
    state = torch.cat([state[..., 1:].to(x.dtype), x.unsqueeze(-1)], -1)
    dtype = compute_dtype(x, weight)
    y = (state.to(dtype) * weight.to(dtype)).sum(-1)
    return (y if bias is None else y + bias.to(dtype)).to(x.dtype), state


def _last_inputs(inputs: Tensor, taps: int, lengths: Tensor | None) -> Tensor:
    """The K inputs up to each row's last real token: inputs (B, K + L, D), lengths (B,) -> (B, K, D)."""
    if lengths is None:
        return inputs[:, -taps:]
    index = lengths.unsqueeze(1) + torch.arange(taps, device=inputs.device)  # (B, K), from 0 = oldest of the past
    return inputs.gather(1, index.unsqueeze(-1).expand(-1, -1, inputs.shape[2]))


def _grouped_conv(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`_ShiftedSum` by PyTorch's own convolution, which the transforms of torch.func know."""
    return F.conv1d(inputs.transpose(1, 2), weight[:, None], bias, groups=weight.shape[0]).transpose(1, 2)


class _ShiftedSum(torch.autograd.Function):
    """The K multiply-adds: inputs (B, K - 1 + L, D), weight (D, K), bias (D,) or None -> (B, L, D)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        taps = weight.shape[1]
        seq_len = inputs.shape[1] - taps + 1
        y = inputs[:, :seq_len] * weight[:, 0]
        if bias is not None:
            y += bias
        for k in range(1, taps):
            y.addcmul_(inputs[:, k : k + seq_len], weight[:, k])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        taps, seq_len = weight.shape[1], dy.shape[1]
        dinputs = dweight = None
        if ctx.needs_input_grad[0]:
            dinputs = torch.zeros_like(inputs)
            for k in range(taps):
                dinputs[:, k : k + seq_len].addcmul_(dy, weight[:, k])
        if ctx.needs_input_grad[1]:
            dweight = torch.stack([(dy * inputs[:, k : k + seq_len]).sum((0, 1)) for k in range(taps)], 1)
        return dinputs, dweight, dy.sum((0, 1)) if ctx.needs_input_grad[2] else None
