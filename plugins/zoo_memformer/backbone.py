"""Memformer (Wu et al. 2022, arXiv 2010.06891 v2). One call is one segment.

Shapes: B batch, T tokens of the segment, S slots, D d_model, H heads, E = D / H. With m_t the slots when segment t
begins, an encoder layer reads them, and the output of the encoder, x = LN(h), is written into them afterwards:

    h   = h + SelfAttention(LN(h));   h = h + CrossAttention(LN(h), m_t);   h = h + FF(LN(h))
    A_i = softmax(W_Q m_i · [W_K m_i; W_K x] / (√E τ)),   m'_i = A_i [m_i; W_V x]          memory writing
    m_{t+1,i} = (m'_i + v_i) / |m'_i + v_i|,   m_{0,i} = v_i / |v_i|                       forgetting (BMN)

A segment reads only what earlier segments wrote. The decoder (mode "seq2seq") is the same layer, causal, with the
encoder's output in the place of the slots. The mode "causal" is ours: the encoder with causal self-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import ModelDims, Output, State
from zoo.nn import (
    MLP,
    LayerNorm,
    MultiHeadAttention,
    SegmentBackbone,
    at_least_float32,
    init_xavier,
    param_options,
    without_autocast,
)
from zoo.ops.attention import attention, join_heads, reference_attention, split_heads
from zoo.ops.positions import sinusoidal
from zoo_memformer.config import MemformerConfig
from zoo_memformer.op import biased_normalisation, relative_bias, slot_attention

N_BUCKETS = 32


class Positions(nn.Module):
    """Positions within a segment: relative, a bias on the scores of all layers, or absolute, added to the input.

    Invisible keys get -inf on the scores; a query always sees itself, so that no softmax is empty.
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
            x = x + sinusoidal(torch.arange(T, device=x.device), x.shape[-1]).to(x.dtype)
        else:
            bias = at_least_float32(relative_bias(self.table, T, two_sided=self.two_sided))[None]
        if self.causal:
            later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
            bias = bias.masked_fill(later, -torch.inf)
        if mask is not None:
            other = ~torch.eye(T, dtype=torch.bool, device=x.device)
            bias = bias.masked_fill((~mask[:, None, :] & other)[:, None], -torch.inf)
        return x, bias

    def of_next(self, x: Tensor, running: Tensor) -> tuple[Tensor, Tensor | None]:
        """Positions of one token, x (B, 1, D), that follows those of running (B, r): x, bias (H, r + 1) of all keys."""
        if self.table is None:
            return x + sinusoidal(running.sum(1), x.shape[-1])[:, None].to(x.dtype), None
        n_keys = running.shape[1] + 1
        return x, relative_bias(self.table, n_keys, two_sided=self.two_sided)[:, -1]


class MemformerLayer(nn.Module):
    """One layer: self-attention, cross-attention to the slots or the encoder's output, feed-forward."""

    def __init__(self, config: MemformerConfig, d_model: int) -> None:
        super().__init__()
        H, p = config.n_heads, config.dropout
        self.norm_self, self.self_attention = LayerNorm(d_model), MultiHeadAttention(d_model, H, dropout=p)
        self.norm_cross, self.cross_attention = LayerNorm(d_model), MultiHeadAttention(d_model, H, dropout=p)
        self.norm_ff = LayerNorm(d_model)
        self.ff = MLP(d_model, config.d_ff or 4 * d_model, dropout=p)
        self.dropout = nn.Dropout(p)

    def forward(self, h: Tensor, context: Tensor, bias: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """h (B, T, D), context (B, C, D), bias (B|1, H|1, T, T), context_mask (B, C) -> (B, T, D)."""
        a = self.self_attention
        q, k, v = a.project_qkv(self.norm_self(h))
        # the learned bias excludes PyTorch's fused kernels, and segments are short: all scores are in memory
        h = h + self.dropout(a.project_out(reference_attention(q, k, v, bias=bias, dropout=a.dropout_p), q))
        c = self.cross_attention
        z, context = self.norm_cross(h), context.to(h.dtype)
        q, k, v = (split_heads(part, c.n_heads) for part in (c.q(z), c.k(context), c.v(context)))
        h = h + self.dropout(c.project_out(attention(q, k, v, mask=context_mask, dropout=c.dropout_p), q))
        return h + self.dropout(self.ff(self.norm_ff(h)))

    def extend(self, past: Tensor, h: Tensor, context: Tensor, bias: Tensor | None, visible: Tensor) -> Tensor:
        """`forward` of one token, h (B, 1, D), after past inputs (B, r, D); visible (B, r + 1), bias (H, r + 1)."""
        z = self.norm_self(torch.cat([past.to(h.dtype), h], dim=1))
        h = h + self.dropout(self.self_attention.attend_from_last(z, visible=visible[:, None], bias=bias))
        z = self.norm_cross(h)
        h = h + self.dropout(self.cross_attention.attend_from_last(z, context=context.to(h.dtype)))
        return h + self.dropout(self.ff(self.norm_ff(h)))


class BiasedWrite(nn.Module):
    """The paper's memory writing. A slot's own value is the slot itself, and there is no output projection."""

    def __init__(self, config: MemformerConfig, d_model: int) -> None:
        super().__init__()
        self.n_heads, self.temperature, self.dropout = config.n_heads, config.temperature, config.dropout
        self.W_Q, self.W_K, self.W_V = (nn.Linear(d_model, d_model, bias=False) for _ in range(3))
        init_xavier(self.W_Q, self.W_K, self.W_V)
        # of length about one, as a slot is: neither the old slot nor the bias dominates the sum
        self.v = nn.Parameter(torch.randn(config.n_slots, d_model) * d_model**-0.5)
        param_options(self, "v", weight_decay=0.0)

    def fresh(self) -> Tensor:
        """Return the initial slots m_0, (S, D)."""
        return F.normalize(at_least_float32(self.v), dim=-1)

    def read(self, memory: Tensor) -> Tensor:
        """Scale the slots to unit RMS, as normalised tokens are, for the layers; W_K and W_V could learn the factor."""
        return memory * memory.shape[-1] ** 0.5

    def forward(self, memory: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """memory (B, S, D), x (B, T, D), mask (B, T) -> the next memory (B, S, D)."""
        m = memory.to(x.dtype)
        projected = (self.W_Q(m), self.W_K(m), memory, self.W_K(x), self.W_V(x))
        q, k_own, v_own, k, v = (split_heads(y, self.n_heads) for y in projected)
        drop = self.dropout if self.training else 0.0
        m = slot_attention(q, (k_own, v_own), (k, v), mask, temperature=self.temperature, dropout=drop)
        return biased_normalisation(join_heads(m), self.v)


class GRUWrite(nn.Module):
    """The port's memory writing: slot attention, a GRU cell whose hidden state is the slot, a feed-forward layer."""

    def __init__(self, config: MemformerConfig, d_model: int) -> None:
        super().__init__()
        self.n_heads, self.n_updates, self.dropout = config.n_heads, config.n_updates, config.dropout
        self.slots = nn.Parameter(torch.randn(config.n_slots, d_model))
        param_options(self, "slots", weight_decay=0.0)
        self.q, self.kv, self.out = (nn.Linear(d_model, n * d_model) for n in (1, 2, 1))
        for weight in (self.q.weight, *self.kv.weight.chunk(2), self.out.weight):
            nn.init.xavier_uniform_(weight)
        for linear in (self.q, self.kv, self.out):
            nn.init.zeros_(linear.bias)
        self.gru = nn.GRUCell(d_model, d_model)
        self.norm = LayerNorm(d_model)
        self.ff = MLP(d_model, config.d_ff or 4 * d_model, dropout=config.dropout)

    def fresh(self) -> Tensor:
        """Return the initial slots m_0, (S, D)."""
        return self.slots

    def read(self, memory: Tensor) -> Tensor:
        """Return the slots unchanged, as the port's layers read them."""
        return memory

    def forward(self, memory: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """memory (B, S, D), x (B, T, D), mask (B, T) -> the next memory (B, S, D)."""
        tokens = self.keys_values(x)
        for _ in range(self.n_updates):
            a = self.slot_attention(memory.to(x.dtype), tokens, mask)
            with without_autocast(x):
                m = at_least_float32(memory)
                weights = (weight.to(m.dtype) for weight in self.gru.parameters())
                m = torch.gru_cell(a.to(m.dtype).flatten(0, 1), m.flatten(0, 1), *weights).view_as(m)
            memory = m + self.ff(self.norm(m).to(x.dtype))
        return memory

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project keys and values: (B, L, D) -> two of (B, H, L, E)."""
        k, v = split_heads(self.kv(x), 2 * self.n_heads).chunk(2, dim=1)
        return k, v

    def slot_attention(self, memory: Tensor, tokens: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """Attend from the slots to themselves and to the tokens' keys and values: (B, S, D)."""
        q, drop = split_heads(self.q(memory), self.n_heads), self.dropout if self.training else 0.0
        y = slot_attention(q, self.keys_values(memory), tokens, mask, dropout=drop)
        return self.out(join_heads(y).to(q.dtype))


WRITES: dict[str, type[BiasedWrite] | type[GRUWrite]] = {"bmn": BiasedWrite, "gru": GRUWrite}


class MemformerBackbone(SegmentBackbone):
    """Encoder layers, the memory and its write; in the mode "seq2seq" a decoder as well.

    Memory: {"memory": (B, S, D)} in at least float32. Gradients flow through it. Of a running segment the tokens and
    what has entered each layer are carried as well.
    """

    def __init__(self, config: MemformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        config.check(dims)
        D = dims.d_model
        self.n_cached = dims.n_layers + 1
        self.layers = nn.ModuleList(MemformerLayer(config, D) for _ in range(dims.n_layers))
        self.positions = Positions(config, D, causal=dims.mode == "causal")
        self.norm = LayerNorm(D)
        self.write = WRITES[config.write](config, D)
        self.decoder: nn.ModuleList | None = None
        if dims.mode == "seq2seq":
            depth = config.n_decoder_layers or dims.n_layers
            self.decoder = nn.ModuleList(MemformerLayer(config, D) for _ in range(depth))
            self.decoder_positions = Positions(config, D, causal=True)
            self.decoder_norm = LayerNorm(D)

    def forward_segment(
        self, x: Tensor, *, mask: Tensor | None = None, memory: State = None
    ) -> tuple[Output, list[Tensor]]:
        """One segment: read the slots of `memory`, then write them. A row of pads keeps its slots."""
        slots = (self.init_memory(len(x), device=x.device, dtype=x.dtype) if memory is None else memory)["memory"]
        read = self.write.read(slots)
        h, bias = self.positions(x, mask)
        cached = [x]
        for layer in self.layers:
            cached.append(h)
            h = layer(h, read, bias)
        h = self.norm(h)
        written = self.write(slots, h, mask)
        if mask is not None:
            written = torch.where(mask.any(1)[:, None, None], written, slots)
        return Output(h, {"memory": written}), cached

    def extend(
        self, x: Tensor, memory: State, segment: Sequence[Tensor], running: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The next token, x (B, 1, D): it reads the slots, which are not written before the segment is whole."""
        read = self.write.read(memory["memory"])
        visible = F.pad(running, (0, 1), value=True)  # (B, r + 1)
        h, bias = self.positions.of_next(x, running)
        cached = [x]
        for layer, past in zip(self.layers, segment[1:], strict=True):
            cached.append(h)
            h = cast("MemformerLayer", layer).extend(past, h, read, bias, visible)
        return self.norm(h), cached

    def forward_decode(
        self, y: Tensor, *, memory: Tensor, memory_mask: Tensor | None = None, state: State = None
    ) -> Output:
        """The decoder over one encoded segment: y (B, N, D), memory (B, T, D) = that segment's hidden vectors.

        Causal in y. It reads the slots only through the encoder, and carries no state: one is a ValueError.
        """
        if self.decoder is None:
            return super().forward_decode(y, memory=memory)
        if state is not None:
            raise ValueError("the decoder carries no state, but one was given")
        y, bias = self.decoder_positions(y)
        for layer in self.decoder:
            y = layer(y, memory, bias, memory_mask)
        return Output(self.decoder_norm(y))

    def init_memory(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """m_0 in every row; it is learned, and gradients reach it."""
        wide = torch.promote_types(dtype, torch.float32)
        return {"memory": self.write.fresh().to(device=device, dtype=wide).expand(batch, -1, -1)}

    def state_size(self, seq_len: int) -> int:
        """n_slots rows, whatever the length and the depth; with the running segment of steps up to T per layer more."""
        return self.config.n_slots * self.dims.d_model
