"""LongT5 (Guo et al. 2022, arXiv 2112.07916): an encoder with sparse attention, and T5's decoder in mode seq2seq.

Shapes: B batch, L seq_len, D d_model, H heads, E width of a head, R local radius, G tokens of a block, M = L // G
globals. With N an RMS norm, layer n computes

    x = N(h)
    u_g = N_u(sum of x_i over block g)                                           §3.2, one sum per block of G tokens
    s_ij = q_i·k_j + b[bucket(j - i)]          for |i - j| <= R                  §3.1
    t_ig = q_i·k(u_g) + b'[bucket(g - c_i)]    for every block g, c_i the one of token i
    a = h + o softmax([s_i; t_i]) [v; v(u)]
    h' = a + FFN(N'(a))

Keys and values of globals use the token's own matrices. The tables b and b' belong to the stack (published: to its
first layer), N_u to each layer. There is no 1/sqrt(E); a last N ends the stack. attention=local has s alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import RMSNorm
from zoo.ops.attention import split_heads
from zoo.ops.blocked import Side, blocked_attention
from zoo_longt5.config import LongT5Config
from zoo_longt5.decoder import Decoder
from zoo_longt5.layers import FeedForward, PositionBias, T5Attention
from zoo_longt5.op import block_sums


class SparseAttention(T5Attention):
    """Local attention and, unless attention=local, transient globals in the same softmax."""

    def __init__(self, config: LongT5Config, d_model: int) -> None:
        super().__init__(config, d_model)
        self.radius, self.block = config.local_radius, config.global_block
        self.global_norm = RMSNorm(d_model, config.norm_eps) if config.attention == "transient_global" else None

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        state: State = None,
        bias: Tensor | None = None,
        global_bias: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L), bias (H, 2R + 1), global_bias (H, M, M) with the last block's row first."""
        q, k, v = self.project_qkv(x)
        y = blocked_attention(
            q,
            k,
            v,
            window=(self.radius, self.radius),
            bias=bias,
            side=None if global_bias is None else self.project_globals(x, mask, global_bias),
            mask=mask,
            scale=1.0,
            dropout=self.dropout_p,
        )
        return self.project_out(y, q), None

    def project_globals(self, x: Tensor, mask: Tensor | None, bias: Tensor) -> Side:
        """Compute keys and values of the block sums, and which bias each token has for them."""
        assert self.global_norm is not None
        sums, real, block = block_sums(x, mask, self.block)
        u = self.global_norm(sums).to(x.dtype)  # (B, M, D)
        k, v = split_heads(self.k(u), self.n_heads), split_heads(self.v(u), self.n_heads)
        return Side(k, v, mask=None if mask is None else real, bias=bias, row=bias.shape[1] - 1 - block)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each behind its norm."""

    def __init__(self, config: LongT5Config, d_model: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(d_model, config.norm_eps)
        self.attention = SparseAttention(config, d_model)
        self.norm2 = RMSNorm(d_model, config.norm_eps)
        self.ffn = FeedForward(config, d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, mask: Tensor | None, bias: Tensor, global_bias: Tensor | None) -> Tensor:
        y, _ = self.attention(self.norm1(h), mask=mask, bias=bias, global_bias=global_bias)
        h = h + self.dropout(y)
        return h + self.dropout(self.ffn(self.norm2(h)))


class Encoder(nn.Module):
    """The encoder's layers, the bias tables that they share, and a last norm."""

    def __init__(self, config: LongT5Config, dims: ModelDims) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(EncoderLayer(config, dims.d_model) for _ in range(dims.n_layers))
        self.bias = PositionBias(config, dims.d_model, two_sided=True)
        self.global_bias: PositionBias | None = None
        if config.attention == "transient_global":
            self.global_bias = PositionBias(config, dims.d_model, two_sided=True)
        self.final_norm = RMSNorm(dims.d_model, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, D) -> (B, L, D)"""
        bias, global_bias = self.biases(x.shape[1])
        h = self.dropout(x)
        for layer in self.layers:
            h = layer(h, mask, bias, global_bias)
        return self.dropout(self.final_norm(h))

    def biases(self, seq_len: int) -> tuple[Tensor, Tensor | None]:
        """Compute the biases by j - i, (H, 2R + 1), and by g - c, (H, M, M), or None where no block is full.

        The latter is a view of its 2M - 1 distances, in which the row of the last block comes first.
        """
        R, M = self.config.local_radius, seq_len // self.config.global_block
        far = None if self.global_bias is None or M == 0 else self.global_bias(1 - M, M - 1).unfold(-1, M, 1)
        return self.bias(-R, R), far


class LongT5Backbone(Backbone):
    """The encoder, and in mode seq2seq the decoder.

    The state is the decoder's: its cached keys and values. Those of the source are computed from `memory` in every
    call, so that a state always belongs to the source that is given with it.
    """

    def __init__(self, config: LongT5Config, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        self.encoder = Encoder(config, dims)
        self.decoder = Decoder(config, dims) if dims.mode == "seq2seq" else None

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) right-padded -> hidden (B, L, D). ValueError for a state: the encoder has none."""
        if state is not None:
            raise ValueError("LongT5's encoder carries no state, but one was given")
        return Output(self.encoder(x, mask))

    def forward_decode(
        self, y: Tensor, *, memory: Tensor, memory_mask: Tensor | None = None, state: State = None
    ) -> Output:
        """y (B, T, D) after the tokens of `state`, memory (B, L, D) from `forward` -> hidden (B, T, D), next state."""
        if self.decoder is None:
            return super().forward_decode(y, memory=memory)
        hidden, state = self.decoder(y, memory=memory, mask=memory_mask, state=state)
        return Output(hidden, state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """The state before the first decoded token; None without a decoder."""
        return None if self.decoder is None else self.decoder.init_state(batch, device=device, dtype=dtype)

    def state_size(self, seq_len: int) -> int:
        """Cached keys and values after `seq_len` decoded tokens."""
        return 0 if self.decoder is None else self.decoder.state_size(seq_len)
