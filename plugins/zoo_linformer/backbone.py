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

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo import State
from zoo.nn import Block, MultiHeadAttention, TransformerStack, transformer_block
from zoo.ops.attention import attention, split_heads
from zoo_linformer.config import LinformerConfig
from zoo_linformer.op import compress, linformer_attention


def length_projection(config: LinformerConfig, max_len: int) -> nn.Parameter:
    """Create E: (k, n) or, per head, (H, k, n); Xavier-uniform over (k, n), as in Long Range Arena."""
    heads = (config.n_heads,) if config.per_head else ()
    E = torch.empty(*heads, config.k, max_len)
    for matrix in E if config.per_head else (E,):
        nn.init.xavier_uniform_(matrix)
    return nn.Parameter(E)


class LinformerAttention(MultiHeadAttention):
    """Attention over k learned mixtures of the n positions. `E` is passed in when all layers share one."""

    def __init__(self, config: LinformerConfig, d_model: int, max_len: int, *, E: nn.Parameter | None = None) -> None:
        super().__init__(d_model, config.n_heads, d_qkv=config.d_qkv, bias=config.bias, dropout=config.attn_dropout)
        self.compress = config.compress
        self.E = length_projection(config, max_len) if E is None else E
        self.F = None if config.share_kv else length_projection(config, max_len)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        if self.compress == "after":
            return super().forward(x, mask=mask)
        k, v = self.k(compress(self.E, x, mask)), self.v(compress(self.E if self.F is None else self.F, x, mask))
        q, k, v = (split_heads(part, self.n_heads) for part in (self.q(x), k, v))  # (B, H, L, d), twice (B, H, k, d)
        return self.project_out(attention(q, k, v, dropout=self.dropout_p), q), None

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        F = self.E if self.F is None else self.F
        return linformer_attention(q, k, v, self.E, F, mask=mask, dropout=self.dropout_p), None


class LinformerBackbone(TransformerStack):
    """Pre-norm blocks and a final layer norm; ValueError for sequences longer than `dims.max_len`."""

    config: LinformerConfig

    def build_blocks(self) -> Iterator[Block]:
        c, D, max_len = self.config, self.dims.d_model, self.dims.max_len
        E = length_projection(c, max_len) if c.share_layers else None
        for _ in range(self.dims.n_layers):
            yield transformer_block(lambda: LinformerAttention(c, D, max_len, E=E), c, D)
