"""The Recurrent Memory Transformer (Bulatov et al. 2022, arXiv 2207.06881). One call is one segment.

Shapes: B batch, T tokens of the segment, n memory tokens, R rows of the segment with all that is put around it, M rows
of a Transformer-XL cache, K = M + R, D d_model, H heads, E width of a head, N layers. Segment s = 1, 2, …:

    causal         H~ = [mem_s; x_s; mem_s]         read memory, tokens, write memory; the mask is in op.py
                   H^N = Transformer(H~),           mem_{s+1} = the last n rows of H^N
    bidirectional  H~ = [CLS; mem_s; SEP; x_s; SEP] everything sees everything; mem_{s+1} = rows 1 .. n of H^N

mem_1 is learned. The gradient flows through the memories of all segments (`segments.tbptt` limits how many).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State, check_state
from zoo.nn import (
    MLP,
    Block,
    LayerNorm,
    Mixer,
    Places,
    RelativeAttention,
    RelativeLayer,
    initialise_as_transformer_xl,
    param_options,
)
from zoo.ops.attention import attention, join_heads, split_heads
from zoo.ops.memory import kept_rows, real_first, take_rows
from zoo.ops.relative import distances, sinusoids
from zoo_rmt.config import RMTConfig
from zoo_rmt.op import published_mask


class Body(NamedTuple):
    """What the authors' two ports and the paper's own transformer without cache differ in."""

    prenorm: bool
    activation: str
    bias: bool
    norm_eps: float


BODIES = {
    "transformer": Body(prenorm=False, activation="relu", bias=False, norm_eps=1e-5),
    "gpt2": Body(prenorm=True, activation="gelu_tanh", bias=True, norm_eps=1e-5),
    "bert": Body(prenorm=False, activation="gelu", bias=True, norm_eps=1e-12),
}


class SelfAttention(Mixer):
    """Multi-head softmax attention; `mask` says which row sees which, (1 or B, 1 or R, R) bool, None = all see all."""

    def __init__(self, d_model: int, n_heads: int, d_head: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.qkv = nn.Linear(d_model, 3 * n_heads * d_head, bias=bias)
        self.out = nn.Linear(n_heads * d_head, d_model, bias=bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        q, k, v = (split_heads(part, self.n_heads) for part in self.qkv(x).chunk(3, dim=-1))
        visible = None if mask is None else mask[:, None]  # (B, 1, 1 or R, R)
        y = attention(q, k, v, visible=visible, dropout=self.dropout if self.training else 0.0)
        return self.out(join_heads(y)), None  # (B, R, H E) -> (B, R, D)


class RMTBackbone(Backbone):
    """A transformer, and the memory tokens around what it reads.

    State: {"memory": (B, n, D)}, with gradient; with a cache also {"cache": [per layer (B, M, D)], "cache_valid":
    (B, M) bool}, without gradient, real rows at the end.
    """

    def __init__(self, config: RMTConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        self.body = config.body_for(dims)
        D, H, n = dims.d_model, config.n_heads, config.num_mem_tokens
        E, d_ff = config.d_head or D // H, config.d_ff or 4 * D
        self.front, self.back = (n + 2, 1) if self.body == "bert" else (n, n)  # rows around the tokens
        self.memory = nn.Parameter(torch.randn(n, D))
        param_options(self, "memory", weight_decay=0.0)
        if self.body == "transformer_xl":
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
            self.u, self.v = nn.Parameter(0.02 * torch.randn(H, E)), nn.Parameter(0.02 * torch.randn(H, E))
            param_options(self, "u", "v", weight_decay=0.0)
        else:
            self.layers = nn.ModuleList(self._block(D, H, E, d_ff) for _ in range(dims.n_layers))
        if self.body in ("gpt2", "bert"):
            self.positions = nn.Parameter(0.02 * torch.randn(self.front + dims.max_len + self.back, D))
            self.norm = LayerNorm(D, eps=BODIES[self.body].norm_eps)  # gpt2: above the layers; bert: below them
            param_options(self, "positions", weight_decay=0.0)
        if self.body == "bert":
            self.cls, self.sep = nn.Parameter(torch.randn(D)), nn.Parameter(torch.randn(D))
            param_options(self, "cls", "sep", weight_decay=0.0)
        self.dropout = nn.Dropout(config.dropout)
        self._initialise()

    def _block(self, d_model: int, n_heads: int, d_head: int, d_ff: int) -> Block:
        body, c = BODIES[self.body], self.config
        return Block(
            SelfAttention(d_model, n_heads, d_head, bias=body.bias, dropout=c.attn_dropout),
            LayerNorm(d_model, eps=body.norm_eps),
            mlp=MLP(d_model, d_ff, activation=body.activation, dropout=c.dropout),
            norm2=LayerNorm(d_model, eps=body.norm_eps),
            prenorm=body.prenorm or c.pre_lnorm,
            dropout=c.dropout,
        )

    def _initialise(self) -> None:
        """As each body's own code: the paper's as Transformer-XL, the ports N(0, 0.02²), GPT-2's residuals less."""
        if self.body in ("transformer_xl", "transformer"):
            initialise_as_transformer_xl(self)
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.02)
                nn.init.zeros_(module.bias)
        if self.body == "gpt2":
            for name, parameter in self.named_parameters():
                if name.endswith(("mixer.out.weight", "mlp.linear2.weight")):
                    nn.init.normal_(parameter, 0.0, 0.02 * (2 * len(self.layers)) ** -0.5)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """One segment. Real rows are moved together, so that positions count nothing else and pads change nothing."""
        T = x.shape[1]
        if self.dims.max_len < T:
            raise ValueError(f"a segment of {T} tokens for a backbone built for segments of {self.dims.max_len}")
        memory, cache, cached = self._carried(state, x)
        rows = self._surround(x if mask is None else x.masked_fill(~mask[..., None], 0.0), memory.to(x.dtype))
        order = real = None
        if mask is not None:
            real = nn.functional.pad(mask, (self.front, self.back), value=True)  # (B, R)
            order = real_first(real)
            rows, real = take_rows(rows, order), real.gather(1, order)
        h, new_cache = self._transform(rows, real, cache, cached)
        if order is not None:
            h = take_rows(h, order.argsort(dim=1))
        first = 1 if self.body == "bert" else h.shape[1] - memory.shape[1]
        written = h[:, first : first + memory.shape[1]]
        if mask is not None:  # a segment without a token leaves the memory as it was
            written = torch.where(mask.any(1)[:, None, None], written, memory.to(written.dtype))
        return Output(h[:, self.front : self.front + T], {"memory": written, **new_cache}, {})

    def _surround(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (B, T, D) and memory (B, n, D) -> (B, R, D)."""
        if self.body != "bert":
            return torch.cat([memory, x, memory], dim=1)
        cls, sep = (vector.to(x.dtype).expand(x.shape[0], 1, -1) for vector in (self.cls, self.sep))
        return torch.cat([cls, memory, sep, x, sep], dim=1)

    def _transform(
        self, h: Tensor, real: Tensor | None, cache: list[Tensor], cached: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """The body over h (B, R, D), whose real rows come first; the cache that it leaves."""
        if self.body == "transformer_xl":
            return self._transformer_xl(h, real, cache, cached)
        R, device = h.shape[1], h.device
        if self.body == "transformer":
            n_rows = torch.tensor([R], device=device) if real is None else real.sum(1)  # (1 or B,)
            # counted from the last real row, as in the reference
            place = (n_rows[:, None] - 1 - torch.arange(R, device=device)).clamp_min(0)
            h = h + self.dropout(sinusoids(torch.arange(R, device=device), h.shape[-1]).to(h.dtype))[place]
            visible: Tensor | None = self._mask(R, real, cached)
        else:
            h = h + self.positions[:R].to(h.dtype)
            if self.body == "bert":
                h = self.dropout(self.norm(h))
                visible = None if real is None else real[:, None]
            else:
                h = self.dropout(h)
                visible = torch.ones(1, R, R, dtype=torch.bool, device=device).tril()
        for layer in self.layers:
            h, _ = layer(h, mask=visible)
        return (self.norm(h) if self.body == "gpt2" else h), {}

    def _transformer_xl(
        self, h: Tensor, real: Tensor | None, cache: list[Tensor], cached: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """Relative positions, and a cache of earlier rows (memory rows among them) where there is one."""
        B, R, D = h.shape
        M, n = cached.shape[1], self.config.num_mem_tokens
        # memory rows see later memory rows, which have negative distances; one row has no later one
        two_sided = n > 1
        distance = distances(R, M + R, two_sided=two_sided, device=h.device)
        places = Places(self.dropout(sinusoids(distance, D).to(h.dtype)), self.u, self.v)
        visible = self._mask(R, real, cached).unsqueeze(1)
        keeps = self.config.mem_len > 0
        if keeps:
            here = torch.ones(B, R, dtype=torch.bool, device=h.device) if real is None else real
            here = here & (here.sum(1, keepdim=True) > 2 * n)  # without a token nothing is kept
            row, kept = kept_rows(torch.cat([cached, here], dim=1), here.sum(1), M, self.config.mem_len)
        written = []
        for layer, old in zip(self.layers, cache, strict=True):
            context = torch.cat([old.to(h.dtype), h], dim=1) if M else h  # (B, K, D)
            if keeps:
                written.append(take_rows(context.detach(), row).masked_fill(~kept[..., None], 0.0))
            h = layer(context, R, places, visible)
        return self.dropout(h), {"cache": written, "cache_valid": kept} if keeps else {}

    def _mask(self, n_rows: int, real: Tensor | None, cached: Tensor) -> Tensor:
        n = self.config.num_mem_tokens
        return published_mask(
            n,
            n_rows - 2 * n,
            n_tokens=None if real is None else real.sum(1) - 2 * n,
            cached=cached,
            read_mem_from_cache=self.config.read_mem_from_cache,
            device=cached.device,
        )

    # -- state ---------------------------------------------------------------------------------------------------------

    def _carried(self, state: State, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Memory, cache and its real rows; of no state, the learned memory and no rows. ValueError for another's."""
        B, D, N = x.shape[0], x.shape[-1], len(self.layers)
        nothing = torch.zeros(B, 0, dtype=torch.bool, device=x.device)
        if state is None:
            return self.memory.expand(B, -1, -1), [x.new_zeros(B, 0, D)] * N, nothing
        check_state(state, self.init_state(B, device="meta", dtype=x.dtype))
        return state["memory"], state.get("cache", [x.new_zeros(B, 0, D)] * N), state.get("cache_valid", nothing)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """The learned memory, with its gradient, and an empty cache."""
        M = self.config.mem_len
        memory = {"memory": self.memory.to(device=device, dtype=dtype).expand(batch, -1, -1)}
        if not M:
            return memory
        rows = (batch, M, self.dims.d_model)
        return {
            **memory,
            "cache": [torch.zeros(rows, device=device, dtype=dtype) for _ in self.layers],
            "cache_valid": torch.zeros(rows[:2], device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        """num_mem_tokens rows, and mem_len rows of cache per layer."""
        return (self.config.num_mem_tokens + len(self.layers) * self.config.mem_len) * self.dims.d_model
