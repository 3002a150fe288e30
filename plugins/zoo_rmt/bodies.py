"""The Transformers that RMT's memory tokens pass through, as the authors published them (`config.body`).

Shapes: B batch, R rows of a segment, memory included, M rows of the Transformer-XL cache, K = M + R, D d_model, H
heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo import ModelDims, State
from zoo.nn import (
    MLP,
    Block,
    LayerNorm,
    MultiHeadAttention,
    RelativeAttention,
    RelativeLayer,
    RelativePositions,
    init_normal,
    init_transformer_xl,
    param_options,
)
from zoo.ops.attention import attention
from zoo.ops.memory import kept_rows, take_rows
from zoo.ops.relative import distances, sinusoids
from zoo_rmt.config import RMTConfig
from zoo_rmt.op import segment_mask


class Body(nn.Module):
    """A Transformer over the rows of a segment: body(h, real, state) -> h and, if it keeps a cache, the next one.

    h (B, R, D), of which real (B, R), None = all, come first; `max_rows` is the largest R.
    """

    def __init__(self, config: RMTConfig, dims: ModelDims, max_rows: int) -> None:
        super().__init__()
        self.config, self.D, self.H = config, dims.d_model, config.n_heads
        self.E, self.d_ff = config.d_head or self.D // self.H, config.d_ff or 4 * self.D
        self.layers = nn.ModuleList(self.build_layer() for _ in range(dims.n_layers))
        self.dropout = nn.Dropout(config.dropout)

    def build_layer(self) -> nn.Module:
        """Build one layer."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Initialise linear maps and norms as Transformer-XL does."""
        init_transformer_xl(self)

    def segment_mask(self, h: Tensor, real: Tensor | None, cached: Tensor | None = None) -> Tensor:
        """Compute the paper's mask, (1 or B, R, M + R); cached (B, M) are the real rows of the cache."""
        n, flag = self.config.num_mem_tokens, self.config.read_mem_from_cache
        T, n_tokens = h.shape[1] - 2 * n, None if real is None else real.sum(1) - 2 * n
        return segment_mask(n, T, n_tokens=n_tokens, cached=cached, read_mem_from_cache=flag, device=h.device)


class TransformerXLBody(Body):
    """Transformer-XL (the paper's model): relative positions, and with mem_len > 0 a cache of rows per layer."""

    def __init__(self, config: RMTConfig, dims: ModelDims, max_rows: int) -> None:
        super().__init__(config, dims, max_rows)
        self.u, self.v = (nn.Parameter(0.02 * torch.randn(self.H, self.E)) for _ in range(2))
        param_options(self, "u", "v", weight_decay=0.0)

    def build_layer(self) -> nn.Module:
        c = self.config
        attention = RelativeAttention(self.D, self.H, self.E, dropout=c.attn_dropout)
        return RelativeLayer(attention, self.D, self.d_ff, pre_lnorm=c.pre_lnorm, dropout=c.dropout)

    def forward(self, h: Tensor, real: Tensor | None, state: State) -> tuple[Tensor, dict[str, Any]]:
        (B, R, D), n, mem_len = h.shape, self.config.num_mem_tokens, self.config.mem_len
        cached = state.get("cache_valid", h.new_zeros(B, 0, dtype=torch.bool))  # (B, M)
        cache = state.get("cache", [h[:, :0]] * len(self.layers))
        M = cached.shape[1]
        # memory rows see later memory rows, at negative distances; a single row has no later one
        distance = distances(R, M + R, two_sided=n > 1, device=h.device)
        positions = RelativePositions(self.dropout(sinusoids(distance, D).to(h.dtype)), self.u, self.v)
        visible = self.segment_mask(h, real, cached)[:, None]  # (1 or B, 1, R, K)
        here = torch.ones(B, R, dtype=torch.bool, device=h.device) if real is None else real
        here = here & (here.sum(1, keepdim=True) > 2 * n)  # a segment without a token leaves the cache as it was
        row, kept = kept_rows(torch.cat([cached, here], dim=1), here.sum(1), M, mem_len)
        written = []
        for layer, old in zip(self.layers, cache, strict=True):
            context = torch.cat([old.to(h.dtype), h], dim=1)  # (B, K, D)
            written.append(take_rows(context.detach(), row).masked_fill(~kept[..., None], 0.0))
            h = layer(context, R, positions, visible)
        return self.dropout(h), {"cache": written, "cache_valid": kept} if mem_len else {}


class SelfAttention(MultiHeadAttention):
    """Softmax attention whose `mask` is a pattern, (1 or B, 1 or R, R) bool; None = every row sees every row."""

    def reset_parameters(self) -> None:
        """Leave the initial values to the body."""

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        return attention(q, k, v, visible=None if mask is None else mask[:, None], dropout=self.dropout_p), None


class TransformerBody(Body):
    """A post-norm Transformer (the paper's without cache), with sinusoids counted from the last real row."""

    prenorm, activation, bias, norm_eps = False, "relu", False, 1e-5

    def build_layer(self) -> nn.Module:
        c, D = self.config, self.D
        return Block(
            SelfAttention(D, self.H, d_qkv=self.H * self.E, bias=self.bias, fused_qkv=True, dropout=c.attn_dropout),
            LayerNorm(D, eps=self.norm_eps),
            mlp=MLP(D, self.d_ff, activation=self.activation, dropout=c.dropout),
            norm2=LayerNorm(D, eps=self.norm_eps),
            prenorm=self.prenorm or c.pre_lnorm,
            dropout=c.dropout,
        )

    def forward(self, h: Tensor, real: Tensor | None, state: State) -> tuple[Tensor, dict[str, Any]]:
        h, visible = self.add_positions(h, real)
        for layer in self.layers:
            h, _ = layer(h, mask=visible)
        return h, {}

    def add_positions(self, h: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Add positions to h (B, R, D), and compute the attention pattern, (1 or B, 1 or R, R) bool, None = no mask."""
        i = torch.arange(h.shape[1], device=h.device)
        last = i[-1:] if real is None else real.sum(1) - 1  # (1 or B,)
        table = self.dropout(sinusoids(i, self.D).to(h.dtype))
        return h + table[(last[:, None] - i).clamp_min(0)], self.segment_mask(h, real)


class LearnedPositionsBody(TransformerBody):
    """A Transformer with learned positions and one more norm: the base of the authors' two ports."""

    def __init__(self, config: RMTConfig, dims: ModelDims, max_rows: int) -> None:
        super().__init__(config, dims, max_rows)
        self.positions = nn.Parameter(0.02 * torch.randn(max_rows, self.D))
        self.norm = LayerNorm(self.D, eps=self.norm_eps)
        param_options(self, "positions", weight_decay=0.0)

    def reset_parameters(self) -> None:
        """Draw the weights of linear maps from N(0, 0.02²)."""
        init_normal(*(part for part in self.modules() if isinstance(part, nn.Linear)))


class BertBody(LearnedPositionsBody):
    """BERT: the norm is below the layers, and every row sees every real row."""

    activation, bias, norm_eps = "gelu", True, 1e-12

    def add_positions(self, h: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        h = self.dropout(self.norm(h + self.positions[: h.shape[1]].to(h.dtype)))
        return h, None if real is None else real[:, None]


class GPT2Body(LearnedPositionsBody):
    """GPT-2: the norm is above the layers, inside the recurrence; a plain causal mask over all rows."""

    prenorm, activation, bias = True, "gelu_tanh", True

    def reset_parameters(self) -> None:
        """As in the base, but with smaller weights in the maps that write to the residual stream."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.endswith(("mixer.out.weight", "mlp.linear2.weight")):
                nn.init.normal_(parameter, 0.0, 0.02 * (2 * len(self.layers)) ** -0.5)

    def add_positions(self, h: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        R = h.shape[1]
        causal = torch.ones(1, R, R, dtype=torch.bool, device=h.device).tril()
        return self.dropout(h + self.positions[:R].to(h.dtype)), causal

    def forward(self, h: Tensor, real: Tensor | None, state: State) -> tuple[Tensor, dict[str, Any]]:
        h, cache = super().forward(h, real, state)
        return self.norm(h), cache


BODIES: dict[str, type[Body]] = {
    "transformer_xl": TransformerXLBody,
    "transformer": TransformerBody,
    "gpt2": GPT2Body,
    "bert": BertBody,
}
