"""The Longformer (Beltagy, Peters & Cohan 2020, arXiv 2004.05150).

B batch, L seq_len, D d_model, H heads, d = d_qkv / H, g global tokens, P = back * dilation keys of the cache.

    x = x + Attention(LN x);  x = x + W2 act(W1 LN x + b1) + b2;  LN after the last block       (prenorm)
    x = LN(x + Attention x);  x = LN(x + W2 act(W1 x + b1) + b2)                                 (as RoBERTa)

Attention is in op.py. Causally the last P keys and values are carried, and those of the global tokens, so that pieces
of a sequence give exactly what the whole gives.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import Block, LayerNorm, Mixer, ResidualStack, block_around, last_real, projections
from zoo.ops.attention import join_heads, reference_attention, split_heads
from zoo.ops.blocked import Side, blocked_attention
from zoo.ops.rows import put_rows, take_rows
from zoo_longformer.config import LongformerConfig
from zoo_longformer.op import Globals, longformer_attention


class LongformerAttention(Mixer):
    """Sliding-window attention of one layer, with the first `n_global` tokens global."""

    def __init__(self, config: LongformerConfig, d_model: int, *, layer: int, causal: bool) -> None:
        super().__init__()
        d_qkv = config.d_qkv or d_model
        self.config, self.causal, self.d_head = config, causal, d_qkv // config.n_heads
        self.n_global = config.globals_in("causal" if causal else "bidirectional")
        back, ahead = config.sides(layer)
        self.window = (back, 0 if causal else ahead)
        self.dilations = config.dilations(layer)
        self.cached = back * max(self.dilations)
        self.q, self.k, self.v, self.out = projections(d_model, d_qkv, bias=config.bias)
        if self.n_global:
            self.q_global, self.k_global, self.v_global = (nn.Linear(d_model, d_qkv, bias=config.bias) for _ in "qkv")
            for theirs, own in ((self.q, self.q_global), (self.k, self.k_global), (self.v, self.v_global)):
                own.load_state_dict(theirs.state_dict())  # §3.1: Q_g, K_g, V_g begin as Q_s, K_s, V_s

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        if self.causal:
            return self._continue(x, mask, state)
        first = torch.arange(min(self.n_global, x.shape[1]), device=x.device).expand(x.shape[0], -1)
        return self.attend(x, mask, first, torch.ones_like(first, dtype=torch.bool)), None

    def attend(self, x: Tensor, mask: Tensor | None, index: Tensor, real: Tensor) -> Tensor:
        """One whole sequence whose global tokens stand at index (B, g) where real (B, g): x (B, L, D) -> (B, L, D)."""
        H, globals_ = self.config.n_heads, None
        if index.shape[1]:
            chosen = x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))  # (B, g, D)
            q_g, k_g, v_g = self.q_global(chosen), self.k_global(x), self.v_global(x)
            globals_ = Globals(index, real, split_heads(q_g, H), split_heads(k_g, H), split_heads(v_g, H))
        y = longformer_attention(
            *(split_heads(linear(x), H) for linear in (self.q, self.k, self.v)),
            window=self.window,
            dilation=self.dilations,
            globals_=globals_,
            causal=self.causal,
            mask=mask,
            dropout=self._attn_dropout,
        )
        return self.out(join_heads(y))  # (B, L, H d) -> (B, L, D)

    def _continue(self, x: Tensor, mask: Tensor | None, state: State) -> tuple[Tensor, State]:
        """The causal form, with what earlier pieces left. Global token m is the one at position m of the whole."""
        (batch, length, _), P, g, device = x.shape, self.cached, self.n_global, x.device
        H = self.config.n_heads
        q, k, v = (split_heads(linear(x), H) for linear in (self.q, self.k, self.v))
        mask = torch.ones(batch, length, dtype=torch.bool, device=device) if mask is None else mask
        place = torch.arange(length, device=device)
        count = last_real(mask)  # (B,) tokens of this piece
        earlier = 0 if state is None else P
        if state is None:
            state = self.init_state(batch, device=device, dtype=k.dtype)
        seen = state["seen"]  # (B,) tokens of earlier pieces
        near = mask & (seen[:, None] + place >= g)  # global keys come from the side
        # under autocast a state may be wider than what is projected now
        k, v = torch.cat([state["k"].to(k.dtype), k], 2), torch.cat([state["v"].to(v.dtype), v], 2)  # (B, H, P + L, d)
        near = torch.cat([state["valid"], near], 1)  # (B, P + L)
        last = count[:, None] + torch.arange(P, device=device)  # (B, P): the P places before the next piece
        new = {"k": take_rows(k, last), "v": take_rows(v, last), "valid": near.gather(1, last), "seen": seen + count}
        side = None
        if g:
            source = torch.arange(g, device=device) - seen[:, None]  # (B, g): where in this piece a global token is
            index = source.clamp(0, length - 1)
            known = (source >= 0) & (source < count[:, None]) & mask.gather(1, index)
            chosen = x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))  # (B, g, D)
            k_g, v_g = split_heads(self.k_global(chosen), H), split_heads(self.v_global(chosen), H)
            found = {
                "far_k": take_rows(k, index + P),
                "far_v": take_rows(v, index + P),
                "global_k": k_g,
                "global_v": v_g,
            }
            new |= {n: torch.where(known[:, None, :, None], x, state[n].to(x.dtype)) for n, x in found.items()}
            new["far_valid"] = state["far_valid"] | known
            side = Side(new["far_k"], new["far_v"], new["far_valid"], source)
        y = blocked_attention(
            q,
            k[:, :, P - earlier :],
            v[:, :, P - earlier :],
            window=self.window,
            dilation=self.dilations,
            side=side,
            causal=True,
            mask=near[:, P - earlier :],
            dropout=self._attn_dropout,
        )
        if g:
            visible = new["far_valid"][:, None, None] & torch.ones(g, g, dtype=torch.bool, device=device).tril()
            rows = reference_attention(
                split_heads(self.q_global(chosen), H),
                new["global_k"],
                new["global_v"],
                visible=visible,
                dropout=self._attn_dropout,
            )
            y = put_rows(y, torch.where(known, index, length), rows)
        return self.out(join_heads(y.masked_fill(~mask[:, None, :, None], 0))), new

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self._continue(x_t[:, None], None, state)
        return y[:, 0], state

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if not self.causal:
            return None
        heads, g = self.config.n_heads, self.n_global
        state = {
            "k": torch.zeros(batch, heads, self.cached, self.d_head, device=device, dtype=dtype),
            "v": torch.zeros(batch, heads, self.cached, self.d_head, device=device, dtype=dtype),
            "valid": torch.zeros(batch, self.cached, device=device, dtype=torch.bool),
            "seen": torch.zeros(batch, device=device, dtype=torch.int64),
        }
        if g:
            for name in ("far_k", "far_v", "global_k", "global_v"):
                state[name] = torch.zeros(batch, heads, g, self.d_head, device=device, dtype=dtype)
            state["far_valid"] = torch.zeros(batch, g, device=device, dtype=torch.bool)
        return state

    def state_size(self, seq_len: int) -> int:
        if not self.causal:
            return 0
        return self.config.n_heads * self.d_head * (2 * self.cached + 4 * self.n_global)

    @property
    def _attn_dropout(self) -> float:
        return self.config.attn_dropout if self.training else 0.0


def longformer_block(config: LongformerConfig, d_model: int, *, layer: int, causal: bool) -> Block:
    """Attention and channel MLP of one layer."""
    mixer = partial(LongformerAttention, config, d_model, layer=layer, causal=causal)
    return block_around(mixer, config, d_model, prenorm=config.prenorm)


class LongformerBackbone(Backbone):
    """Blocks of window and global attention. Positions come from outside."""

    def __init__(self, config: LongformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        causal = dims.mode == "causal"
        blocks = [longformer_block(config, dims.d_model, layer=layer, causal=causal) for layer in range(dims.n_layers)]
        self.stack = ResidualStack(blocks, LayerNorm(dims.d_model, eps=config.norm_eps) if config.prenorm else None)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D), and when causal the state after the last real token."""
        return self.stack(x, mask=mask, state=state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return self.stack.init_state(batch, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        return self.stack.step(x_t, state)

    def state_size(self, seq_len: int) -> int:
        return self.stack.state_size(seq_len)
