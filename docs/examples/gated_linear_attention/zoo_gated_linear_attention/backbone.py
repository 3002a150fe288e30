"""The GLA Transformer (Yang et al. 2023, arXiv 2312.06635).

    alpha_t = sigmoid(x_t W_a1 W_a2 + b_a)^(1/tau)        S_t = diag(alpha_t) S_{t-1} + k_t v_t^T        o_t = q_t S_t
    GLA(X) = (Swish(X W_r + b_r) * Norm(o)) W_o           Norm: over the values of each head
    Y = X + GLA(Norm X)                                   X' = Y + SwiGLU(Norm Y)

B batch, L seq_len, D d_model, H heads; k = D / 2H key and v = D / H value dimensions of a head.
State of a layer: S (B, H, k, v).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import State
from zoo.nn import Block, Mixer, RMSNorm, StackBackbone, at_least_float32
from zoo.ops.attention import join_heads, split_heads
from zoo.ops.gated_linear_attention import gated_linear_attention
from zoo_gated_linear_attention.config import GatedLinearAttentionConfig


class GatedLinearAttention(Mixer):
    """Linear attention with a gate for each key dimension, and an output gate."""

    def __init__(self, config: GatedLinearAttentionConfig, d_model: int) -> None:
        super().__init__()
        self.H, self.tau, D = config.n_heads, config.gate_temperature, d_model
        self.key_dim, self.value_dim = D // (2 * self.H), D // self.H
        self.q_proj = nn.Linear(D, D // 2, bias=False)
        self.k_proj = nn.Linear(D, D // 2, bias=False)
        self.v_proj = nn.Linear(D, D, bias=False)
        self.gate_proj = nn.Sequential(nn.Linear(D, config.gate_rank, bias=False), nn.Linear(config.gate_rank, D // 2))
        self.r_proj = nn.Linear(D, D)
        self.norm = RMSNorm(self.value_dim)
        self.out_proj = nn.Linear(D, D, bias=False)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> y (B, L, D), state."""
        q, k, v, gate = (split_heads(p(x), self.H) for p in (self.q_proj, self.k_proj, self.v_proj, self.gate_proj))
        log_alpha = F.logsigmoid(at_least_float32(gate)) / self.tau
        o, state = gated_linear_attention(q * self.key_dim**-0.5, k, v, log_alpha, state, mask=mask)
        return self.out_proj(F.silu(self.r_proj(x)) * join_heads(self.norm(o, None))), state

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        wide = torch.promote_types(dtype, torch.float32)
        return torch.zeros(batch, self.H, self.key_dim, self.value_dim, device=device, dtype=wide)


class SwiGLU(nn.Module):
    """The channel MLP (Swish(x W_1) * x W_2) W_3; its width makes it as large as one of 4 D without a gate."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        d_ff = 8 * d_model // 3
        self.linear1 = nn.Linear(d_model, d_ff, bias=False)
        self.linear2 = nn.Linear(d_model, d_ff, bias=False)
        self.linear3 = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear3(F.silu(self.linear1(x)) * self.linear2(x))


class GatedLinearAttentionBackbone(StackBackbone):
    """Pre-norm blocks of gated linear attention and SwiGLU, and a final norm."""

    config: GatedLinearAttentionConfig

    def build_block(self, layer: int) -> Block:
        c, d = self.config, self.dims.d_model
        mixer = GatedLinearAttention(c, d)
        return Block(mixer, RMSNorm(d), mlp=SwiGLU(d), norm2=RMSNorm(d), dropout=c.dropout)

    def build_final_norm(self) -> nn.Module:
        return RMSNorm(self.dims.d_model)
