"""Transformer-XL (Dai et al. 2019, arXiv 1901.02860). One call is one segment.

Shapes: B batch, T tokens of the segment, M rows of memory, K = M + T, D d_model, H heads, E width of a head, P position
rows. With SG the stop-gradient, layer n = 1..N computes (eqs. of §3.2 and §3.3, u and v shared by all layers)

    h~^{n-1} = [SG(m^{n-1}); h^{n-1}]
    q, k, v  = h^{n-1} W_q, h~^{n-1} W_{k,E}, h~^{n-1} W_v
    A_{ij}   = q_i·k_j + q_i·W_{k,R} R_{i-j} + u·k_j + v·W_{k,R} R_{i-j}
    a        = LayerNorm(h^{n-1} + W_o softmax(A / sqrt(E)) v)
    h^n      = LayerNorm(a + FF(a))

and the next memory of layer n is the last M rows of [m^{n-1}; h^{n-1}], un-normalised.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import ModelDims, Output, State
from zoo.nn import (
    RelativeAttention,
    RelativeLayer,
    RelativePositions,
    SegmentBackbone,
    init_transformer_xl,
    param_options,
)
from zoo.ops.memory import kept_rows, real_last, take_rows
from zoo.ops.relative import distances, sinusoids, visible_keys
from zoo_transformer_xl.config import TransformerXLConfig


class TransformerXLBackbone(SegmentBackbone):
    """Transformer-XL layers, each with a memory of the hidden states that entered it in earlier segments.

    Memory: {"memory": [per layer (B, mem_len, D)], "valid": (B, mem_len) bool}. Real rows are at the end, the newest
    next to the segment; the other rows are zero and invisible. Of a running segment the same is carried, per layer.
    """

    def __init__(self, config: TransformerXLConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        self.mem_len = dims.max_len if config.mem_len is None else config.mem_len
        self.two_sided = dims.mode == "bidirectional"
        self.n_cached = dims.n_layers
        D, H = dims.d_model, config.n_heads
        E, d_ff = config.d_head or D // H, config.d_ff or 4 * D
        self.layers = nn.ModuleList(
            RelativeLayer(
                RelativeAttention(D, H, E, dropout=config.attn_dropout),
                D,
                d_ff,
                pre_lnorm=config.pre_lnorm,
                dropout=config.dropout,
            )
            for _ in range(dims.n_layers)
        )
        self.u, self.v = (nn.Parameter(nn.init.normal_(torch.empty(H, E), std=0.02)) for _ in range(2))
        param_options(self, "u", "v", weight_decay=0.0)
        self.dropout = nn.Dropout(config.dropout)
        init_transformer_xl(self)

    def forward_segment(
        self, x: Tensor, *, mask: Tensor | None = None, memory: State = None
    ) -> tuple[Output, list[Tensor]]:
        """One segment, whose real tokens stand together, so that distances count no pads."""
        B, T, _ = x.shape
        if memory is None:
            memories, remembered = [x[:, :0]] * len(self.layers), x.new_zeros(B, 0, dtype=torch.bool)
        else:
            memories, remembered = memory["memory"], memory["valid"]
        here = x.new_ones(B, T, dtype=torch.bool) if mask is None else mask
        valid = torch.cat([remembered, here], dim=1)  # (B, K)
        M = remembered.shape[1]
        row, kept = kept_rows(valid, here.sum(dim=1), M, self.mem_len)
        visible = self.visible_keys(T, M + T, x, None if memory is None and mask is None else valid)
        positions = self.positions(T, M + T, x)

        h, written, entered = x, [], []
        for layer, rows in zip(self.layers, memories, strict=True):
            entered.append(h)
            context = torch.cat([rows.to(h.dtype), h], dim=1)  # (B, K, D)
            written.append(take_rows(context.detach(), row).masked_fill(~kept[..., None], 0.0))
            h = layer(context, T, positions, visible)
        return Output(self.dropout(h), {"memory": written, "valid": kept}), entered

    def extend(
        self, x: Tensor, memory: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The next token, x (B, 1, D), from what has entered each layer before it: memory, and the running segment."""
        valid = F.pad(torch.cat([memory["valid"], running], dim=1), (0, 1), value=True)  # (B, K)
        order = real_last(valid)  # rows that are not real stand before both, so that distances do not count them
        K = valid.shape[1]
        visible, positions = self.visible_keys(1, K, x, valid.gather(1, order)), self.positions(1, K, x)

        h, entered = x, []
        for layer, *past in zip(self.layers, memory["memory"], segment, strict=True):
            entered.append(h)
            context = torch.cat([*(rows.to(h.dtype) for rows in past), h], dim=1)  # (B, K, D)
            h = layer(take_rows(context, order), 1, positions, visible)
        return self.dropout(h), entered

    def visible_keys(self, n_tokens: int, n_keys: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Which keys the last tokens see, (1, T, K) or (B, 1, T, K)."""
        window = self.mem_len if self.config.same_length else None
        seen = visible_keys(n_tokens, n_keys, two_sided=self.two_sided, window=window, valid=valid, device=x.device)
        return seen.unsqueeze(-3)

    def positions(self, n_tokens: int, n_keys: int, x: Tensor) -> RelativePositions:
        """The position vectors of all distances between the last tokens and the keys."""
        distance = distances(n_tokens, n_keys, two_sided=self.two_sided, device=x.device)  # (P,)
        R = self.dropout(sinusoids(distance, x.shape[-1], self.config.clamp_len).to(x.dtype))  # (P, D)
        return RelativePositions(R, self.u, self.v)

    def init_memory(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """An empty memory: rows of zeros that no token sees."""
        rows = (batch, self.mem_len, self.dims.d_model)
        return {
            "memory": [torch.zeros(rows, device=device, dtype=dtype) for _ in self.layers],
            "valid": torch.zeros(rows[:2], device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        """mem_len rows per layer, whatever the length; with the running segment of steps up to T more."""
        return len(self.layers) * self.mem_len * self.dims.d_model
