"""S5 in a residual stack: x + gate(SSM(norm x)). B batch, L seq_len, H d_model, P states kept.

The same layer in three forms that agree: a scan over the whole sequence (training), scans over pieces that carry a
state, and a recurrence token by token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import (
    BatchNorm,
    Block,
    Mixer,
    ResidualStack,
    TiedDropout,
    at_least_float32,
    last_real,
    make_norm,
    param_options,
)
from zoo_s5.config import S5Config
from zoo_s5.ssm import S5SSM

EPS = {"layer": 1e-6, "rms": 1e-6, "batch": 1e-5}
"""Of the norms, as the reference's library has them."""


class S5Mixer(Mixer):
    """mask -> state space model -> GELU (tanh form) -> gate.

    State: the SSM's, (B, P) complex, after each row's last real token.
    """

    def __init__(self, config: S5Config, d_model: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional, self.gate = bidirectional, config.gate
        self.ssm = S5SSM(config, d_model, bidirectional=bidirectional)
        self.out1 = decaying_linear(d_model) if config.gate == "full_glu" else None
        self.out2 = decaying_linear(d_model) if config.gate != "gelu" else None
        self.dropout = TiedDropout(config.dropout)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, H), mask (B, L) -> y (B, L, H), state (causal) or None (bidirectional)."""
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        with torch.autocast(x.device.type, enabled=False):
            u = at_least_float32(x)
            y, states = self.ssm.discretize(u.dtype).run(u, state)
        y = self.activate(y.to(x.dtype))
        if self.bidirectional:
            return y, None
        if mask is None:
            return y, states[:, -1]
        start = torch.zeros_like(states[:, 0]) if state is None else state.to(states.dtype)
        n = last_real(mask)  # (B,)
        after = states[torch.arange(len(n), device=n.device), (n - 1).clamp(min=0)]
        return y, torch.where((n > 0)[:, None], after, start)

    def activate(self, y: Tensor) -> Tensor:
        """The nonlinearity on every token: (B, L, H) or (B, H) -> the same shape."""
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
        if self.bidirectional:
            raise TypeError("a bidirectional S5 has no step form")
        with torch.autocast(x_t.device.type, enabled=False):
            u_t = at_least_float32(x_t)
            y_t, state = self.ssm.discretize(u_t.dtype).step(u_t, state)
        return self.activate(y_t.to(x_t.dtype)), state

    def state_size(self, seq_len: int) -> int:
        return 0 if self.bidirectional else 2 * self.ssm.log_step.shape[0]


def s5_block(config: S5Config, d_model: int, *, bidirectional: bool) -> Block:
    """The mixer under its norm; pre-norm: x + f(norm x), post-norm: norm(x + f(x))."""
    norm = make_norm(config.norm, d_model, eps=EPS[config.norm])
    if isinstance(norm, BatchNorm):
        norm.momentum = 1.0 - config.bn_momentum
    param_options(norm, *dict(norm.named_parameters()))  # decay, as the reference's optimiser does to norms and biases
    return Block(S5Mixer(config, d_model, bidirectional=bidirectional), norm, prenorm=config.prenorm)


def decaying_linear(d_model: int) -> nn.Linear:
    """flax's Dense: truncated normal of deviation 1/sqrt(H), zero bias; the bias decays like the weight."""
    linear = nn.Linear(d_model, d_model)
    std = d_model**-0.5 / 0.87962566103423978
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(linear.bias)
    param_options(linear, "weight", "bias")
    return linear


class S5Backbone(Backbone):
    """n_layers S5 blocks, no final norm."""

    def __init__(self, config: S5Config, dims: ModelDims) -> None:
        super().__init__(config, dims)
        bidirectional = dims.mode == "bidirectional"
        self.stack = ResidualStack(
            s5_block(config, dims.d_model, bidirectional=bidirectional) for _ in range(dims.n_layers)
        )

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        return self.stack(x, mask=mask, state=state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return self.stack.init_state(batch, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        return self.stack.step(x_t, state)

    def state_size(self, seq_len: int) -> int:
        return self.stack.state_size(seq_len)
