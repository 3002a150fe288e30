"""The Compressive Transformer (Rae et al. 2019, arXiv 1911.05507). One call is one segment.

Shapes: B batch, T tokens of the segment, M rows of memory, C rows of compressed memory, K = C + M + T, D d_model,
H heads, E width of a head, P position rows, c compression rate. A layer (Algorithm 1) is that of Transformer-XL over
[compressed; memory; h], distances counted over real rows of that sequence, each compressed row counting as one:

    h~  = [cm; m; h]
    a   = LayerNorm(h + RelativeAttention(h, h~)),    h' = LayerNorm(a + FF(a))
    old = the oldest rows of [m; SG(h)] that no longer fit,   cm' = [cm; SG(f_c(old))],   m' = the rest of [m; SG(h)]

and the attention-reconstruction loss (Algorithm 2), whose gradient touches f_c only:

    loss = mean (attention(h, f_c(old)) - attention(h, old))²,  all but f_c constant, summed over layers
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State, check_state
from zoo.nn import LayerNorm, Places, RelativeAttention, RelativeLayer, initialise_as_transformer_xl, param_options
from zoo.ops.memory import real_first, real_last, take_rows
from zoo.ops.relative import distances, relative_attention, sinusoids, visible_keys
from zoo_compressive.config import CompressiveConfig
from zoo_compressive.op import Compression, plan_eviction, reconstruction_loss, remember


class LearnedDistanceAttention(nn.Module):
    """A_ij = (q_i + v)·k_j + q_i·R_{i-j} + S_{i-j}: a learned vector and score per distance, v per layer.

    The table begins at distance `lowest`.
    """

    def __init__(
        self, d_model: int, n_heads: int, d_head: int, *, lowest: int, highest: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.lowest, self.highest = n_heads, dropout, lowest, highest
        width = n_heads * d_head
        self.W_q = nn.Linear(d_model, width, bias=False)
        self.W_kE = nn.Linear(d_model, width, bias=False)
        self.W_v = nn.Linear(d_model, width)
        self.W_o = nn.Linear(width, d_model)
        self.R = nn.Parameter(torch.zeros(highest - lowest + 1, n_heads, d_head))
        self.S = nn.Parameter(torch.zeros(highest - lowest + 1, n_heads))
        self.v = nn.Parameter(torch.zeros(n_heads, d_head))
        param_options(self, "R", "S", "v", weight_decay=0.0)

    def forward(self, z: Tensor, n_tokens: int, places: Tensor, visible: Tensor) -> Tensor:
        """z (B, K, D), its last `n_tokens` rows the segment; places (P,) falling distances -> (B, T, D)."""
        at = places - self.lowest
        y = relative_attention(
            self.heads(self.W_q(z[:, -n_tokens:])),
            self.heads(self.W_kE(z)),
            self.heads(self.W_v(z)),
            self.R[at],
            self.v,
            None,
            visible,
            self.dropout if self.training else 0.0,
            s=self.S[at],
        )
        return self.W_o(y.flatten(-2))

    def heads(self, x: Tensor) -> Tensor:
        """(..., H E) -> (..., H, E)"""
        return x.unflatten(-1, (self.n_heads, -1))


class CompressiveBackbone(Backbone):
    """The layers, one compression per layer, both memories, and the bookkeeping of what in them is real.

    State: {"memory": [per layer (B, M, D)], "valid": (B, M) bool, "compressed": [per layer (B, C, D)],
    "compressed_valid": (B, C) bool}. Real rows stand at the end; the others are zero and never seen.
    """

    def __init__(self, config: CompressiveConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        self.mem_len, self.c_mem_len = config.sizes(dims)
        self.two_sided = dims.mode == "bidirectional"
        D, H = dims.d_model, config.n_heads
        E, d_ff = config.d_head or D // H, config.d_ff or 4 * D
        self.learned = config.positions == "learned"
        self.layers = nn.ModuleList(
            RelativeLayer(self._attention(D, H, E), D, d_ff, pre_lnorm=config.pre_lnorm, dropout=config.dropout)
            for _ in range(dims.n_layers)
        )
        self.compress = nn.ModuleList(
            Compression(config.compression, D, config.compression_rate) for _ in range(dims.n_layers)
        )
        self.norm = LayerNorm(D) if config.final_norm else None
        initialise_as_transformer_xl(self)
        if not self.learned:
            self.u = nn.Parameter(0.02 * torch.randn(H, E))
            self.v = nn.Parameter(0.02 * torch.randn(H, E))
            param_options(self, "u", "v", weight_decay=0.0)
        self.dropout = nn.Dropout(config.dropout)

    def _attention(self, d_model: int, n_heads: int, d_head: int) -> nn.Module:
        dropout = self.config.attn_dropout
        if not self.learned:
            return RelativeAttention(d_model, n_heads, d_head, dropout=dropout)
        longest = self.dims.max_len - 1
        lowest, highest = -longest if self.two_sided else 0, self.mem_len + self.c_mem_len + longest
        return LearnedDistanceAttention(d_model, n_heads, d_head, lowest=lowest, highest=highest, dropout=dropout)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """One segment. Real tokens are moved together, so distances count real tokens only and pads change nothing."""
        B, T, _ = x.shape
        if self.learned and self.dims.max_len < T:
            raise ValueError(f"a segment of {T} tokens, but learned distances for segments of {self.dims.max_len}")
        memories, m_real, compressed, c_real = self._carried(state, x)
        real = order = None
        if mask is not None:
            order = real_first(mask)  # (B, T)
            x = take_rows(x.masked_fill(~mask[..., None], 0.0), order)
            real = mask.gather(1, order)
        n_new = x.new_full((B,), T, dtype=torch.long) if real is None else real.sum(1)

        # while the memory fills, pads stand between the two memories; read, they stand before both
        past_real = torch.cat([c_real, m_real], dim=1)  # (B, C + M)
        past_row = real_last(past_real)[:, : 0 if state is None else None]
        past_real = past_real.gather(1, past_row)
        here = torch.ones(B, T, dtype=torch.bool, device=x.device) if real is None else real
        K = past_real.shape[1] + T
        visible = visible_keys(
            T, K, two_sided=self.two_sided, valid=torch.cat([past_real, here], dim=1), device=x.device
        ).unsqueeze(1)  # (B, 1, T, K)
        places = self._places(T, K, x)
        sizes = (self.mem_len, self.c_mem_len, self.config.compression_rate)
        plan = plan_eviction(m_real, c_real, n_new, T, sizes)

        h, written, loss = x, [], x.new_zeros(())
        layers = cast("list[RelativeLayer]", list(self.layers))
        for layer, f_c, m, cm in zip(layers, self.compress, memories, compressed, strict=True):
            m, cm = m.to(h.dtype), cm.to(h.dtype)
            past = take_rows(torch.cat([cm, m], dim=1), past_row)
            new = remember(f_c, m, cm, h, plan)
            if new.old.shape[1]:
                loss = loss + reconstruction_loss(layer, h.detach(), new.old, new.new, plan, real)
            else:  # nothing can have left yet; that f_c had no part is a gradient of zero, not a missing one (DDP)
                loss = loss + sum(0.0 * parameter.sum() for parameter in f_c.parameters())
            written.append(new)
            h = layer(torch.cat([past, h], dim=1), T, places, visible)
        if self.norm is not None:
            h = self.norm(h)
        h = self.dropout(h)
        if order is not None:
            h = take_rows(h, order.argsort(dim=1))
        carried = {
            "memory": [new.memory for new in written],
            "valid": plan.real,
            "compressed": [new.compressed for new in written],
            "compressed_valid": plan.c_real,
        }
        return Output(h, carried, {"reconstruction": self.config.reconstruction_weight * loss})

    def _places(self, n_tokens: int, n_keys: int, x: Tensor) -> Places | Tensor:
        """What the layers' attention wants to know of positions."""
        distance = distances(n_tokens, n_keys, two_sided=self.two_sided, device=x.device)  # (P,)
        if self.learned:
            return distance
        R = sinusoids(distance, x.shape[-1], self.config.clamp_len).to(x.dtype)  # (P, D)
        return Places(self.dropout(R), self.u, self.v)

    def _carried(self, state: State, x: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor], Tensor]:
        """The parts of a state; of none, no memory and an empty compressed one. ValueError for another backbone's."""
        B, D, n = x.shape[0], x.shape[-1], len(self.layers)
        if state is None:
            empty = torch.zeros(B, self.c_mem_len, dtype=torch.bool, device=x.device)
            return [x.new_zeros(B, 0, D)] * n, empty[:, :0], [x.new_zeros(B, self.c_mem_len, D)] * n, empty
        check_state(state, self.init_state(B, device="meta", dtype=x.dtype))
        return state["memory"], state["valid"], state["compressed"], state["compressed_valid"]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """Empty memories: rows of zeros that no token sees."""

        def zeros(rows: int) -> list[Tensor]:
            return [torch.zeros(batch, rows, self.dims.d_model, device=device, dtype=dtype) for _ in self.layers]

        return {
            "memory": zeros(self.mem_len),
            "valid": torch.zeros(batch, self.mem_len, device=device, dtype=torch.bool),
            "compressed": zeros(self.c_mem_len),
            "compressed_valid": torch.zeros(batch, self.c_mem_len, device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        """mem_len + c_mem_len rows per layer, whatever the length."""
        return len(self.layers) * (self.mem_len + self.c_mem_len) * self.dims.d_model
