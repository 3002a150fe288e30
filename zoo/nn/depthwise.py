"""The parameters of a depthwise convolution over time; `zoo.ops.conv.causal_conv1d` runs them."""

from __future__ import annotations

import torch
from torch import nn


class DepthwiseConv(nn.Module):
    """Weight (channels, taps) and bias (channels,) or None, initialised as `nn.Conv1d` does. Not called itself."""

    def __init__(self, channels: int, taps: int, bias: bool = True) -> None:
        super().__init__()
        bound = taps**-0.5
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None
