"""The Transformers that RMT's memory tokens pass through, as the authors published them (`config.body`).

Shapes: B batch, R rows of a segment, memory included, M rows of the Transformer-XL cache, K = M + R, D d_model, H
heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from zoo.ops.memory import kept_rows, real_last, take_rows
from zoo.ops.relative import distances, sinusoids
from zoo_rmt.config import RMTConfig
from zoo_rmt.op import segment_mask


class Body(nn.Module):
    """A Transformer over the rows of a segment: body(h, real, state) -> h, the next cache if it keeps one, and what has
    entered each layer.

    h (B, R, D), of which real (B, R), None = all, come first; `max_rows` is the largest R.
    """

    extends: bool = False
    """Whether `extend` computes a token from those before it."""

    def __init__(self, config: RMTConfig, dims: ModelDims, max_rows: int) -> None:
        super().__init__()
        self.config, self.D, self.H = config, dims.d_model, config.n_heads
        self.E, self.d_ff = config.d_head or self.D // self.H, config.d_ff or 4 * self.D
        self.layers = nn.ModuleList(self.build_layer() for _ in range(dims.n_layers))
        self.dropout = nn.Dropout(config.dropout)

    @property
    def n_cached(self) -> int:
        """Tensors (B, r, D) that are carried of the r tokens of the running segment (`zoo.nn.SegmentBackbone`)."""
        return 1

    def extend(
        self, h: Tensor, state: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute the next token of the running segment, and what has entered each layer of it.

        h (B, 1, D); segment: of each layer what has entered it (B, r, D), running (B, r) bool. The n read rows, which
        see no token, are computed along with it.
        """
        raise NotImplementedError

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

    extends = True

    def __init__(self, config: RMTConfig, dims: ModelDims, max_rows: int) -> None:
        super().__init__(config, dims, max_rows)
        self.u, self.v = (nn.Parameter(0.02 * torch.randn(self.H, self.E)) for _ in range(2))
        param_options(self, "u", "v", weight_decay=0.0)

    @property
    def n_cached(self) -> int:
        return len(self.layers)

    def build_layer(self) -> nn.Module:
        c = self.config
        attention = RelativeAttention(self.D, self.H, self.E, dropout=c.attn_dropout)
        return RelativeLayer(attention, self.D, self.d_ff, pre_lnorm=c.pre_lnorm, dropout=c.dropout)

    def forward(self, h: Tensor, real: Tensor | None, state: State) -> tuple[Tensor, dict[str, Any], list[Tensor]]:
        (B, R, D), n, mem_len = h.shape, self.config.num_mem_tokens, self.config.mem_len
        cache, cached = self.unpack_cache(state, h)
        M = cached.shape[1]
        # memory rows see later memory rows, at negative distances; a single row has no later one
        distance = distances(R, M + R, two_sided=n > 1, device=h.device)
        positions = RelativePositions(self.dropout(sinusoids(distance, D).to(h.dtype)), self.u, self.v)
        visible = self.segment_mask(h, real, cached)[:, None]  # (1 or B, 1, R, K)
        here = torch.ones(B, R, dtype=torch.bool, device=h.device) if real is None else real
        here = here & (here.sum(1, keepdim=True) > 2 * n)  # a segment without a token leaves the cache as it was
        row, kept = kept_rows(torch.cat([cached, here], dim=1), here.sum(1), M, mem_len)
        written, entered = [], []
        for layer, old in zip(self.layers, cache, strict=True):
            entered.append(h)
            context = torch.cat([old.to(h.dtype), h], dim=1)  # (B, K, D)
            written.append(take_rows(context.detach(), row).masked_fill(~kept[..., None], 0.0))
            h = layer(context, R, positions, visible)
        return self.dropout(h), {"cache": written, "cache_valid": kept} if mem_len else {}, entered

    def extend(
        self, h: Tensor, state: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        cache, cached = self.unpack_cache(state, h)
        read = state["memory"].to(h.dtype)  # (B, n, D)
        n, M = read.shape[1], cached.shape[1]
        valid = torch.cat([cached, running.new_ones(len(h), n), running, running.new_ones(len(h), 1)], dim=1)  # (B, K)
        order = real_last(valid)  # rows that are not real stand before the others, so that distances do not count them
        K = valid.shape[1]
        R = sinusoids(distances(n, K, two_sided=True, device=h.device), self.D).to(h.dtype)  # K - 1 … 1 - n
        of_token, of_read = (RelativePositions(self.dropout(part), self.u, self.v) for part in (R[:K], R[K - M - n :]))
        seen = valid.gather(1, order)[:, None, None]  # (B, 1, 1, K)
        seen_by_read = F.pad(cached & self.config.read_mem_from_cache, (0, n), value=True)[:, None, None]

        entered = []
        for layer, old, past in zip(self.layers, cache, segment, strict=True):
            entered.append(h)
            before = torch.cat([old.to(h.dtype), read], dim=1)  # (B, M + n, D)
            context = torch.cat([before, past.to(h.dtype), h], dim=1)  # (B, K, D)
            h = layer(take_rows(context, order), 1, of_token, seen)
            read = layer(before, n, of_read, seen_by_read)
        return self.dropout(h), entered

    def unpack_cache(self, state: State, h: Tensor) -> tuple[list[Tensor], Tensor]:
        """Rows of the cache of each layer (B, M, D), and which are real (B, M); M = 0 without a cache."""
        none = h.new_zeros(len(h), 0, dtype=torch.bool)
        return state.get("cache", [h[:, :0]] * len(self.layers)), state.get("cache_valid", none)


class SelfAttention(MultiHeadAttention):
    """Softmax attention whose `mask` is a pattern, (1 or B, 1 or R, R) bool; None = every row sees every row."""

    def reset_parameters(self) -> None:
        """Leave the initial values to the body."""

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        return attention(q, k, v, visible=None if mask is None else mask[:, None], dropout=self.dropout_p), None


class TransformerBody(Body):
    """A post-norm Transformer (the paper's without cache), with sinusoids counted from the last real row.

    The next token moves that row, and with it the positions of all others: no `extend`, the segment is read again.
    """

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

    def forward(self, h: Tensor, real: Tensor | None, state: State) -> tuple[Tensor, dict[str, Any], list[Tensor]]:
        h, visible = self.add_positions(h, real)
        entered = []
        for layer in self.layers:
            entered.append(h)
            h, _ = layer(h, mask=visible)
        return h, {}, entered if self.extends else []

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
    extends = True

    @property
    def n_cached(self) -> int:
        return len(self.layers) + 1  # the first layer's input has positions, the tokens have none

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

    def forward(self, h: Tensor, real: Tensor | None, state: State) -> tuple[Tensor, dict[str, Any], list[Tensor]]:
        h, cache, entered = super().forward(h, real, state)
        return self.norm(h), cache, entered

    def extend(
        self, h: Tensor, state: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        read, causal = self.add_positions(state["memory"].to(h.dtype), None)
        n = read.shape[1]
        h = self.dropout(h + self.positions[n + running.sum(1, keepdim=True)].to(h.dtype))
        visible = F.pad(F.pad(running, (n, 0), value=True), (0, 1), value=True)[:, None]  # (B, 1, n + r + 1)
        entered = []
        for block, past in zip(self.layers, segment, strict=True):
            layer = cast("Block", block)
            entered.append(h)
            z = layer.norm1(torch.cat([read, past.to(h.dtype), h], dim=1), None)
            y = cast("SelfAttention", layer.mixer).attend_from_last(z, visible=visible)
            h = layer.apply_mlp(layer.add_residual(h, y, layer.norm1, None), None)
            read, _ = layer(read, mask=causal)
        return self.norm(h), entered


BODIES: dict[str, type[Body]] = {
    "transformer_xl": TransformerXLBody,
    "transformer": TransformerBody,
    "gpt2": GPT2Body,
    "bert": BertBody,
}
