"""The Linformer.

B batch, L seq_len, n the longest length, D d_model, H heads, d = d_qkv / H, k compressed length.

    a = LN(x),  Q, K, V = a W_q, a W_k, a W_v                        (B, H, L, d)
    head_h = softmax(Q_h (E K_h)ᵀ/√d) (F V_h),   E, F (k, n)         Wang et al. 2020, eq. 7
    h = x + concat_h(head_h) W_o
    y = h + W_2 act(W_1 LN(h) + b_1) + b_2

Sharing (§4 of the paper): E and F for all heads ("headwise": per_head=False, share_kv=False), E = F ("key-value":
share_kv=True), one matrix for all layers (share_layers=True). compress="before" is fairseq's form, E a in place of
E K, which projects k rows instead of L.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import Block, LayerNorm, Mixer, ResidualStack, block_around, projections
from zoo.ops.attention import attention, join_heads, split_heads
from zoo_linformer.config import LinformerConfig
from zoo_linformer.op import compress, linformer_attention


def projection(config: LinformerConfig, max_len: int) -> nn.Parameter:
    """E: (k, n) or, per head, (H, k, n); Xavier-uniform over (k, n), as in Long Range Arena."""
    lead = (config.n_heads,) if config.per_head else ()
    E = torch.empty(*lead, config.k, max_len)
    for matrix in E if config.per_head else (E,):
        nn.init.xavier_uniform_(matrix)
    return nn.Parameter(E)


class LinformerAttention(Mixer):
    """Multi-head attention over k mixtures of the n positions."""

    def __init__(self, config: LinformerConfig, d_model: int, max_len: int, *, E: nn.Parameter | None = None) -> None:
        """E is given when all layers share one."""
        super().__init__()
        self.config = config
        d_qkv = config.d_qkv or d_model
        self.q, self.k, self.v, self.out = projections(d_model, d_qkv, bias=config.bias)
        self.E = projection(config, max_len) if E is None else E
        self.F = None if config.share_kv else projection(config, max_len)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        E, F = self.E, self.E if self.F is None else self.F
        H, dropout = self.config.n_heads, self.config.attn_dropout if self.training else 0.0
        q = split_heads(self.q(x), H)
        if self.config.compress == "before":
            k = split_heads(self.k(compress(E, x, mask)), H)  # (B, H, k, d)
            v = split_heads(self.v(compress(F, x, mask)), H)
            y = attention(q, k, v, dropout=dropout)
        else:
            k, v = split_heads(self.k(x), H), split_heads(self.v(x), H)  # (B, H, L, d)
            y = linformer_attention(q, k, v, E, F, mask=mask, dropout=dropout)
        return self.out(join_heads(y)), None  # (B, L, H d) -> (B, L, D)


def linformer_block(config: LinformerConfig, d_model: int, max_len: int, *, E: nn.Parameter | None = None) -> Block:
    """h = x + MHA(LN x), y = h + MLP(LN h)."""
    return block_around(lambda: LinformerAttention(config, d_model, max_len, E=E), config, d_model)


class LinformerBackbone(Backbone):
    """Pre-norm blocks and a final layer norm; sequences up to `dims.max_len`."""

    def __init__(self, config: LinformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        E = projection(config, dims.max_len) if config.share_layers else None
        blocks = [linformer_block(config, dims.d_model, dims.max_len, E=E) for _ in range(dims.n_layers)]
        self.stack = ResidualStack(blocks, LayerNorm(dims.d_model, eps=config.norm_eps))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D). ValueError when L > max_len."""
        if state is not None:
            raise ValueError("a Linformer carries no state; it was given one")
        return self.stack(x, mask=mask)
