"""The Recurrent Memory Transformer (Bulatov et al. 2022, arXiv 2207.06881, §3). One call is one segment.

Shapes: B batch, T tokens of the segment, n memory tokens, R rows of the segment with all that is put around it, M rows
of a Transformer-XL cache, D d_model, N layers. For segment s = 1, 2, … with tokens x_s, and mem_1 learned:

    causal          H~  = [mem_s; x_s; mem_s]                read memory, tokens, write memory; the mask is in op.py
                    H^N = Transformer(H~)                    N layers, in bodies.py
                    mem_{s+1} = the last n rows of H^N
    bidirectional   H~  = [CLS; mem_s; SEP; x_s; SEP],       mem_{s+1} = rows 1 .. n of H^N

The gradient flows through the memories of all segments (`segments.tbptt` limits how many).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import ModelDims, Output, State
from zoo.nn import SegmentBackbone, param_options
from zoo.ops.memory import real_first, take_rows
from zoo_rmt.bodies import BODIES
from zoo_rmt.config import RMTConfig


class RMTBackbone(SegmentBackbone):
    """Memory tokens around each segment, and the Transformer that reads and writes them.

    Memory: {"memory": (B, n, D)}, with gradient; with a cache also {"cache": [per layer (B, M, D)], "cache_valid":
    (B, M) bool}, without gradient, real rows at the end. Of a running segment what its body needs is carried as well.
    """

    def __init__(self, config: RMTConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        n, D = config.num_mem_tokens, dims.d_model
        self.bidirectional = dims.mode == "bidirectional"
        self.front, self.back = (n + 2, 1) if self.bidirectional else (n, n)  # rows before and after the tokens
        self.memory = nn.Parameter(torch.randn(n, D))
        param_options(self, "memory", weight_decay=0.0)
        self.body = BODIES[config.body_for(dims)](config, dims, self.front + dims.max_len + self.back)
        if self.bidirectional:
            self.cls, self.sep = nn.Parameter(torch.randn(D)), nn.Parameter(torch.randn(D))
            param_options(self, "cls", "sep", weight_decay=0.0)
        self.body.reset_parameters()
        self.n_cached = self.body.n_cached

    def forward_segment(
        self, x: Tensor, *, mask: Tensor | None = None, memory: State = None
    ) -> tuple[Output, list[Tensor]]:
        """One segment. Real rows are moved together, so that positions count no pads and pads change nothing."""
        B, T, _ = x.shape
        self.check_length(T)
        carried = {"memory": self.memory.expand(B, -1, -1)} if memory is None else memory
        read = carried["memory"]
        rows = self.surround(x, read)
        real = order = None
        if mask is not None:
            real = F.pad(mask, (self.front, self.back), value=True)  # (B, R)
            order = real_first(real)
            rows, real = take_rows(rows, order), real.gather(1, order)
        h, cache, entered = self.body(rows, real, carried)
        if order is not None:
            h = take_rows(h, order.argsort(dim=1))
        written = h[:, 1 : 1 + read.shape[1]] if self.bidirectional else h[:, self.front + T :]
        if mask is not None:  # a segment without a token leaves the memory as it was
            written = torch.where(mask.any(1)[:, None, None], written, read.to(written.dtype))
        tokens = slice(self.front, self.front + T)
        cached = [x, *(rows[:, tokens] for rows in entered)][-self.n_cached :]
        return Output(h[:, tokens], {"memory": written, **cache}), cached

    def extend(
        self, x: Tensor, memory: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The next token, x (B, 1, D), which sees no write row: these are computed when the segment is whole."""
        self.check_length(running.shape[1] + 1)
        if not self.body.extends:
            return super().extend(x, memory, segment, running)
        h, entered = self.body.extend(x, memory, segment[-len(self.body.layers) :], running)
        return h, [x, *entered][-self.n_cached :]

    def check_length(self, T: int) -> None:
        """Raise ValueError for a segment of T tokens that is longer than it may be."""
        if self.dims.max_len < T:
            raise ValueError(f"a segment of {T} tokens for a backbone built for segments of {self.dims.max_len}")

    def surround(self, x: Tensor, memory: Tensor) -> Tensor:
        """Build H~ of the tokens x (B, T, D) and memory (B, n, D): (B, R, D)."""
        if not self.bidirectional:
            return torch.cat([memory, x, memory], dim=1)
        cls, sep = (vector.to(x.dtype).expand(x.shape[0], 1, -1) for vector in (self.cls, self.sep))
        return torch.cat([cls, memory, sep, x, sep], dim=1)

    def init_memory(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """The learned memory, with its gradient, and an empty cache."""
        state: dict[str, Any] = {"memory": self.memory.to(device=device, dtype=dtype).expand(batch, -1, -1)}
        if self.config.mem_len:
            rows = (batch, self.config.mem_len, self.dims.d_model)
            state["cache"] = [torch.zeros(rows, device=device, dtype=dtype) for _ in range(self.dims.n_layers)]
            state["cache_valid"] = torch.zeros(rows[:2], device=device, dtype=torch.bool)
        return state

    def state_size(self, seq_len: int) -> int:
        """num_mem_tokens rows, mem_len of cache per layer; with the running segment of steps up to T per layer more."""
        return (self.config.num_mem_tokens + self.dims.n_layers * self.config.mem_len) * self.dims.d_model
