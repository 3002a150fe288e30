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
from zoo.nn import (
    MultiHeadAttention,
    TransformerStack,
    attend_to_cache,
    extend_cache,
    init_cache,
    init_xavier,
    param_options,
    repeat_heads,
    returns_state,
)
from zoo.ops.attention import attention, self_extend_attention
from zoo.ops.positions import (
    alibi_key_bias,
    alibi_slopes,
    real_positions,
    rope_tables,
    rotate,
    scaled_rope,
    sinusoidal,
)
from zoo_transformer.config import TransformerConfig


class SelfAttention(MultiHeadAttention):
    """Softmax attention with rotary positions, linear biases or neither.

    The state, causal only, is the key-value cache of all tokens so far (zoo/nn/cache.py). Keys are in it as rotated,
    or before rotation where the angles of all of them change while the text grows.
    """

    def __init__(self, config: TransformerConfig, d_model: int, *, causal: bool, max_len: int) -> None:
        super().__init__(
            d_model,
            config.n_heads,
            d_qkv=config.d_qkv,
            n_kv_heads=config.n_kv_heads,
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
        rotates = self.config.positions == "rope"
        if rotates and not self.rotates_late:
            cos, sin = self.rotations(next_positions(q, state), q.shape[2])
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if not self.causal:
            if rotates and self.rotates_late:
                q, k = self.rotate_all(q, k, mask)
            k, v = (repeat_heads(z, self.n_heads // self.n_kv_heads) for z in (k, v))
            slopes = alibi_slopes(self.n_heads, device=q.device) if self.config.positions == "alibi" else None
            return attention(q, k, v, mask=mask, symmetric_slopes=slopes, dropout=self.dropout_p), None
        cache = extend_cache(state, k, v, mask)
        all_real = state is None and mask is None
        real = None if all_real else cache["real"]
        y = self.compute_cached_attention(q, cache, real)
        return y, cache if state is not None or returns_state() else None

    def compute_cached_attention(self, q: Tensor, cache: State, real: Tensor | None) -> Tensor:
        """Attention of the newest tokens to all in the cache; real (B, T), None = all are."""
        extend, n_keys = self.config.self_extend, cache["k"].shape[2]
        if extend.group_size > 1 and not self.training and n_keys > extend.window:
            k, v = (repeat_heads(cache[name], self.n_heads // self.n_kv_heads) for name in ("k", "v"))
            group_size, window, theta = extend.group_size, extend.window, self.config.rope_theta
            return self_extend_attention(q, k, v, group_size=group_size, window=window, mask=real, theta=theta)
        key_bias = None
        if self.config.positions == "alibi":
            positions = torch.arange(n_keys, device=q.device) if real is None else real_positions(real)
            key_bias = alibi_key_bias(alibi_slopes(self.n_heads, device=q.device), positions)
        elif self.config.positions == "rope" and self.rotates_late:
            q, k = self.rotate_all(q, cache["k"], real)
            cache = {**cache, "k": k}
        return attend_to_cache(q, cache, all_real=real is None, key_bias=key_bias, dropout=self.dropout_p)

    @property
    def rotates_late(self) -> bool:
        """Whether angles depend on how long the text is by now, or on which query sees the key."""
        return self.config.rope_scaling.rope_type in ("dynamic", "longrope") or self.config.self_extend.group_size > 1

    def rotate_all(self, q: Tensor, k: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rotate q (B, H, L, d), the last of the tokens with keys k (B, H, T, d), by the length of each row by now."""
        n_keys, n_queries = k.shape[2], q.shape[2]
        # of each example, not of the padded batch: its outputs must not depend on the other examples
        positions = torch.arange(n_keys, device=k.device) if real is None else real_positions(real)[:, None]
        lengths = n_keys if real is None else real.sum(1)[:, None, None, None]
        cos, sin = self.rotations(positions, lengths)
        return rotate(q, cos[..., -n_queries:, :], sin[..., -n_queries:, :]), rotate(k, cos, sin)

    def rotations(self, positions: Tensor, seq_len: int | Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions (L,) or (B, 1, L) in texts of `seq_len` tokens: (…, L, d/2) each."""
        speeds = scaled_rope(
            self.d_head,
            self.config.rope_scaling,
            max_len=self.max_len,
            seq_len=seq_len,
            theta=self.config.rope_theta,
            device=positions.device,
        )
        return rope_tables(positions, speeds)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return init_cache(batch, self.n_kv_heads, self.d_head, device=device, dtype=dtype) if self.causal else None

    def state_size(self, seq_len: int) -> int:
        return 2 * seq_len * self.n_kv_heads * self.d_head if self.causal else 0


def next_positions(new: Tensor, cache: State) -> Tensor:
    """Positions of the tokens of `new` (B, H, L, d) after those in the cache: (L,), or (B, 1, L)."""
    positions = torch.arange(new.shape[2], device=new.device)
    return positions if cache is None else cache["real"].sum(1)[:, None, None] + positions


class TransformerBackbone(TransformerStack):
    """Absolute positions where there are any, pre-norm blocks, a final layer norm."""

    config: TransformerConfig
    table: nn.Parameter | None

    def build_positions(self) -> None:
        self.register_parameter("table", None)
        if self.config.positions == "learned":
            self.table = nn.Parameter(torch.randn(self.dims.max_len, self.dims.d_model) * 0.02)
            param_options(self, "table", weight_decay=0.0)  # an embedding

    def add_positions(self, x: Tensor, state: State) -> Tensor:
        """x (B, L, D) plus the learned or sinusoidal table. ValueError if L exceeds the learned positions."""
        if self.config.positions not in ("learned", "sinusoidal"):
            return x
        positions = next_positions(x[:, None], None if state is None else state[0]).view(-1, x.shape[1])  # (1 or B, L)
        if self.table is None:
            return x + sinusoidal(positions.flatten(), self.dims.d_model).view(*positions.shape, -1).to(x.dtype)
        n_tokens = x.shape[1] + (0 if state is None else state[0]["real"].shape[1])
        if n_tokens > len(self.table):
            raise ValueError(f"a sequence of {n_tokens} tokens, but learned positions for {len(self.table)}")
        return x + self.table[positions].to(x.dtype)

    def build_mixer(self, layer: int) -> SelfAttention:
        causal, max_len = self.dims.mode == "causal", self.dims.max_len
        return SelfAttention(self.config, self.dims.d_model, causal=causal, max_len=max_len)
