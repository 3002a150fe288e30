"""T5's decoder, with full causal self-attention and cross-attention to all of the encoded source.

Shapes: B batch, T tokens of this call, P tokens of earlier calls, L source tokens, D d_model, H heads, E width of a
head. With N an RMS norm, layer n computes (LongT5 §3; Raffel et al. 2020, §2.1)

    a = y + o softmax(q kᵀ + b[bucket(j - i)]) v        q from N(y_i), k and v from N(y_j), j <= i
    c = a + o' softmax(q' k'ᵀ) v'                       q' from N'(a), k' and v' from the source; no position bias
    y = c + FFN(N''(c))

The bias table b belongs to the stack. Carried from call to call: k and v of the self-attention. k' and v' of the source
are never carried, and not computed where few tokens are decoded (`attend_unprojected`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo import ModelDims, State
from zoo.nn import RMSNorm
from zoo.ops.attention import attention, reference_attention, split_heads
from zoo_longt5.config import LongT5Config
from zoo_longt5.layers import FeedForward, PositionBias, T5Attention


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, feed-forward, each behind its norm."""

    def __init__(self, config: LongT5Config, d_model: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(d_model, config.norm_eps)
        self.self_attention = T5Attention(config, d_model)
        self.norm2 = RMSNorm(d_model, config.norm_eps)
        self.cross_attention = T5Attention(config, d_model)
        self.norm3 = RMSNorm(d_model, config.norm_eps)
        self.ffn = FeedForward(config, d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, y: Tensor, past: Sequence[Tensor], bias: Tensor, visible: Tensor, memory: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y (B, T, D), past keys and values (B, H, P, E), bias (H, T, P + T) -> y, keys and values (B, H, P + T, E)."""
        at = self.self_attention
        q, k, v = at.project_qkv(self.norm1(y))
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)  # (B, H, P + T, E)
        # the learned bias excludes PyTorch's fused kernels, and targets are short: all scores are in memory
        z = reference_attention(q, k, v, visible=visible, bias=bias, dropout=at.dropout_p, scale=1.0)
        y = y + self.dropout(at.project_out(z, q))

        at, n = self.cross_attention, self.norm2(y)
        q = split_heads(at.q(n), at.n_heads)
        z = (attend_unprojected if q.shape[2] < at.d_head else attend_projected)(at, q, memory, mask)
        y = y + self.dropout(at.project_out(z, q))
        return y + self.dropout(self.ffn(self.norm3(y))), k, v


def attend_projected(at: T5Attention, q: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q' k'ᵀ) v' with k' and v' of all source tokens: q (B, H, T, E), memory (B, L, D) -> (B, H, T, E)."""
    k, v = (split_heads(project(memory), at.n_heads) for project in (at.k, at.v))
    return attention(q, k, v, mask=mask, dropout=at.dropout_p, scale=1.0)


def attend_unprojected(at: T5Attention, q: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
    """The same in O(T H L D) instead of O(L D²): for few tokens, as in generation.

    With m a source token, q'·(W_k m) = (W_kᵀ q')·m, and the sum of p_j W_v m_j is W_v times that of p_j m_j: each new
    token is projected, and no source token is (DeepSeek-V2, arXiv 2405.04434, §2.1.2, does so with its latents).
    """
    W_k, W_v = (project.weight.unflatten(0, (at.n_heads, -1)) for project in (at.k, at.v))  # (H, E, D)
    rows = torch.einsum("bhte,hed->bhtd", q, W_k).flatten(1, 2)[:, None]  # (B, 1, H T, D): heads are queries like T
    m = memory[:, None]  # (B, 1, L, D)
    sums = attention(rows, m, m, mask=mask, dropout=at.dropout_p, scale=1.0)[:, 0].unflatten(1, q.shape[1:3])
    return torch.einsum("bhtd,hed->bhte", sums, W_v)


class Decoder(nn.Module):
    """The decoder's layers.

    State: {"keys": [per layer (B, H, P, E)], "values": the same, "real": (B, P) bool} of P decoded tokens; those of a
    row that began anew are the last ones.
    """

    def __init__(self, config: LongT5Config, dims: ModelDims) -> None:
        super().__init__()
        self.config, self.d_model = config, dims.d_model
        n_layers = config.n_decoder_layers or dims.n_layers
        self.layers = nn.ModuleList(DecoderLayer(config, dims.d_model) for _ in range(n_layers))
        self.bias = PositionBias(config, dims.d_model, two_sided=False)
        self.final_norm = RMSNorm(dims.d_model, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, y: Tensor, *, memory: Tensor, mask: Tensor | None, state: State) -> tuple[Tensor, State]:
        """y (B, T, D), memory (B, L, D), mask (B, L) of the source -> hidden (B, T, D), state after P + T tokens."""
        B, T = y.shape[:2]
        state = self.init_state(B, device=y.device, dtype=y.dtype) if state is None else state
        real = torch.cat([state["real"], torch.ones(B, T, dtype=torch.bool, device=y.device)], dim=1)  # (B, P + T)
        bias, visible = self.positions(state["real"].shape[1], T, y.device)
        visible = visible & real[:, None, None]  # (B, 1, T, P + T)
        h = self.dropout(y)
        keys, values = [], []
        for layer, *past in zip(self.layers, state["keys"], state["values"], strict=True):
            h, k, v = layer(h, past, bias, visible, memory, mask)
            keys.append(k)
            values.append(v)
        return self.dropout(self.final_norm(h)), {"keys": keys, "values": values, "real": real}

    def positions(self, P: int, T: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Compute bias (H, T, P + T) and visibility (T, P + T) of queries P .. P + T - 1 for keys 0 .. P + T - 1."""
        K = P + T
        bias = self.bias(1 - K, T - 1).unfold(-1, K, 1).flip(1)  # (H, T, K); unfolded, the last query comes first
        return bias, torch.ones(T, K, dtype=torch.bool, device=device).tril(P)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """Empty caches."""
        rows = (batch, self.config.n_heads, 0, self.config.head_width(self.d_model))
        keys, values = ([torch.zeros(rows, device=device, dtype=dtype) for _ in self.layers] for _ in range(2))
        return {"keys": keys, "values": values, "real": torch.zeros(batch, 0, device=device, dtype=torch.bool)}

    def state_size(self, seq_len: int) -> int:
        return 2 * len(self.layers) * seq_len * self.config.n_heads * self.config.head_width(self.d_model)
