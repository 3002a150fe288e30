"""H3 (Fu et al. 2023, arXiv 2212.14052); in a hybrid some layers have softmax attention in H3's place.

B batch, L seq_len, D d_model, d head_dim, H = D / d heads, N d_state, n = N/2. Channel c of q, k, v is h d + i.

    q, k, v = u W_q + b_q, u W_k + b_k, u W_v + b_v            (algorithm 1 of the paper)
    kk = shift SSM of k, every channel for itself
    s_ij = diagonal SSM of kk_i v_j, over the d x d outer product inside each head, one system per head
    o_j = sum_i q_i s_ij,   y = o W_o + b_o                    o in channel order j H + h, as in the authors' code
    x + y(norm x), then x + MLP(norm x)                        a block
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import ModelDims, State
from zoo.nn import (
    MLP,
    Block,
    Mixer,
    MultiHeadAttention,
    StackBackbone,
    at_least_float32,
    attend_to_cache,
    extend_cache,
    init_cache,
    init_normal,
    make_norm,
    returns_state,
    sequence_lengths,
    without_autocast,
)
from zoo.ops.attention import attention
from zoo_h3.config import H3Config
from zoo_h3.ssm import Diagonal, Shift, run, run_step


class H3Mixer(Mixer):
    """The H3 layer.

    State, causal only: {"shift": (B, D, N) real, "diag": (B, d, d, H, n) complex}, both after each row's last real
    token. The second remembers the outer products K V^T.
    """

    def __init__(self, config: H3Config, d_model: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional, self.head_dim, self.d_state = bidirectional, config.head_dim, config.d_state
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d_model, d_model) for _ in range(3))
        n_kernels = 2 if bidirectional else 1
        self.shift = Shift(config, d_model, n_kernels=n_kernels)
        self.diag = Diagonal(config, d_model // config.head_dim, n_kernels=n_kernels)
        self.output_linear = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> y (B, L, D), state (causal) or None (bidirectional)."""
        o, state = self.mix(self.q_proj(x), self.k_proj(x), self.v_proj(x), mask=mask, state=state)
        return self.output_linear(o), state

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, state: State = None
    ) -> tuple[Tensor, State]:
        """Both state space models and products: q, k, v (B, L, D) -> o (B, L, D), channels j H + h, and the state."""
        lengths = None
        if mask is not None:
            # after the projections, whose biases would let pads through
            k, v = (z.masked_fill(~mask[..., None], 0.0) for z in (k, v))
            lengths = sequence_lengths(mask)
        with without_autocast(q):
            dtype, d2 = q.dtype, self.head_dim**2
            q, k, v = (at_least_float32(z).transpose(1, 2) for z in (q, k, v))  # (B, D, L)
            shift, diag = self.shift.system(), self.diag.system()
            shift0, diag0 = (None, None) if state is None else (state["shift"], state["diag"].flatten(0, 2))
            kv = self.outer(run(shift, self.shift.D, k, shift0), v)
            o = self.contract(q, run(diag, self.diag.D, kv, diag0)).transpose(1, 2).to(dtype)
            if self.bidirectional or not returns_state():
                return o, None
            kv_lengths = None if lengths is None else lengths.repeat_interleave(d2)
            return o, {
                "shift": shift.final_state(k, lengths, shift0),
                "diag": self.unfold(diag.final_state(kv, kv_lengths, diag0)),
            }

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token by the recurrences: x_t (B, D) -> y_t (B, D), state."""
        q, k, v = self.q_proj(x_t), self.k_proj(x_t), self.v_proj(x_t)
        with without_autocast(x_t):
            dtype = q.dtype
            q, k, v = (at_least_float32(z) for z in (q, k, v))
            kk, shift = run_step(self.shift.system(), self.shift.D, k, state["shift"])
            s, diag = run_step(self.diag.system(), self.diag.D, self.outer(kk, v), state["diag"].flatten(0, 2))
            o = self.contract(q, s).to(dtype)  # (B, D)
        return self.output_linear(o), {"shift": shift, "diag": self.unfold(diag)}

    def outer(self, kk: Tensor, v: Tensor) -> Tensor:
        """kk_i v_j inside each head: (B, D, …) -> (B d d, H, …)."""
        return (self.heads(kk)[:, :, None] * self.heads(v)[:, None]).flatten(0, 2)

    def contract(self, q: Tensor, s: Tensor) -> Tensor:
        """sum_i q_i s_ij: q (B, D, …), s (B d d, H, …) -> (B, D, …), channels j H + h."""
        return (self.heads(q)[:, :, None] * self.unfold(s)).sum(1).flatten(1, 2)

    def heads(self, z: Tensor) -> Tensor:
        """(B, D, …) with channels h d + i -> (B, d, H, …)."""
        return z.unflatten(1, (-1, self.head_dim)).transpose(1, 2)

    def unfold(self, s: Tensor) -> Tensor:
        """(B d d, …) -> (B, d, d, …)."""
        return s.unflatten(0, (-1, self.head_dim, self.head_dim))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if self.bidirectional:
            return None
        (D, N), d = self.shift.B.shape, self.head_dim
        wide = torch.promote_types(dtype, torch.float32)
        complex_ = torch.promote_types(wide, torch.complex64)  # torch.compile cannot trace `wide.to_complex()`
        return {
            "shift": torch.zeros(batch, D, N, device=device, dtype=wide),
            "diag": torch.zeros(batch, d, d, D // d, N // 2, device=device, dtype=complex_),
        }


class AttentionMixer(MultiHeadAttention):
    """Softmax attention of the hybrid, without positions: the H3 layers around it know the order.

    The state, causal only, is the key-value cache of all tokens so far (zoo/nn/cache.py).
    """

    def __init__(self, n_heads: int, d_model: int, *, causal: bool) -> None:
        super().__init__(d_model, n_heads, fused_qkv=True, causal=causal)

    def reset_parameters(self) -> None:
        """Keep the initial values of `nn.Linear`, as the authors' attention does."""

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        if not self.causal:
            return attention(q, k, v, mask=mask), None
        cache = extend_cache(state, k, v, mask)
        return attend_to_cache(q, cache, all_real=state is None and mask is None), cache

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return init_cache(batch, self.n_heads, self.d_head, device=device, dtype=dtype) if self.causal else None

    def state_size(self, seq_len: int) -> int:
        return 2 * seq_len * self.n_heads * self.d_head if self.causal else 0


class H3Backbone(StackBackbone):
    """Pre-norm blocks of mixer and channel MLP, and a final norm."""

    config: H3Config

    def __init__(self, config: H3Config, dims: ModelDims) -> None:
        super().__init__(config, dims)
        if config.init_std is not None:
            self.init_weights(config.init_std)

    def build_block(self, layer: int) -> Block:
        c, D, causal = self.config, self.dims.d_model, self.dims.mode == "causal"
        is_attention = layer in c.attn_layers
        return Block(
            AttentionMixer(c.attn_heads, D, causal=causal) if is_attention else H3Mixer(c, D, bidirectional=not causal),
            make_norm(c.norm, D),
            mlp=MLP(D, c.d_ff or 4 * D, activation="gelu_tanh"),
            norm2=make_norm(c.norm, D),
            dropout=c.dropout,
        )

    def build_final_norm(self) -> nn.Module:
        return make_norm(self.config.norm, self.dims.d_model)

    def init_weights(self, std: float) -> None:
        """Initialise as GPT-2: N(0, std²), zero biases, and what ends a branch smaller by sqrt(2 n_layers).

        H3's own output projection is not made smaller: the authors' rule goes by names that it does not have.
        """
        for block in self.stack.blocks:
            for linear in (m for m in block.modules() if isinstance(m, nn.Linear)):
                init_normal(linear, std=std)
            for name in ("mlp.linear2", "mixer.out")[: 1 + isinstance(block.mixer, AttentionMixer)]:
                weight = block.get_parameter(f"{name}.weight")
                nn.init.normal_(weight, std=std / (2 * self.dims.n_layers) ** 0.5)
