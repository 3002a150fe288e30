"""The Compressive Transformer (Rae et al. 2019, arXiv 1911.05507). One call is one segment.

Shapes: B batch, T tokens of the segment, M rows of memory, C rows of compressed memory, K = C + M + T, D d_model,
H heads, E width of a head, P position rows, c compression rate. A layer (Algorithm 1) is that of Transformer-XL over
[compressed; memory; h], distances counted over real rows of that sequence, each compressed row counting as one:

    h~  = [cm; m; h]
    a   = LayerNorm(h + RelativeAttention(h, h~)),    h' = LayerNorm(a + FF(a))
    old = the oldest rows of [m; SG(h)] that no longer fit,   cm' = [cm; SG(f_c(old))],   m' = the rest of [m; SG(h)]

and the attention-reconstruction loss (Algorithm 2), whose gradient reaches f_c only:

    loss = mean (attention(h, f_c(old)) - attention(h, old))²,  all but f_c constant, summed over layers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import ModelDims, Output, State
from zoo.nn import (
    LayerNorm,
    RelativeAttention,
    RelativeLayer,
    RelativePositions,
    SegmentBackbone,
    init_transformer_xl,
    param_options,
)
from zoo.ops.memory import real_last, take_rows
from zoo.ops.relative import distances, relative_attention, sinusoids, visible_keys
from zoo_compressive.config import CompressiveConfig
from zoo_compressive.op import Compression, plan_eviction, reconstruction_loss, update_memories


class LearnedDistanceAttention(nn.Module):
    """Attention with a learned vector and score for each distance, lowest .. highest.

    A_ij = (q_i + v)·k_j + q_i·R_{i-j} + S_{i-j}          R, S and v per layer
    """

    def __init__(
        self, d_model: int, n_heads: int, d_head: int, *, lowest: int, highest: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.lowest, self.highest = n_heads, dropout, lowest, highest
        width, n_distances = n_heads * d_head, highest - lowest + 1
        self.W_q = nn.Linear(d_model, width, bias=False)
        self.W_kE = nn.Linear(d_model, width, bias=False)
        self.W_v = nn.Linear(d_model, width)
        self.W_o = nn.Linear(width, d_model)
        self.R = nn.Parameter(torch.zeros(n_distances, n_heads, d_head))
        self.S = nn.Parameter(torch.zeros(n_distances, n_heads))
        self.v = nn.Parameter(torch.zeros(n_heads, d_head))
        param_options(self, "R", "S", "v", weight_decay=0.0)

    def forward(self, z: Tensor, n_tokens: int, distance: Tensor, visible: Tensor) -> Tensor:
        """z (B, K, D), its last `n_tokens` rows the segment; distance (P,) falling -> (B, T, D)."""
        q, k, v = self.W_q(z[:, -n_tokens:]), self.W_kE(z), self.W_v(z)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)
        R, S = self.R[distance - self.lowest], self.S[distance - self.lowest]
        dropout = self.dropout if self.training else 0.0
        return self.W_o(relative_attention(q, k, v, R, self.v, None, visible, dropout, s=S).flatten(-2))

    def heads(self, x: Tensor) -> Tensor:
        """(..., H E) -> (..., H, E)"""
        return x.unflatten(-1, (self.n_heads, -1))


class CompressiveBackbone(SegmentBackbone):
    """Transformer-XL layers, each with a memory, a compression and a compressed memory.

    Memory: {"memory": [per layer (B, M, D)], "valid": (B, M) bool, "compressed": [per layer (B, C, D)],
    "compressed_valid": (B, C) bool}. Real rows are at the end; the others are zero and invisible. Of a running segment
    what has entered each layer is carried as well.
    """

    def __init__(self, config: CompressiveConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        self.mem_len, self.c_mem_len = config.sizes(dims)
        self.n_cached = dims.n_layers
        self.two_sided, self.learned = dims.mode == "bidirectional", config.positions == "learned"
        D, H, N = dims.d_model, config.n_heads, dims.n_layers
        E, d_ff = config.d_head or D // H, config.d_ff or 4 * D
        self.layers = nn.ModuleList(
            RelativeLayer(self.build_attention(H, E), D, d_ff, pre_lnorm=config.pre_lnorm, dropout=config.dropout)
            for _ in range(N)
        )
        self.compress = nn.ModuleList(Compression(config.compression, D, config.compression_rate) for _ in range(N))
        self.norm = LayerNorm(D) if config.final_norm else None
        init_transformer_xl(self)
        if not self.learned:
            self.u = nn.Parameter(0.02 * torch.randn(H, E))
            self.v = nn.Parameter(0.02 * torch.randn(H, E))
            param_options(self, "u", "v", weight_decay=0.0)
        self.dropout = nn.Dropout(config.dropout)

    def build_attention(self, n_heads: int, d_head: int) -> nn.Module:
        """Build the attention of one layer."""
        D, dropout, T = self.dims.d_model, self.config.attn_dropout, self.dims.max_len
        if not self.learned:
            return RelativeAttention(D, n_heads, d_head, dropout=dropout)
        lowest, highest = 1 - T if self.two_sided else 0, self.mem_len + self.c_mem_len + T - 1
        return LearnedDistanceAttention(D, n_heads, d_head, lowest=lowest, highest=highest, dropout=dropout)

    def forward_segment(
        self, x: Tensor, *, mask: Tensor | None = None, memory: State = None
    ) -> tuple[Output, list[Tensor]]:
        """One segment, whose real tokens stand together, so that distances count no pads."""
        B, T, _ = x.shape
        self.check_length(T)
        memories, m_real, compressed, c_real = self.unpack_memory(memory, x)
        here = x.new_ones(B, T, dtype=torch.bool) if mask is None else mask

        # while the memory fills, there are pads between the two memories; the attention gets them before both
        past_real = torch.cat([c_real, m_real], dim=1)  # (B, C + M)
        past_row = real_last(past_real)[:, : 0 if memory is None else None]
        valid = torch.cat([past_real.gather(1, past_row), here], dim=1)  # (B, K)
        visible = visible_keys(T, valid.shape[1], two_sided=self.two_sided, valid=valid, device=x.device)[:, None]
        positions = self.build_positions(T, valid.shape[1], x)
        sizes = (self.mem_len, self.c_mem_len, self.config.compression_rate)
        plan = plan_eviction(m_real, c_real, here.sum(1), T, sizes)

        h, loss = x, x.new_zeros(())
        next_memories, next_compressed, entered = [], [], []
        for layer, f_c, m, cm in zip(self.layers, self.compress, memories, compressed, strict=True):
            entered.append(h)
            m, cm = m.to(h.dtype), cm.to(h.dtype)
            past = take_rows(torch.cat([cm, m], dim=1), past_row)
            next_m, next_cm, old, new = update_memories(f_c, m, cm, h, plan)
            next_memories.append(next_m)
            next_compressed.append(next_cm)
            if old.shape[1]:
                loss = loss + reconstruction_loss(cast("RelativeLayer", layer), h.detach(), old, new, plan, mask)
            else:  # nothing is evicted yet: the gradient of f_c is zero, not missing (DDP)
                loss = loss + sum(0.0 * parameter.sum() for parameter in f_c.parameters())
            h = layer(torch.cat([past, h], dim=1), T, positions, visible)
        h = self.dropout(h if self.norm is None else self.norm(h))
        carried = {
            "memory": next_memories,
            "valid": plan.real,
            "compressed": next_compressed,
            "compressed_valid": plan.c_real,
        }
        return Output(h, carried, {"reconstruction": self.config.reconstruction_weight * loss}), entered

    def extend(
        self, x: Tensor, memory: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The next token, x (B, 1, D), from what has entered each layer before it: memories and running segment."""
        self.check_length(running.shape[1] + 1)
        memories, m_real, compressed, c_real = self.unpack_memory(memory, x)
        valid = F.pad(torch.cat([c_real, m_real, running], dim=1), (0, 1), value=True)  # (B, K)
        order = real_last(valid)
        K = valid.shape[1]
        visible = visible_keys(1, K, valid=valid.gather(1, order), device=x.device)[:, None]
        positions = self.build_positions(1, K, x)

        h, entered = x, []
        for layer, *past in zip(self.layers, compressed, memories, segment, strict=True):
            entered.append(h)
            context = torch.cat([*(rows.to(h.dtype) for rows in past), h], dim=1)  # (B, K, D)
            h = layer(take_rows(context, order), 1, positions, visible)
        return self.dropout(h if self.norm is None else self.norm(h)), entered

    def check_length(self, T: int) -> None:
        """Raise ValueError for a segment of T tokens if learned distances end before it."""
        if self.learned and self.dims.max_len < T:
            raise ValueError(f"a segment of {T} tokens, but learned distances for segments of {self.dims.max_len}")

    def build_positions(self, n_tokens: int, n_keys: int, x: Tensor) -> RelativePositions | Tensor:
        """Compute the positions argument of the layers: relative positions, or distances (P,) for learned tables."""
        distance = distances(n_tokens, n_keys, two_sided=self.two_sided, device=x.device)  # (P,)
        if self.learned:
            return distance
        R = sinusoids(distance, x.shape[-1], self.config.clamp_len).to(x.dtype)  # (P, D)
        return RelativePositions(self.dropout(R), self.u, self.v)

    def unpack_memory(self, memory: State, x: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor], Tensor]:
        """Return the four parts of a memory; without one no memory, and an empty compressed one."""
        B, D, N = x.shape[0], x.shape[-1], len(self.layers)
        if memory is None:
            empty = x.new_zeros(B, self.c_mem_len, dtype=torch.bool)
            return [x[:, :0]] * N, empty[:, :0], [x.new_zeros(B, self.c_mem_len, D)] * N, empty
        return memory["memory"], memory["valid"], memory["compressed"], memory["compressed_valid"]

    def init_memory(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
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
        """mem_len + c_mem_len rows per layer, whatever the length; with the running segment of steps up to T more."""
        return len(self.layers) * (self.mem_len + self.c_mem_len) * self.dims.d_model
