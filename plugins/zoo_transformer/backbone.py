"""The pre-norm Transformer.

B batch, L seq_len, D d_model, H heads, d = d_qkv / H.

    a = LN(x)                                   pre-norm (Xiong et al. 2020)
    Q, K, V = a W_q, a W_k, a W_v               (B, H, L, d)
    h = x + concat_h(softmax(Q Kᵀ/√d + M) V) W_o    Vaswani et al. 2017, eq. 1
    y = h + W_2 act(W_1 LN(h) + b_1) + b_2          eq. 2
    LN after the last block

M hides later keys (causal) and pads. Positions enter in one of four ways: added once to x (sinusoidal, learned),
as a rotation of Q and K (rope), as a bias on the scores (alibi: slope * key position on causal rows, -slope |i - j|
in both directions).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import Block, LayerNorm, Mixer, ResidualStack, block_around, param_options, xavier
from zoo.ops.attention import attention, join_heads, split_heads
from zoo.ops.positions import (
    alibi_key_bias,
    alibi_slopes,
    real_positions,
    rope,
    rope_tables,
    rotate,
    sinusoidal,
)
from zoo_transformer.config import TransformerConfig


class SelfAttention(Mixer):
    """Multi-head softmax attention with rotary positions, linear biases or neither."""

    def __init__(self, config: TransformerConfig, d_model: int, *, causal: bool) -> None:
        super().__init__()
        d_qkv = config.d_qkv or d_model
        self.config, self.causal = config, causal
        self.qkv = nn.Linear(d_model, 3 * d_qkv, bias=config.bias)
        self.out = nn.Linear(d_qkv, d_model, bias=config.bias)
        # PyTorch's own choice: Xavier on the fused matrix
        xavier(self.qkv)
        if config.bias:
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        q, k, v = (
            split_heads(part, self.config.n_heads)  # (B, H, L, d)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        kind, seq_len, device = self.config.positions, x.shape[1], x.device
        key_bias = symmetric = None
        if kind == "rope":
            speeds = rope(q.shape[-1], theta=self.config.rope_theta, device=device)
            cos, sin = rope_tables(torch.arange(seq_len, device=device), speeds)  # (L, d/2)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        elif kind == "alibi":
            slopes = alibi_slopes(self.config.n_heads, device=device)
            if self.causal:
                # counted over real tokens, so that left padding shifts nothing
                positions = torch.arange(seq_len, device=device) if mask is None else real_positions(mask)
                key_bias = alibi_key_bias(slopes, positions)
            else:
                symmetric = slopes
        y = attention(
            q,
            k,
            v,
            mask=mask,
            causal=self.causal,
            key_bias=key_bias,
            symmetric_slopes=symmetric,
            dropout=self.config.attn_dropout if self.training else 0.0,
        )
        return self.out(join_heads(y)), None  # (B, L, H d) -> (B, L, D)


def transformer_block(config: TransformerConfig, d_model: int, *, causal: bool) -> Block:
    """h = x + MHA(LN x), y = h + MLP(LN h)."""
    return block_around(lambda: SelfAttention(config, d_model, causal=causal), config, d_model)


class TransformerBackbone(Backbone):
    """Positions, pre-norm blocks, a final layer norm."""

    def __init__(self, config: TransformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        self.table: nn.Parameter | None = None
        if config.positions == "learned":
            self.table = nn.Parameter(torch.randn(dims.max_len, dims.d_model) * 0.02)
            param_options(self, "table", weight_decay=0.0)  # an embedding
        blocks = [transformer_block(config, dims.d_model, causal=dims.mode == "causal") for _ in range(dims.n_layers)]
        self.stack = ResidualStack(blocks, LayerNorm(dims.d_model, eps=config.norm_eps))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D). ValueError when learned positions run out."""
        if state is not None:
            raise ValueError("a Transformer carries no state; it was given one")
        return self.stack(self.place(x), mask=mask)

    def place(self, x: Tensor) -> Tensor:
        """x plus absolute positions, where there are any."""
        seq_len = x.shape[1]
        if self.table is not None:
            if seq_len > self.table.shape[0]:
                raise ValueError(f"a sequence of {seq_len} tokens, but learned positions for {self.table.shape[0]}")
            return x + self.table[:seq_len].to(x.dtype)
        if self.config.positions == "sinusoidal":
            table = sinusoidal(torch.arange(seq_len, device=x.device), self.dims.d_model)
            return x + table.to(x.dtype)
        return x
