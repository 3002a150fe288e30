"""S5 (Smith, Warrington & Linderman 2023, arXiv 2208.04933): one state space model for all channels of a layer.

B batch, L seq_len, H d_model, P states kept.

    x_t = Lbar x_{t-1} + Bbar u_t,   y_t = 2 Re(C x_t) + D u_t      eq. 2 and §3.2, see ssm.py
    g = GELU(y),   z = g sigmoid(W g + b)                           half_glu1; other gates in `S5Mixer.activate`
    out = u + z                                                     under a norm before or after the sum

The layer has three forms that agree: a scan over the whole sequence (training), scans over pieces that carry a state,
and the recurrence token by token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import State
from zoo.nn import (
    BatchNorm,
    Block,
    Mixer,
    StackBackbone,
    TiedDropout,
    at_least_float32,
    init_lecun_normal,
    make_norm,
    param_options,
    sequence_lengths,
    without_autocast,
)
from zoo_s5.config import S5Config
from zoo_s5.ssm import S5SSM

EPS = {"layer": 1e-6, "rms": 1e-6, "batch": 1e-5}
"""Epsilon of the norms, as in the reference's library."""


class S5Mixer(Mixer):
    """The S5 layer. State, causal only: (B, P) complex, after each row's last real token. Pads are zero inputs."""

    def __init__(self, config: S5Config, d_model: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional, self.gate = bidirectional, config.gate
        self.ssm = S5SSM(config, d_model, bidirectional=bidirectional)
        self.out1 = gate_linear(d_model) if config.gate == "full_glu" else None
        self.out2 = gate_linear(d_model) if config.gate != "gelu" else None
        self.dropout = TiedDropout(config.dropout)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, H), mask (B, L) -> y (B, L, H), state (causal) or None (bidirectional)."""
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        with without_autocast(x):
            u = at_least_float32(x)
            y, states = self.ssm.discretize(u.dtype).scan(u, state)
        y = self.activate(y.to(x.dtype))
        if self.bidirectional:
            return y, None
        if mask is None:
            return y, states[:, -1]
        start = torch.zeros_like(states[:, 0]) if state is None else state.to(states.dtype)
        n = sequence_lengths(mask)  # (B,)
        after = states[torch.arange(len(n), device=n.device), (n - 1).clamp(min=0)]
        return y, torch.where((n > 0)[:, None], after, start)

    def activate(self, y: Tensor) -> Tensor:
        """GELU (tanh form) and gate, with dropout: (B, L, H) or (B, H) -> the same shape."""
        g = self.dropout(F.gelu(y, approximate="tanh"))
        if self.out2 is None:
            return g
        gate = torch.sigmoid(self.out2(g))
        if self.out1 is not None:
            g = self.out1(g)
        return self.dropout((y if self.gate == "half_glu2" else g) * gate)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        wide = torch.complex128 if dtype == torch.float64 else torch.complex64
        P = self.ssm.log_step.shape[0]
        return None if self.bidirectional else torch.zeros(batch, P, device=device, dtype=wide)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token by the recurrence: x_t (B, H), state (B, P) -> y_t (B, H), state."""
        with without_autocast(x_t):
            u_t = at_least_float32(x_t)
            y_t, state = self.ssm.discretize(u_t.dtype).step(u_t, state)
        return self.activate(y_t.to(x_t.dtype)), state


class S5Backbone(StackBackbone):
    """S5 blocks, pre-norm x + f(norm x) or post-norm norm(x + f(x)); no final norm."""

    config: S5Config

    def build_block(self, layer: int) -> Block:
        c, D = self.config, self.dims.d_model
        norm = make_norm(c.norm, D, eps=EPS[c.norm])
        if isinstance(norm, BatchNorm):
            norm.momentum = 1.0 - c.bn_momentum
        decay_all(norm)
        return Block(S5Mixer(c, D, bidirectional=self.dims.mode == "bidirectional"), norm, prenorm=c.prenorm)


def gate_linear(d_model: int) -> nn.Linear:
    """Create a linear map of the gate, with the initial values of flax's Dense."""
    linear = nn.Linear(d_model, d_model)
    init_lecun_normal(linear)
    decay_all(linear)
    return linear


def decay_all(module: nn.Module) -> None:
    """Apply weight decay to all parameters, norm scales and biases included, as the reference's optimiser does."""
    param_options(module, *dict(module.named_parameters()))
