"""Hyena (Poli et al. 2023, arXiv 2302.10866), the operator of order n.

    [x_0, .., x_{n-1}, v] = short_conv(u W_in + b_in)            y = hyena(x, v) W_out + b_out
    k_{i,c} = (W_last sin(freq ·(.. sin(freq ·(W_0 z_i + b_0)) ..)))_c (exp(-|delta_c| t_i) + shift)
    x + y(LN x), then x + MLP(LN x)                                a block

B batch, L seq_len, D d_model, n order, M dims.max_len, E emb_dim, W filter_width, C = D (n - 1) filter channels:
channel d (n - 1) + o is the filter of the o-th convolution for model channel d, as in the reference.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from zoo import ModelDims, State
from zoo.nn import (
    MLP,
    Block,
    DepthwiseConv,
    LayerNorm,
    Mixer,
    StackBackbone,
    at_least_float32,
    init_normal,
    param_options,
    without_autocast,
)
from zoo_hyena.config import HyenaConfig
from zoo_hyena.op import decay_rates, features, hyena, times, window


class FilterMLP(nn.Module):
    """The sine network from position features (L, E) to filters (L, C) before their window."""

    def __init__(self, config: HyenaConfig, channels: int) -> None:
        super().__init__()
        W = config.filter_width
        widths = [config.emb_dim, *[W] * (config.filter_layers + 1)]
        inner = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList([*inner, nn.Linear(W, channels, bias=False)])
        for linear in self.layers:
            param_options(linear, *dict(linear.named_parameters()), lr=config.filter_lr, weight_decay=0.0)

    def forward(self, z: Tensor, freq: Tensor) -> Tensor:
        """z (L, E), freq (W,) for all sines -> (L, C)."""
        *inner, last = cast("list[nn.Linear]", list(self.layers))
        for linear in inner:
            # product and bias are rounded one after the other, as in the reference: nested sines of a large frequency
            # magnify the last digit a thousandfold, and a fused sum would miss the float64 reference vectors
            z = torch.sin(freq * (z @ at_least_float32(linear.weight).mT + at_least_float32(linear.bias)))
        return z @ at_least_float32(last.weight).mT


class HyenaFilter(nn.Module):
    """Long filters for up to M positions, forward and, bidirectional, backward ones from a second network.

    Both directions share features, sine frequencies and window.
    """

    def __init__(self, config: HyenaConfig, channels: int, M: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.config, self.channels, self.M = config, channels, M
        self.freq = nn.Parameter(config.w * torch.ones(config.filter_width))
        self.forwards = FilterMLP(config, channels)
        self.backwards = FilterMLP(config, channels) if bidirectional else None
        param_options(self, "freq", lr=config.filter_lr, weight_decay=0.0)
        if config.positions_lr > 0:
            self.z = nn.Parameter(features(M, M, config.emb_dim).float())
            param_options(self, "z", lr=config.positions_lr, weight_decay=0.0)
        else:
            self.register_parameter("z", None)

    def forward(self, L: int) -> tuple[Tensor, Tensor | None]:
        """Compute k (C, L) and k_back (C, L) or None, the first L positions, in at least float32."""
        freq = at_least_float32(self.freq)
        with without_autocast(freq):
            z = features(L, self.M, self.config.emb_dim, freq.device) if self.z is None else self.z[:L]
            z = z.to(freq.dtype)
            k = self.apply_window(self.forwards(z, freq))
            return k, None if self.backwards is None else self.apply_window(self.backwards(z, freq))

    def apply_window(self, h: Tensor) -> Tensor:
        """Multiply filters h (L, C) with their windows -> (C, L)."""
        c, device = self.config, h.device
        rates = decay_rates(self.channels, c.fast_decay_pct, c.slow_decay_pct, c.decay_target, device)
        k = h * window(times(len(h), self.M, device), rates, c.shift).to(h.dtype)
        if c.normalized:
            k = k / k.abs().sum(-1, keepdim=True)
        return k.T


class HyenaMixer(Mixer):
    """The Hyena operator between its projections. It has no exact recurrence, so it carries no state."""

    def __init__(self, config: HyenaConfig, d_model: int, M: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.n, self.M = config.order, M
        D, C = d_model, d_model * (config.order - 1)
        self.in_proj = nn.Linear(D, (self.n + 1) * D)
        self.short_filter = DepthwiseConv((self.n + 1) * D, config.short_taps)
        self.filter = HyenaFilter(config, C, M, bidirectional=bidirectional)
        self.bias = nn.Parameter(torch.randn(C))
        self.out_proj = nn.Linear(D, D)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> y (B, L, D), None. ValueError if L exceeds M."""
        L, D = x.shape[1:]
        if L > self.M:
            raise ValueError(f"a sequence of {L} tokens for Hyena filters made for at most {self.M} (model's max_len)")
        p = self.in_proj(x)
        if mask is not None:
            p = p.masked_fill(~mask[..., None], 0.0)
        s, _ = self.short_filter(p)  # (B, L, (n+1) D)
        if mask is not None:
            s = s.masked_fill(~mask[..., None], 0.0)  # the convolution's tail and bias; gates of 0 keep v at 0 there
        with without_autocast(x):
            *gates, v = at_least_float32(s).transpose(1, 2).contiguous().split(D, 1)  # (B, D, L) each
            k, k_back = (None if f is None else f.unflatten(0, (D, -1)) for f in self.filter(L))
            assert k is not None
            y = hyena(gates, v, k, at_least_float32(self.bias).view(D, -1), k_back).transpose(1, 2).to(x.dtype)
        return self.out_proj(y), None


class HyenaBackbone(StackBackbone):
    """x + Hyena(LN x), then x + MLP(LN x), n_layers times, and a final LN."""

    config: HyenaConfig

    def __init__(self, config: HyenaConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        self.init_weights()

    def build_block(self, layer: int) -> Block:
        c, D, max_len = self.config, self.dims.d_model, self.dims.max_len
        return Block(
            HyenaMixer(c, D, max_len, bidirectional=self.dims.mode == "bidirectional"),
            LayerNorm(D, eps=c.norm_eps),
            mlp=MLP(D, c.d_ff or 2 * D, activation="gelu_tanh"),
            norm2=LayerNorm(D, eps=c.norm_eps),
            dropout=c.dropout,
        )

    def build_final_norm(self) -> LayerNorm:
        return LayerNorm(self.dims.d_model, eps=self.config.norm_eps)

    def init_weights(self) -> None:
        """Initialise as safari's language models: N(0, 0.02²) on all linear maps, filter networks included, no biases.

        Projections that end a residual branch are divided by sqrt(2 n_layers).
        """
        for name, linear in self.named_modules():
            if isinstance(linear, nn.Linear):
                ends_branch = name.endswith(("mixer.out_proj", "mlp.linear2"))
                init_normal(linear, std=0.02 / (math.sqrt(2 * self.dims.n_layers) if ends_branch else 1.0))
