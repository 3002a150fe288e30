"""Causal depthwise convolution with a carried state: the short convolution before Mamba's scan, H3's shift, Hyena.

    y_t[d] = bias[d] + sum_{k=0}^{K-1} weight[d,k] x_{t-K+1+k}[d]          the last tap multiplies the current token

B batch, L seq_len, D channels, K taps. One form: K multiply-adds over shifted views, on a CPU
about twice as fast as a grouped `conv1d`, which wants (B, D, L). Backward keeps the padded input and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.nn.norms import at_least_float32


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution over the past; see the head of this file.

    x        (B, L, D)
    weight   (D, K)
    bias     (D,), or None
    state    (B, D, K), the last K inputs before x, newest last; None = zeros
    lengths  (B,) integers in 0..L: x[b, lengths[b]:] is padding and does not enter the returned state; None = all L

    Returns y (B, L, D) in x's dtype and the state after the last real token (B, D, K) in x's dtype. Computed in at
    least float32. ValueError when shapes do not fit together.
    """
    if x.ndim != 3 or weight.ndim != 2 or x.shape[2] != weight.shape[0]:
        raise ValueError(
            f"causal_conv1d: x {tuple(x.shape)} and weight {tuple(weight.shape)}, expected (batch, seq_len, channels) "
            f"and (channels, taps)"
        )
    (batch, _, channels), taps = x.shape, weight.shape[1]
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"causal_conv1d: bias has shape {tuple(bias.shape)}, expected {(channels,)}")
    if state is None:
        past = x.new_zeros(batch, taps, channels)
    elif state.shape != (batch, channels, taps):
        raise ValueError(f"causal_conv1d: state has shape {tuple(state.shape)}, expected {(batch, channels, taps)}")
    else:
        past = state.transpose(1, 2).to(x.dtype)
    known = torch.cat([past, x], 1)  # (B, K + L, D)
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(at_least_float32(x).dtype, at_least_float32(weight).dtype)
        y = _ShiftedSum.apply(known[:, 1:].to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return y.to(x.dtype), _last(known, taps, lengths).transpose(1, 2)


def causal_conv1d_step(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of `causal_conv1d`: x (B, D), state (B, D, K) -> y (B, D), state."""
    state = torch.cat([state[..., 1:].to(x.dtype), x.unsqueeze(-1)], -1)
    wide = torch.promote_types(at_least_float32(x).dtype, at_least_float32(weight).dtype)
    y = (state.to(wide) * weight.to(wide)).sum(-1)
    return (y if bias is None else y + bias.to(wide)).to(x.dtype), state


def _last(known: Tensor, taps: int, lengths: Tensor | None) -> Tensor:
    """The K inputs up to each row's last real token: known (B, K + L, D), lengths (B,) -> (B, K, D)."""
    if lengths is None:
        return known[:, -taps:]
    index = lengths.unsqueeze(1) + torch.arange(taps, device=known.device)  # (B, K), from 0 = oldest of the past
    return known.gather(1, index.unsqueeze(-1).expand(-1, -1, known.shape[2]))


class _ShiftedSum(torch.autograd.Function):
    """known (B, K - 1 + L, D), weight (D, K), bias (D,) or None -> (B, L, D)."""

    @staticmethod
    def forward(ctx: Any, known: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(known, weight)
        taps = weight.shape[1]
        seq_len = known.shape[1] - taps + 1
        y = known[:, :seq_len] * weight[:, 0]
        if bias is not None:
            y += bias
        for k in range(1, taps):
            y.addcmul_(known[:, k : k + seq_len], weight[:, k])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        known, weight = ctx.saved_tensors
        seq_len = dy.shape[1]
        dknown = dweight = None
        if ctx.needs_input_grad[0]:
            dknown = torch.zeros_like(known)
            for k in range(weight.shape[1]):
                dknown[:, k : k + seq_len].addcmul_(dy, weight[:, k])
        if ctx.needs_input_grad[1]:
            dweight = torch.stack([(dy * known[:, k : k + seq_len]).sum((0, 1)) for k in range(weight.shape[1])], 1)
        return dknown, dweight, dy.sum((0, 1)) if ctx.needs_input_grad[2] else None


__all__ = ["causal_conv1d", "causal_conv1d_step"]
