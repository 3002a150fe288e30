"""H3: x + H3(norm x), then x + MLP(norm x); in a hybrid some layers have softmax attention in H3's place.

B batch, L seq_len, D d_model, d head_dim, H = D / d heads, N d_state, n = N/2. Channel c of q, k, v is h d + i.

    q, k, v = u W_q + b_q, u W_k + b_k, u W_v + b_v            (algorithm 1 of the paper)
    kk = shift SSM of k, every channel for itself
    s_ij = diagonal SSM of kk_i v_j, over the d x d outer product inside each head, one system per head
    o_j = sum_i q_i s_ij,   y = o W_o + b_o                    o in channel order j H + h, as in the authors' code
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import MLP, Block, Mixer, ResidualStack, at_least_float32, last_real, make_norm
from zoo.ops.attention import attention, join_heads, split_heads
from zoo_h3.config import H3Config
from zoo_h3.ssm import Diagonal, Shift, run


class H3Mixer(Mixer):
    """The H3 layer.

    State: {"shift": (B, D, N) real, "diag": (B, d, d, H, n) complex}, both after each row's last real token. The
    second is the memory of the outer products K V^T.
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
        """Both state space models and both gates: q, k, v (B, L, D) -> o (B, L, D), channels j H + h, and the state."""
        lengths = None
        if mask is not None:
            # after the projections, whose biases would let pads through
            k, v = (z.masked_fill(~mask[..., None], 0.0) for z in (k, v))
            lengths = last_real(mask)
        with torch.autocast(q.device.type, enabled=False):
            dtype, B, d = q.dtype, q.shape[0], self.head_dim
            q, k, v = (at_least_float32(z).transpose(1, 2) for z in (q, k, v))  # (B, D, L)
            shift, diag = self.shift.system(), self.diag.system()
            before = (None, None) if state is None else (state["shift"], state["diag"].flatten(0, 2))
            kk = run(shift, self.shift.D, k, before[0])
            kv = (self.heads(kk)[:, :, None] * self.heads(v)[:, None]).flatten(0, 2)  # (B d d, H, L)
            s = run(diag, self.diag.D, kv, before[1]).unflatten(0, (B, d, d))
            o = (self.heads(q)[:, :, None] * s).sum(1).flatten(1, 2)  # (B, d, d, H, L) -> (B, D, L)
            o = o.transpose(1, 2).to(dtype)
            if self.bidirectional:
                return o, None
            rows = None if lengths is None else lengths.repeat_interleave(d * d)
            after = {
                "shift": shift.final_state(k, lengths, before[0]),
                "diag": diag.final_state(kv, rows, before[1]).unflatten(0, (B, d, d)),
            }
            return o, after

    def heads(self, z: Tensor) -> Tensor:
        """(B, D, …) with channels h d + i -> (B, d, H, …)."""
        return z.unflatten(1, (-1, self.head_dim)).transpose(1, 2)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if self.bidirectional:
            return None
        (D, N), d = self.shift.B.shape, self.head_dim
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return {
            "shift": torch.zeros(batch, D, N, device=device, dtype=wide),
            "diag": torch.zeros(batch, d, d, D // d, N // 2, device=device, dtype=wide.to_complex()),
        }

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token by the recurrences: x_t (B, D) -> y_t (B, D), state."""
        if self.bidirectional:
            raise TypeError("a bidirectional H3 has no step form")
        q, k, v = self.q_proj(x_t), self.k_proj(x_t), self.v_proj(x_t)
        with torch.autocast(x_t.device.type, enabled=False):
            (B, _), d = x_t.shape, self.head_dim
            dtype = q.dtype
            q, k, v = (at_least_float32(z) for z in (q, k, v))
            kk, shifted = self.shift.system().step(k, state["shift"])
            kk = kk + self.shift.D.to(k.dtype) * k
            kv = (self.heads(kk)[:, :, None] * self.heads(v)[:, None]).flatten(0, 2)  # (B d d, H)
            s, memory = self.diag.system().step(kv, state["diag"].flatten(0, 2))
            s = (s + self.diag.D.to(kv.dtype) * kv).unflatten(0, (B, d, d))
            o = (self.heads(q)[:, :, None] * s).sum(1).flatten(1, 2).to(dtype)  # (B, D)
        return self.output_linear(o), {"shift": shifted, "diag": memory.unflatten(0, (B, d, d))}

    def state_size(self, seq_len: int) -> int:
        D, N = self.shift.B.shape
        return 0 if self.bidirectional else D * N + self.head_dim * D * N


class AttentionMixer(Mixer):
    """Softmax attention of the hybrid, without positions: the H3 layers around it know the order.

    State: {"k", "v": (B, T, D), "real": (B, T) bool} of all T tokens so far.
    """

    def __init__(self, n_heads: int, d_model: int, *, causal: bool) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> y (B, L, D), state (causal) or None (bidirectional)."""
        q, k, v = self.qkv(x).chunk(3, -1)
        T, L = 0 if state is None else state["k"].shape[1], x.shape[1]
        real = mask
        if mask is not None:
            k, v = (z.masked_fill(~mask[..., None], 0.0) for z in (k, v))
        if state is not None:
            k, v = (torch.cat([state[name].to(z.dtype), z], 1) for name, z in (("k", k), ("v", v)))
            now = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            real = torch.cat([state["real"], now], 1)
        if self.causal and L > 1:
            # empty queries in the places of the past, so that query i sees keys 0 .. i
            q = torch.cat([q.new_zeros(x.shape[0], T, q.shape[2]), q], 1)
        heads = (split_heads(z, self.n_heads) for z in (q, k, v))
        y = attention(*heads, mask=real, causal=self.causal and L > 1)[:, :, -L:]
        y = self.out(join_heads(y))
        if not self.causal:
            return y, None
        if real is None:
            real = torch.ones(k.shape[:2], dtype=torch.bool, device=x.device)
        return y, {"k": k, "v": v, "real": real}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if not self.causal:
            return None
        empty = torch.zeros(batch, 0, self.out.in_features, device=device, dtype=dtype)
        return {"k": empty, "v": empty.clone(), "real": torch.zeros(batch, 0, device=device, dtype=torch.bool)}

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token: x_t (B, D) -> y_t (B, D), state one token longer."""
        if not self.causal:
            raise TypeError("bidirectional attention has no step form")
        y, state = self.forward(x_t[:, None], state=state)
        return y[:, 0], state

    def state_size(self, seq_len: int) -> int:
        return 2 * seq_len * self.out.in_features if self.causal else 0


def h3_block(config: H3Config, d_model: int, *, layer: int, bidirectional: bool) -> Block:
    """The mixer of this layer and a channel MLP with GELU (tanh form), each under its norm."""
    mixer: Mixer
    if layer in config.attn_layers:
        mixer = AttentionMixer(config.attn_heads, d_model, causal=not bidirectional)
    else:
        mixer = H3Mixer(config, d_model, bidirectional=bidirectional)
    return Block(
        mixer,
        make_norm(config.norm, d_model),
        mlp=MLP(d_model, config.d_ff or 4 * d_model, activation="gelu_tanh"),
        norm2=make_norm(config.norm, d_model),
        dropout=config.dropout,
    )


class H3Backbone(Backbone):
    """n_layers pre-norm blocks and a final norm."""

    def __init__(self, config: H3Config, dims: ModelDims) -> None:
        super().__init__(config, dims)
        bidirectional = dims.mode == "bidirectional"
        blocks = [h3_block(config, dims.d_model, layer=i, bidirectional=bidirectional) for i in range(dims.n_layers)]
        self.stack = ResidualStack(blocks, make_norm(config.norm, dims.d_model))
        if config.init_std is not None:
            self.initialise(config.init_std)

    def initialise(self, std: float) -> None:
        """GPT-2's start: N(0, std²), zero biases, and what ends a branch smaller by sqrt(2 n_layers).

        H3's own output projection is not made smaller: the authors' rule goes by names that it does not have.
        """
        for block in self.stack.blocks:
            for linear in (m for m in block.modules() if isinstance(m, nn.Linear)):
                nn.init.normal_(linear.weight, std=std)
                nn.init.zeros_(linear.bias)
            for name in ("mlp.linear2", "mixer.out")[: 1 + isinstance(block.mixer, AttentionMixer)]:
                weight = block.get_parameter(f"{name}.weight")
                nn.init.normal_(weight, std=std / (2 * self.dims.n_layers) ** 0.5)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        return self.stack(x, mask=mask, state=state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return self.stack.init_state(batch, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        return self.stack.step(x_t, state)

    def state_size(self, seq_len: int) -> int:
        return self.stack.state_size(seq_len)
