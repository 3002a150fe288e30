"""The pre-norm Transformer.

B batch, L seq_len, D d_model, H heads, d = d_qkv / H.

    a = LN(x)                                   pre-norm (Xiong et al. 2020)
    Q, K, V = a W_q, a W_k, a W_v               (B, H, L, d)
    h = x + concat_h(softmax(Q Kᵀ/√d + M) V) W_o    Vaswani et al. 2017, eq. 1
    y = h + W_2 act(W_1 LN(h) + b_1) + b_2          eq. 2
    LN after the last block

M hides later keys (causal) and pads. Positions enter in one of four ways, or not at all: added once to x (sinusoidal,
learned), as a rotation of Q and K (rope), as a bias on the scores (alibi: slope * key position on causal rows,
-slope |i - j| in both directions).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import State
from zoo.nn import MultiHeadAttention, TransformerStack, init_xavier, param_options, sequence_lengths
from zoo.ops.attention import attention, self_extend_attention
from zoo.ops.positions import alibi_key_bias, alibi_slopes, rope_tables, rotate, scaled_rope, sinusoidal
from zoo_transformer.config import TransformerConfig


class SelfAttention(MultiHeadAttention):
    """Softmax attention with rotary positions, linear biases or neither."""

    def __init__(self, config: TransformerConfig, d_model: int, *, causal: bool, max_len: int) -> None:
        super().__init__(
            d_model,
            config.n_heads,
            d_qkv=config.d_qkv,
            bias=config.bias,
            fused_qkv=True,
            causal=causal,
            dropout=config.attn_dropout,
        )
        self.config, self.max_len = config, max_len

    def reset_parameters(self) -> None:
        """Initialise as `nn.MultiheadAttention` does: only the fused matrix is Xavier-uniform; biases are zero."""
        init_xavier(self.qkv)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        seq_len, device = q.shape[2], q.device
        key_bias = symmetric_slopes = None
        extend = self.config.self_extend
        if extend.group_size > 1 and not self.training and seq_len > extend.window:
            theta = self.config.rope_theta
            y = self_extend_attention(q, k, v, group_size=extend.group_size, window=extend.window, theta=theta)
            return y, None
        if self.config.positions == "rope":
            cos, sin = self.rotations(seq_len, mask, device)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        elif self.config.positions == "alibi":
            slopes = alibi_slopes(self.n_heads, device=device)
            if self.causal:
                key_bias = alibi_key_bias(slopes, torch.arange(seq_len, device=device))
            else:
                symmetric_slopes = slopes
        y = attention(
            q,
            k,
            v,
            mask=mask,
            causal=self.causal,
            key_bias=key_bias,
            symmetric_slopes=symmetric_slopes,
            dropout=self.dropout_p,
        )
        return y, None

    def rotations(self, seq_len: int, mask: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the positions: (L, d/2) each, (B, 1, L, d/2) where they depend on a row's length."""
        scaling = self.config.rope_scaling
        # of each example, not of the padded batch: its outputs must not depend on the other examples
        own_length = mask is not None and scaling.rope_type in ("dynamic", "longrope")
        lengths = sequence_lengths(mask)[:, None, None, None] if mask is not None and own_length else seq_len
        speeds = scaled_rope(
            self.d_head, scaling, max_len=self.max_len, seq_len=lengths, theta=self.config.rope_theta, device=device
        )
        return rope_tables(torch.arange(seq_len, device=device), speeds)


class TransformerBackbone(TransformerStack):
    """Absolute positions where there are any, pre-norm blocks, a final layer norm."""

    config: TransformerConfig
    table: nn.Parameter | None

    def build_positions(self) -> None:
        self.register_parameter("table", None)
        if self.config.positions == "learned":
            self.table = nn.Parameter(torch.randn(self.dims.max_len, self.dims.d_model) * 0.02)
            param_options(self, "table", weight_decay=0.0)  # an embedding

    def add_positions(self, x: Tensor) -> Tensor:
        """x (B, L, D) plus the learned or sinusoidal table. ValueError if L exceeds the learned positions."""
        seq_len = x.shape[1]
        if self.table is not None:
            if seq_len > self.table.shape[0]:
                raise ValueError(f"a sequence of {seq_len} tokens, but learned positions for {self.table.shape[0]}")
            return x + self.table[:seq_len].to(x.dtype)
        if self.config.positions == "sinusoidal":
            return x + sinusoidal(torch.arange(seq_len, device=x.device), self.dims.d_model).to(x.dtype)
        return x

    def build_mixer(self, layer: int) -> SelfAttention:
        causal, max_len = self.dims.mode == "causal", self.dims.max_len
        return SelfAttention(self.config, self.dims.d_model, causal=causal, max_len=max_len)
