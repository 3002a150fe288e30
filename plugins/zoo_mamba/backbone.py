"""Mamba (Gu & Dao 2023, arXiv 2312.00752, section 3.4 and algorithm 2).

    [x, z] = W_in h                                    x_t <- SiLU(conv_t(x))
    [r_t, B_t, C_t] = W_x x_t                          delta_t = softplus(W_dt r_t + b_dt),   A = -exp(A_log)
    s_t = exp(delta_t A) s_{t-1} + delta_t B_t x_t     y_t = (C_t s_t + D x_t) SiLU(z_t)
    out = W_out y

B batch, L seq_len, D d_model, E = expand * D inner channels, N d_state, K d_conv, R dt_rank.
State of a layer: {"conv": (B, E, K) the last K inputs of the convolution, newest last, "ssm": (B, E, N)}.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import State
from zoo.nn import Block, DepthwiseConv, Mixer, StackBackbone, at_least_float32, make_norm, param_options
from zoo.ops.selective_scan import selective_scan, selective_scan_step
from zoo_mamba.config import MambaConfig


def dt_bias(uniform: Tensor, dt_min: float, dt_max: float, floor: float) -> Tensor:
    """Return b_dt (E,) whose softplus is log-uniform in [dt_min, dt_max], at least `floor`; uniform (E,) in [0, 1)."""
    log_min, log_max = math.log(dt_min), math.log(dt_max)
    dt = torch.exp(log_min + uniform * (log_max - log_min)).clamp(min=floor)
    return dt + torch.log(-torch.expm1(-dt))  # inverse of softplus, exact for small dt too


def a_log(d_inner: int, d_state: int) -> Tensor:
    """Return A_log (E, N) for A[e, n] = -(n + 1), the real S4D initialisation."""
    return torch.log(torch.arange(1, d_state + 1, dtype=torch.float32)).repeat(d_inner, 1)


class MambaMixer(Mixer):
    """The selective state space layer. Pads are at the end of a row."""

    A_log: nn.Parameter
    D: nn.Parameter

    def __init__(self, config: MambaConfig, d_model: int, n_layers: int) -> None:
        super().__init__()
        self.d_inner = E = config.expand * d_model
        self.d_state, self.d_conv = config.d_state, config.d_conv
        self.dt_rank = config.resolved_dt_rank(d_model)
        self.in_proj = nn.Linear(d_model, 2 * E, bias=config.bias)
        self.conv = DepthwiseConv(E, config.d_conv, config.conv_bias)
        self.x_proj = nn.Linear(E, self.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, E)
        self.A_log = nn.Parameter(a_log(E, config.d_state))
        self.D = nn.Parameter(torch.ones(E))
        self.out_proj = nn.Linear(E, d_model, bias=config.bias)
        param_options(self, "A_log", "D", weight_decay=0.0)
        self.reset_parameters(config, n_layers)

    @torch.no_grad()
    def reset_parameters(self, config: MambaConfig, n_layers: int) -> None:
        """Initialise dt_proj for steps in [dt_min, dt_max], scale the output projection, zero the biases."""
        bound = config.dt_scale * self.dt_rank**-0.5
        if config.dt_init == "constant":
            self.dt_proj.weight.fill_(bound)
        else:
            self.dt_proj.weight.uniform_(-bound, bound)
        uniform = torch.rand(self.d_inner)
        self.dt_proj.bias.copy_(dt_bias(uniform, config.dt_min, config.dt_max, config.dt_init_floor))
        self.out_proj.weight /= math.sqrt(n_layers)  # one residual addition per layer
        for linear in (self.in_proj, self.out_proj):
            if linear.bias is not None:
                linear.bias.zero_()

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        conv, h0 = (None, None) if state is None else (state["conv"], state["ssm"])
        x, z = self.in_proj(x).chunk(2, -1)  # (B, L, E) each
        x, conv = self.conv(x, state=conv, lengths=None if mask is None else mask.sum(1))
        x = F.silu(x)
        y, ssm = selective_scan(x, **self.select(x), D=self.D, z=z, h0=h0, mask=mask)
        return self.out_proj(y), {"conv": conv, "ssm": ssm}

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        x, z = self.in_proj(x_t).chunk(2, -1)  # (B, E) each
        x, conv = self.conv.step(x, state["conv"])
        x = F.silu(x)
        y, ssm = selective_scan_step(x, **self.select(x), D=self.D, z=z, h=state["ssm"])
        return self.out_proj(y), {"conv": conv, "ssm": ssm}

    def select(self, x: Tensor) -> dict[str, Any]:
        """The scan's coefficients from the token: A (E, N), B and C (.., N), delta (.., E) before bias and softplus.

        The scan adds the bias in float32.
        """
        r, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], -1)
        return {
            "delta": F.linear(r, self.dt_proj.weight),
            "A": -torch.exp(at_least_float32(self.A_log)),
            "B": B,
            "C": C,
            "delta_bias": self.dt_proj.bias,
            "delta_softplus": True,
        }

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        wide = torch.promote_types(dtype, torch.float32)
        return {
            "conv": self.conv.init_state(batch, device=device, dtype=dtype),
            "ssm": torch.zeros(batch, self.d_inner, self.d_state, device=device, dtype=wide),
        }


class MambaBackbone(StackBackbone):
    """n_layers of h + Mixer(norm(h)) and a final norm. No channel MLP: the mixer has a gate in its place."""

    config: MambaConfig

    def build_block(self, layer: int) -> Block:
        mixer = MambaMixer(self.config, self.dims.d_model, self.dims.n_layers)
        return Block(mixer, self.build_final_norm(), dropout=self.config.dropout)

    def build_final_norm(self) -> nn.Module:
        return make_norm(self.config.norm, self.dims.d_model, eps=self.config.norm_eps)
