"""The Longformer (Beltagy, Peters & Cohan 2020, arXiv 2004.05150).

Shapes: B batch, L seq_len, D d_model, H heads, d = d_qkv / H, g global tokens, P = back * dilation cached keys.

    pre-norm    x = x + Attention(LN x);  x = x + W_2 act(W_1 LN x + b_1) + b_2;  LN after the last block
    post-norm   x = LN(x + Attention x);  x = LN(x + W_2 act(W_1 x + b_1) + b_2)       (RoBERTa)

Attention (§3.1) is in op.py. The causal form carries the last P keys and values and the inputs of the global tokens,
so that a sequence processed in pieces gives exactly what the whole gives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import State
from zoo.nn import MultiHeadAttention, TransformerStack, sequence_lengths
from zoo.ops.attention import split_heads
from zoo.ops.memory import take_rows as take_tokens
from zoo.ops.rows import take_rows
from zoo_longformer.config import LongformerConfig
from zoo_longformer.op import GlobalTokens, longformer_attention


class LongformerAttention(MultiHeadAttention):
    """Sliding-window attention of one layer; the first `n_global` tokens are global.

    State, causal only: {"k", "v": (B, H, P, d), "local": (B, P) bool, keys for the window, "seen": (B,) tokens so far,
    "global_x": (B, g, D), "global_real": (B, g) bool}.
    """

    def __init__(self, config: LongformerConfig, d_model: int, *, layer: int, causal: bool) -> None:
        super().__init__(
            d_model, config.n_heads, d_qkv=config.d_qkv, bias=config.bias, causal=causal, dropout=config.attn_dropout
        )
        self.n_global = config.globals_in("causal" if causal else "bidirectional")
        back, ahead = config.sides(layer)
        self.window = (back, 0 if causal else ahead)
        self.dilations = config.dilations(layer)
        self.cached = back * max(self.dilations)
        if self.n_global:
            d_qkv = self.n_heads * self.d_head
            self.q_global, self.k_global, self.v_global = (nn.Linear(d_model, d_qkv, bias=config.bias) for _ in "qkv")
            for local, own in ((self.q, self.q_global), (self.k, self.k_global), (self.v, self.v_global)):
                own.load_state_dict(local.state_dict())  # §3.1: Q_g, K_g, V_g begin as Q_s, K_s, V_s

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        if self.causal:
            return self.forward_piece(x, mask, state)
        first = torch.arange(min(self.n_global, x.shape[1]), device=x.device).expand(x.shape[0], -1)
        return self.forward_whole(x, mask, first, torch.ones_like(first, dtype=torch.bool)), None

    def forward_whole(self, x: Tensor, mask: Tensor, position: Tensor, real: Tensor) -> Tensor:
        """Process a whole sequence with global tokens at position (B, g) where real (B, g): (B, L, D)."""
        L, real = x.shape[1], real & mask.gather(1, position)
        is_global = F.pad(torch.zeros_like(mask), (0, 1)).scatter(1, torch.where(real, position, L), True)[:, :L]
        visible = mask[:, None, None]  # (B, 1, 1, L)
        if self.causal:
            visible = visible & (torch.arange(L, device=x.device) <= position[:, None, :, None])  # (B, 1, g, L)
        tokens = self.project_globals(take_tokens(x, position), x, position, real, visible)
        return self.compute_output(*self.project_qkv(x), mask & ~is_global, tokens, mask)

    def forward_piece(self, x: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State]:
        """Process the next L tokens of a causal sequence, whose first g tokens are global."""
        (B, L, _), P, g, device = x.shape, self.cached, self.n_global, x.device
        skip = P if state is None else 0  # an empty cache is left out of the attention
        state = self.init_state(B, device=device, dtype=x.dtype) if state is None else state
        seen, count = state["seen"], sequence_lengths(mask)  # (B,) earlier tokens and tokens of this piece
        q, k, v = self.project_qkv(x)
        # under autocast the state may be wider than what is projected now
        k, v = torch.cat([state["k"].to(k.dtype), k], 2), torch.cat([state["v"].to(v.dtype), v], 2)  # (B, H, P + L, d)
        local = mask & (seen[:, None] + torch.arange(L, device=device) >= g)
        local = torch.cat([state["local"], local], 1)  # (B, P + L)

        position = torch.arange(g, device=device) - seen[:, None]  # (B, g) within this piece
        index = position.clamp(0, L - 1)
        here = (position >= 0) & (position < count[:, None]) & mask.gather(1, index)
        x_g = torch.where(here[..., None], take_tokens(x, index), state["global_x"].to(x.dtype))
        real = state["global_real"] | here
        # the tokens before a global one are global themselves
        visible = real[:, None, None] & torch.ones(g, g, dtype=torch.bool, device=device).tril()
        tokens = self.project_globals(x_g, x_g, position, real, visible)

        y = self.compute_output(q, k[:, :, skip:], v[:, :, skip:], local[:, skip:], tokens, mask)
        last = count[:, None] + torch.arange(P, device=device)  # (B, P), the keys before the next piece
        return y, {
            "k": take_rows(k, last),
            "v": take_rows(v, last),
            "local": local.gather(1, last),
            "seen": seen + count,
            "global_x": x_g,
            "global_real": real,
        }

    def project_globals(
        self, x_g: Tensor, x: Tensor, position: Tensor, real: Tensor, visible: Tensor
    ) -> GlobalTokens | None:
        """Project the global tokens x_g (B, g, D) and the tokens x (B, S, D) that they attend to; None for g = 0."""
        if not x_g.shape[1]:
            return None
        projected = (self.k(x_g), self.v(x_g), self.q_global(x_g), self.k_global(x), self.v_global(x))
        k, v, q_global, k_global, v_global = (split_heads(part, self.n_heads) for part in projected)
        return GlobalTokens(position, real, k, v, q_global, k_global, v_global, visible)

    def compute_output(
        self, q: Tensor, k: Tensor, v: Tensor, local: Tensor, tokens: GlobalTokens | None, mask: Tensor
    ) -> Tensor:
        """Apply the attention of op.py, zero at pads, and the output projection: (B, H, L, d) -> (B, L, D)."""
        y = longformer_attention(
            q,
            k,
            v,
            window=self.window,
            dilation=self.dilations,
            tokens=tokens,
            causal=self.causal,
            mask=local,
            dropout=self.dropout_p,
        )
        return self.project_out(y.masked_fill(~mask[:, None, :, None], 0), q)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if not self.causal:
            return None
        P, g, heads = self.cached, self.n_global, (batch, self.n_heads, self.cached, self.d_head)
        return {
            "k": torch.zeros(heads, device=device, dtype=dtype),
            "v": torch.zeros(heads, device=device, dtype=dtype),
            "local": torch.zeros(batch, P, device=device, dtype=torch.bool),
            "seen": torch.zeros(batch, device=device, dtype=torch.int64),
            "global_x": torch.zeros(batch, g, self.q.in_features, device=device, dtype=dtype),
            "global_real": torch.zeros(batch, g, device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        return 2 * self.cached * self.q.out_features + self.n_global * self.q.in_features if self.causal else 0


class LongformerBackbone(TransformerStack):
    """Transformer blocks with window and global attention. Positions come from outside."""

    def build_mixer(self, layer: int) -> LongformerAttention:
        return LongformerAttention(self.config, self.dims.d_model, layer=layer, causal=self.dims.mode == "causal")
