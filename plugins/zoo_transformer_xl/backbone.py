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

from zoo import Backbone, Output, Shape, State
from zoo.nn import MLP, LayerNorm, mark
from zoo_transformer_xl.config import TransformerXLConfig
from zoo_transformer_xl.op import distances, kept_rows, relative_attention, sinusoids, visible_keys


class RelativeLayer(nn.Module):
    """One layer. `context` is [memory; h]; the gradient is stopped where the memory is made, not here."""

    def __init__(self, config: TransformerXLConfig, d_model: int) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.d_head = config.d_head or d_model // config.n_heads
        self.pre_lnorm = config.pre_lnorm
        self.attn_dropout = config.attn_dropout
        width = self.n_heads * self.d_head
        self.W_q = nn.Linear(d_model, width, bias=False)
        self.W_kE = nn.Linear(d_model, width, bias=False)
        self.W_v = nn.Linear(d_model, width, bias=False)
        self.W_kR = nn.Linear(d_model, width, bias=False)
        self.W_o = nn.Linear(width, d_model, bias=False)
        self.norm_attn = LayerNorm(d_model)
        self.ff = MLP(d_model, config.d_ff or 4 * d_model, activation="relu", dropout=config.dropout)
        self.norm_ff = LayerNorm(d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, context: Tensor, n_tokens: int, R: Tensor, u: Tensor, v: Tensor, visible: Tensor) -> Tensor:
        """context (B, K, D), R (P, D), u and v (H, E), visible (B|1, 1, T, K) -> (B, T, D)."""
        h = context[:, -n_tokens:]
        z = self.norm_attn(context) if self.pre_lnorm else context
        y = relative_attention(
            self._heads(self.W_q(z[:, -n_tokens:])),
            self._heads(self.W_kE(z)),
            self._heads(self.W_v(z)),
            self._heads(self.W_kR(R)),
            u,
            v,
            visible,
            self.attn_dropout if self.training else 0.0,
        )
        a = h + self.dropout(self.W_o(y.flatten(-2)))
        if self.pre_lnorm:
            return a + self.dropout(self.ff(self.norm_ff(a)))
        a = self.norm_attn(a)
        return self.norm_ff(a + self.dropout(self.ff(a)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.d_head))


class TransformerXLBackbone(Backbone):
    """The layers, the memory, and the bookkeeping of what in it is real.

    State: {"memory": [per layer (B, mem_len, D)], "valid": (B, mem_len) bool}. Real rows stand at the end, so the
    newest is next to the segment; rows that nothing was written to are zero and never seen.
    """

    def __init__(self, config: TransformerXLConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        config.check(shape)
        self.mem_len = shape.max_len if config.mem_len is None else config.mem_len
        self.two_sided = shape.mode == "bidirectional"
        self.layers = nn.ModuleList(RelativeLayer(config, shape.d_model) for _ in range(shape.n_layers))
        d_head = config.d_head or shape.d_model // config.n_heads
        self.u = nn.Parameter(torch.empty(config.n_heads, d_head))
        self.v = nn.Parameter(torch.empty(config.n_heads, d_head))
        mark(self, "u", "v", weight_decay=0.0)
        self.dropout = nn.Dropout(config.dropout)
        self._initialise()

    def _initialise(self) -> None:
        """As the reference's train.py: all weights N(0, 0.02²), norms N(1, 0.02²), biases zero."""
        for parameter in (self.u, self.v):
            nn.init.normal_(parameter, 0.0, 0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, LayerNorm):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """One segment. Real tokens are moved together, so distances count real tokens only and pads change nothing."""
        B, T, _ = x.shape
        order = None
        if mask is not None:
            order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # (B, T), real tokens first
            x = _take_rows(x.masked_fill(~mask[..., None], 0.0), order)
            mask = mask.gather(1, order)
        if state is None:
            memories = [x.new_zeros(B, 0, x.shape[-1])] * len(self.layers)
            remembered = torch.zeros(B, 0, dtype=torch.bool, device=x.device)
        else:
            memories, remembered = state["memory"], state["valid"]
            if remembered.shape[0] != B:
                raise ValueError(f"a state of {remembered.shape[0]} rows for a batch of {B}")
        M = remembered.shape[1]
        K = M + T

        valid = torch.cat([remembered, torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask], dim=1)
        n_new = valid[:, M:].sum(dim=1)  # (B,)
        row, kept = kept_rows(valid, n_new, M, self.mem_len)
        visible = self._visible(None if state is None and mask is None else valid, T, K, x.device)
        R = sinusoids(
            distances(T, K, two_sided=self.two_sided, device=x.device), x.shape[-1], self.config.clamp_len
        )  # (P, D)
        R = self.dropout(R.to(x.dtype))

        h, written = x, []
        for layer, memory in zip(self.layers, memories, strict=True):
            context = torch.cat([memory.to(h.dtype), h], dim=1)  # (B, K, D)
            written.append(_take_rows(context.detach(), row).masked_fill(~kept[..., None], 0.0))
            h = layer(context, T, R, self.u, self.v, visible)
        h = self.dropout(h)
        if order is not None:
            h = _take_rows(h, order.argsort(dim=1))
        return Output(h, {"memory": written, "valid": kept}, {})

    def _visible(self, valid: Tensor | None, T: int, K: int, device: torch.device) -> Tensor:
        """(B|1, 1, T, K). A query always sees itself, so that no softmax is empty; no real token ever sees a pad."""
        window = self.mem_len if self.config.same_length else None
        seen = visible_keys(T, K, two_sided=self.two_sided, window=window, device=device)
        if valid is None:
            return seen[None, None]
        itself = torch.ones(T, K, dtype=torch.bool, device=device).tril(K - T).triu(K - T)
        return (seen & valid[:, None, :] | itself)[:, None]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """An empty memory: rows of zeros that no token sees."""
        rows = (batch, self.mem_len, self.shape.d_model)
        return {
            "memory": [torch.zeros(rows, device=device, dtype=dtype) for _ in self.layers],
            "valid": torch.zeros(rows[:2], device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        """mem_len rows per layer, whatever the length."""
        return len(self.layers) * self.mem_len * self.shape.d_model


def _take_rows(x: Tensor, row: Tensor) -> Tensor:
    """x (B, L, D) at row (B, N) -> (B, N, D)."""
    return x.gather(1, row[..., None].expand(-1, -1, x.shape[-1]))
