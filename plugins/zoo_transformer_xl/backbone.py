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

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import RelativeAttention, RelativeLayer, RelativePositions, init_transformer_xl, param_options
from zoo.ops.memory import kept_rows, take_rows
from zoo.ops.relative import distances, sinusoids, visible_keys
from zoo_transformer_xl.config import TransformerXLConfig


class TransformerXLBackbone(Backbone):
    """Transformer-XL layers, each with a memory of the hidden states that entered it in earlier segments.

    State: {"memory": [per layer (B, mem_len, D)], "valid": (B, mem_len) bool}. Real rows are at the end, the newest
    next to the segment; the other rows are zero and invisible.
    """

    def __init__(self, config: TransformerXLConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        self.mem_len = dims.max_len if config.mem_len is None else config.mem_len
        self.two_sided = dims.mode == "bidirectional"
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

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """One segment, whose real tokens stand together, so that distances count no pads."""
        B, T, D = x.shape
        if state is None:
            memories, remembered = [x[:, :0]] * len(self.layers), x.new_zeros(B, 0, dtype=torch.bool)
        else:
            memories, remembered = state["memory"], state["valid"]
        here = x.new_ones(B, T, dtype=torch.bool) if mask is None else mask
        valid = torch.cat([remembered, here], dim=1)  # (B, K)
        M, K = remembered.shape[1], valid.shape[1]
        row, kept = kept_rows(valid, here.sum(dim=1), M, self.mem_len)
        visible = visible_keys(
            T,
            K,
            two_sided=self.two_sided,
            window=self.mem_len if self.config.same_length else None,
            valid=None if state is None and mask is None else valid,
            device=x.device,
        ).unsqueeze(-3)  # (1, T, K) or (B, 1, T, K)
        distance = distances(T, K, two_sided=self.two_sided, device=x.device)  # (P,)
        R = self.dropout(sinusoids(distance, D, self.config.clamp_len).to(x.dtype))  # (P, D)
        positions = RelativePositions(R, self.u, self.v)

        h, written = x, []
        for layer, memory in zip(self.layers, memories, strict=True):
            context = torch.cat([memory.to(h.dtype), h], dim=1)  # (B, K, D)
            written.append(take_rows(context.detach(), row).masked_fill(~kept[..., None], 0.0))
            h = layer(context, T, positions, visible)
        return Output(self.dropout(h), {"memory": written, "valid": kept})

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """An empty memory: rows of zeros that no token sees."""
        rows = (batch, self.mem_len, self.dims.d_model)
        return {
            "memory": [torch.zeros(rows, device=device, dtype=dtype) for _ in self.layers],
            "valid": torch.zeros(rows[:2], device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        """mem_len rows per layer, whatever the length."""
        return len(self.layers) * self.mem_len * self.dims.d_model
