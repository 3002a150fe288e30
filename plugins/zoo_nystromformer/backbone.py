"""The Nyströmformer.

B batch, L seq_len, D d_model, H heads, d = d_qkv / H, m landmarks, c taps.

    a = LN(x),  Q, K, V = a W_q, a W_k, a W_v                                    (B, H, L, d)
    head_h = F1 F2⁺ F3 V_h + w_h * V_h                                           Xiong et al. 2021, §3.2, see op.py
    h = x + concat_h(head_h) W_o
    y = h + W_2 act(W_1 LN(h) + b_1) + b_2

w_h is one kernel per head along the sequence. Post-norm (prenorm=False): h = LN(x + …), y = LN(h + …), no final norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import Block, LayerNorm, Mixer, ResidualStack, at_least_float32, block_around, projections
from zoo.ops.attention import join_heads, split_heads
from zoo_nystromformer.config import NystromformerConfig
from zoo_nystromformer.op import depthwise, nystrom_attention


class NystromAttention(Mixer):
    """Multi-head Nyström attention with the convolution of the values."""

    def __init__(self, config: NystromformerConfig, d_model: int) -> None:
        super().__init__()
        self.config = config
        d_qkv = config.d_qkv or d_model
        self.q, self.k, self.v, self.out = projections(d_model, d_qkv, bias=config.bias)
        self.conv: nn.Parameter | None = None
        if config.conv_kernel:
            # PyTorch's own for a depthwise convolution, as the paper's code leaves it
            bound = 1 / math.sqrt(config.conv_kernel)
            self.conv = nn.Parameter(torch.empty(config.n_heads, config.conv_kernel).uniform_(-bound, bound))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        c = self.config
        q, k, v = (split_heads(linear(x), c.n_heads) for linear in (self.q, self.k, self.v))  # (B, H, L, d)
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (at_least_float32(t) for t in (q, k, v))
            if mask is not None and c.padding != "blind":
                v = v.masked_fill(~mask[:, None, :, None], 0)
            y = nystrom_attention(
                q, k, v, m=c.n_landmarks, mask=mask, n_iter=c.pinv_iterations, init=c.pinv_init, padding=c.padding
            )
            if self.conv is not None:
                y = y + depthwise(v, self.conv.to(v.dtype))
        return self.out(join_heads(y).to(x.dtype)), None  # (B, L, H d) -> (B, L, D)


def nystromformer_block(config: NystromformerConfig, d_model: int) -> Block:
    """h = x + NystromMHA(LN x), y = h + MLP(LN h), or post-norm."""
    return block_around(lambda: NystromAttention(config, d_model), config, d_model, prenorm=config.prenorm)


class NystromformerBackbone(Backbone):
    """Blocks and, pre-norm, a final layer norm."""

    def __init__(self, config: NystromformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        blocks = [nystromformer_block(config, dims.d_model) for _ in range(dims.n_layers)]
        final = LayerNorm(dims.d_model, eps=config.norm_eps) if config.prenorm else None
        self.stack = ResidualStack(blocks, final)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D)."""
        return self.stack(x, mask=mask, state=state)
