"""Causal depthwise convolution as a module; `zoo.ops.conv` computes it. B batch, L seq_len, C channels, K taps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.ops.conv import causal_conv1d, causal_conv1d_step


class DepthwiseConv(nn.Module):
    """Causal depthwise convolution over time: weight (C, K) and bias (C,) or None, initialised as `nn.Conv1d` does.

    State: (B, C, K), the last K inputs, newest last.
    """

    def __init__(self, channels: int, taps: int, bias: bool = True) -> None:
        super().__init__()
        bound = taps**-0.5
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def forward(
        self, x: Tensor, *, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B, L, C) -> y (B, L, C), state after `lengths` (B,) tokens of each row; None = all L."""
        return causal_conv1d(x, self.weight, self.bias, state=state, lengths=lengths)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token: x_t (B, C), state (B, C, K) -> y_t (B, C), state."""
        return causal_conv1d_step(x_t, self.weight, self.bias, state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """Zeros (B, C, K)."""
        return torch.zeros(batch, *self.weight.shape, device=device, dtype=dtype)
