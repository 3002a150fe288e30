"""Memformer (Wu et al. 2022, arXiv 2010.06891 v2). One call is one segment.

Shapes: B batch, T tokens of the segment, S slots, D d_model, H heads, E = D / H. With m_t the slots when segment t
begins, an encoder layer reads them and the top of the encoder, x = LN(h), is written into them afterwards:

    h   = h + SelfAttention(LN(h));   h = h + CrossAttention(LN(h), m_t);   h = h + FF(LN(h))
    A_i = softmax(W_Q m_i · [W_K m_i; W_K x] / (√E τ)),   m'_i = A_i [m_i; W_V x]          memory writing
    m_{t+1,i} = (m'_i + v_i) / |m'_i + v_i|,   m_{0,i} = v_i / |v_i|                       forgetting (BMN)

A segment reads only what earlier segments wrote. The decoder (mode "seq2seq") is the same layer, causal, with the
encoder's output in the place of the slots. The mode "causal" is ours: the encoder with causal self-attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import MLP, LayerNorm, at_least_float32, init_xavier, param_options
from zoo.ops.attention import attention
from zoo.ops.positions import real_positions, sinusoidal
from zoo_memformer.config import MemformerConfig
from zoo_memformer.op import biased_normalisation, relative_bias, slot_attention, token_attention

N_BUCKETS = 32


class Attention(nn.Module):
    """The projections of multi-head attention: queries of one sequence, keys and values of the same or another."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.W_q = nn.Linear(d_model, d_model)
        self.W_kv = nn.Linear(d_model, 2 * d_model)
        self.W_o = nn.Linear(d_model, d_model)
        for weight in (self.W_q.weight, *self.W_kv.weight.chunk(2), self.W_o.weight):
            nn.init.xavier_uniform_(weight)
        for linear in (self.W_q, self.W_kv, self.W_o):
            nn.init.zeros_(linear.bias)

    def queries(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, H, E)"""
        return self.W_q(x).unflatten(-1, (self.n_heads, -1))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) -> two of (B, L, H, E)"""
        k, v = self.W_kv(x).unflatten(-1, (2 * self.n_heads, -1)).chunk(2, dim=-2)
        return k, v

    def out(self, y: Tensor) -> Tensor:
        """(B, L, H, E) -> (B, L, D)"""
        return self.W_o(y.flatten(-2))


class Positions(nn.Module):
    """Where a token stands in its segment: relative, on the scores of all layers, or absolute, on the input.

    What a query does not see gets -inf on the scores; it always sees itself, so no softmax is empty.
    """

    def __init__(self, config: MemformerConfig, d_model: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.two_sided = causal == (config.positions == "port")
        self.table: nn.Parameter | None = None
        if config.positions != "absolute":
            self.table = nn.Parameter(torch.randn(N_BUCKETS, config.n_heads) * d_model**-0.5)  # as T5's own code
            param_options(self, "table", weight_decay=0.0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, T, D), mask (B, T) -> x, bias (B|1, H|1, T, T) in at least float32."""
        T = x.shape[1]
        if self.table is None:
            bias = at_least_float32(x[:0]).new_zeros(1, 1, T, T)
            place = sinusoidal(torch.arange(T, device=x.device), x.shape[-1]).to(x.dtype)  # (T, D)
            x = x + (place if mask is None else place[real_positions(mask)])
        else:
            bias = at_least_float32(relative_bias(self.table, T, two_sided=self.two_sided))[None]
        if self.causal:
            later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
            bias = bias.masked_fill(later, -torch.inf)
        if mask is not None:
            other = ~torch.eye(T, dtype=torch.bool, device=x.device)
            bias = bias.masked_fill((~mask[:, None, :] & other)[:, None], -torch.inf)
        return x, bias


class MemformerLayer(nn.Module):
    """One layer. `context` is the memory, or in the decoder the encoder's output."""

    def __init__(self, config: MemformerConfig, d_model: int) -> None:
        super().__init__()
        self.norm_self, self.self_attention = LayerNorm(d_model), Attention(d_model, config.n_heads)
        self.norm_cross, self.cross_attention = LayerNorm(d_model), Attention(d_model, config.n_heads)
        self.norm_ff = LayerNorm(d_model)
        self.ff = MLP(d_model, config.d_ff or 4 * d_model, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, context: Tensor, bias: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """h (B, T, D), context (B, C, D), bias (B|1, H|1, T, T), context_mask (B, C) -> (B, T, D)."""
        drop = self.dropout.p if self.training else 0.0
        z = self.norm_self(h)
        a = self.self_attention
        h = h + self.dropout(a.out(token_attention(a.queries(z), *a.keys_values(z), bias, drop)))
        c = self.cross_attention
        q, k, v = (x.transpose(1, 2) for x in (c.queries(self.norm_cross(h)), *c.keys_values(context.to(h.dtype))))
        y = attention(q, k, v, mask=context_mask, dropout=drop).transpose(1, 2)  # (B, T, H, E)
        h = h + self.dropout(c.out(y))
        return h + self.dropout(self.ff(self.norm_ff(h)))


class BiasedWrite(nn.Module):
    """The paper's write. A slot's own value is the slot itself, and there is no output projection."""

    def __init__(self, config: MemformerConfig, d_model: int) -> None:
        super().__init__()
        self.n_heads, self.temperature, self.dropout = config.n_heads, config.temperature, config.dropout
        self.W_Q, self.W_K, self.W_V = (nn.Linear(d_model, d_model, bias=False) for _ in range(3))
        init_xavier(self.W_Q, self.W_K, self.W_V)
        # of length about one, as a slot is: neither the old slot nor the bias is lost in the sum
        self.v = nn.Parameter(torch.randn(config.n_slots, d_model) * d_model**-0.5)
        param_options(self, "v", weight_decay=0.0)

    def fresh(self) -> Tensor:
        """m_0, (S, D)."""
        return F.normalize(at_least_float32(self.v), dim=-1)

    def read(self, memory: Tensor) -> Tensor:
        """What the layers see: slots of unit RMS, as normalised tokens are. W_K and W_V could absorb the constant."""
        return memory * memory.shape[-1] ** 0.5

    def forward(self, memory: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """memory (B, S, D), x (B, T, D), mask (B, T) -> the next memory (B, S, D)."""
        m = memory.to(x.dtype)
        q, k_own, k, v = (
            y.unflatten(-1, (self.n_heads, -1)) for y in (self.W_Q(m), self.W_K(m), self.W_K(x), self.W_V(x))
        )
        own = (k_own, memory.unflatten(-1, (self.n_heads, -1)))
        drop = self.dropout if self.training else 0.0
        m = slot_attention(q, own, (k, v), mask, temperature=self.temperature, dropout=drop)
        return biased_normalisation(m.flatten(-2), self.v)


class GRUWrite(nn.Module):
    """The write of the public port: slot attention, a GRU cell whose hidden state is the slot, a feed-forward layer."""

    def __init__(self, config: MemformerConfig, d_model: int) -> None:
        super().__init__()
        self.n_updates, self.dropout = config.n_updates, config.dropout
        self.slots = nn.Parameter(torch.randn(config.n_slots, d_model))
        param_options(self, "slots", weight_decay=0.0)
        self.attention = Attention(d_model, config.n_heads)
        self.gru = nn.GRUCell(d_model, d_model)
        self.norm = LayerNorm(d_model)
        self.ff = MLP(d_model, config.d_ff or 4 * d_model, dropout=config.dropout)

    def fresh(self) -> Tensor:
        """m_0, (S, D)."""
        return self.slots

    def read(self, memory: Tensor) -> Tensor:
        """The port reads the slots as they are."""
        return memory

    def forward(self, memory: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """memory (B, S, D), x (B, T, D), mask (B, T) -> the next memory (B, S, D)."""
        tokens = self.attention.keys_values(x)
        for _ in range(self.n_updates):
            a = self.attend(memory, tokens, mask)
            with torch.autocast(x.device.type, enabled=False):
                m = at_least_float32(memory)
                m = self.gru(a.to(m.dtype).flatten(0, 1), m.flatten(0, 1)).view_as(m)
            memory = m + self.ff(self.norm(m))
        return memory

    def attend(self, memory: Tensor, tokens: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """What the slots take from themselves and from the tokens' keys and values, (B, S, D)."""
        q, own = self.attention.queries(memory), self.attention.keys_values(memory)
        drop = self.dropout if self.training else 0.0
        return self.attention.out(slot_attention(q, own, tokens, mask, dropout=drop))


class MemformerBackbone(Backbone):
    """Encoder layers, the memory and its write; in the mode "seq2seq" a decoder as well.

    State: {"memory": (B, S, D)} in at least float32. Gradients flow through it.
    """

    def __init__(self, config: MemformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        self.layers = nn.ModuleList(MemformerLayer(config, dims.d_model) for _ in range(dims.n_layers))
        self.positions = Positions(config, dims.d_model, causal=dims.mode == "causal")
        self.norm = LayerNorm(dims.d_model)
        writes: dict[str, type[BiasedWrite] | type[GRUWrite]] = {"bmn": BiasedWrite, "gru": GRUWrite}
        self.write = writes[config.write](config, dims.d_model)
        self.decoder: nn.ModuleList | None = None
        if dims.mode == "seq2seq":
            depth = config.n_decoder_layers or dims.n_layers
            self.decoder = nn.ModuleList(MemformerLayer(config, dims.d_model) for _ in range(depth))
            self.decoder_positions = Positions(config, dims.d_model, causal=True)
            self.decoder_norm = LayerNorm(dims.d_model)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """One segment: read the slots that `state` brings, then write them. A row of pads only keeps its slots."""
        memory = self._memory(state, x)
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        read = self.write.read(memory)
        h, bias = self.positions(x, mask)
        for layer in self.layers:
            h = layer(h, read, bias)
        h = self.norm(h)
        written = self.write(memory, h, mask)
        if mask is not None:
            written = torch.where(mask.any(1)[:, None, None], written, memory)
        return Output(h, {"memory": written}, {})

    def decode(self, y: Tensor, *, memory: Tensor, memory_mask: Tensor | None = None, state: State = None) -> Output:
        """The decoder over one encoded segment: y (B, N, D), memory (B, T, D) = that segment's hidden vectors.

        Causal in y; it reads the slots only through the encoder, and carries nothing: a state is a ValueError.
        """
        if self.decoder is None:
            raise TypeError(f"the {self.dims.mode} mode has no decoder; build with mode='seq2seq'")
        if state is not None:
            raise ValueError("the decoder carries no state; it was given one")
        if memory.shape[0] != y.shape[0]:
            raise ValueError(f"{memory.shape[0]} encoded rows for a target of {y.shape[0]} rows")
        y, bias = self.decoder_positions(y)
        if memory_mask is not None:
            memory = memory.masked_fill(~memory_mask[..., None], 0.0)
        for layer in self.decoder:
            y = layer(y, memory, bias, memory_mask)
        return Output(self.decoder_norm(y))

    def _memory(self, state: State, x: Tensor) -> Tensor:
        """The slots (B, S, D) that a segment begins with."""
        if state is None:
            state = self.init_state(x.shape[0], device=x.device, dtype=at_least_float32(x[:0]).dtype)
        memory = state.get("memory") if isinstance(state, dict) else None
        if not isinstance(memory, Tensor):
            raise ValueError("a state of another architecture: expected {'memory': one tensor of slots}")
        expected = (x.shape[0], self.config.n_slots, self.dims.d_model)
        if tuple(memory.shape) != expected:
            raise ValueError(
                f"a memory of shape {tuple(memory.shape)}; expected (batch, n_slots, d_model) = {expected}"
            )
        return at_least_float32(memory)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """m_0 in every row; it is learned, and gradients reach it."""
        return {"memory": self.write.fresh().to(device=device, dtype=dtype).expand(batch, -1, -1)}

    def state_size(self, seq_len: int) -> int:
        """n_slots rows, whatever the length and the depth."""
        return self.config.n_slots * self.dims.d_model
