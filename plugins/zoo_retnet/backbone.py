"""RetNet (Sun et al. 2023, arXiv 2307.08621): multi-scale retention and a gated MLP.

    MSR(X) = (gate(X W_G) * GroupNorm(o)) W_O        o = Retention(X W_Q, X W_K / sqrt(k), X W_V)     (eq. 8)
    Y = MSR(RMSNorm(X)) + X                          X' = GLU(RMSNorm(Y)) + Y                         (eq. 9)

B batch, L seq_len, D d_model, H heads, k = D / H key and v = value_dim / H value dimensions per head. State of a layer:
{"kv": (B, H, k, v) the decayed sum of k_m v_m^T with keys rotated relative to the next token, "seen": (B,) tokens so
far}. So positions start at 0 in every call, and sines stay exact at any distance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import ModelDims, State
from zoo.nn import (
    ACTIVATIONS,
    Block,
    Mixer,
    RMSNorm,
    StackBackbone,
    at_least_float32,
    init_xavier,
    returns_state,
    sequence_lengths,
    without_autocast,
)
from zoo.ops.attention import join_heads, split_heads
from zoo.ops.retention import advance, final_state, retention
from zoo_retnet.config import RetNetConfig
from zoo_retnet.op import decay_sums, group_norm, log_decays, published_denominator, rotate_pairs, rotate_state


class MultiScaleRetention(Mixer):
    """Retention with one decay per head. Bidirectional: gamma^|n-m|, the current token counted once."""

    def __init__(self, config: RetNetConfig, d_model: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.config, self.bidirectional = config, bidirectional
        D, V = d_model, config.resolved_value_dim(d_model)
        self.H, self.key_dim, self.head_dim = config.n_heads, D // config.n_heads, V // config.n_heads
        self.q_proj = nn.Linear(D, D, bias=False)
        self.k_proj = nn.Linear(D, D, bias=False)
        self.v_proj = nn.Linear(D, V, bias=False)
        self.g_proj = nn.Linear(D, V, bias=False)
        self.out_proj = nn.Linear(V, D, bias=False)
        init_xavier(self.q_proj, self.k_proj, self.v_proj, self.g_proj, gain=2**-2.5)
        init_xavier(self.out_proj, gain=2**-1)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> y (B, L, D), state (causal) or None (bidirectional)."""
        q, k, v = self.project(x, mask)
        lengths = None if mask is None else sequence_lengths(mask)
        o, state = self.retain(q, k, v, lengths, state)
        return self.gate_output(x, o), state

    def project(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute q, k (B, H, L, k) before rotation and v (B, H, L, v), at least float32; k and v are zero at pads."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (split_heads(at_least_float32(linear(x)), self.H) for linear in projections)
        if mask is not None:
            pads = ~mask[:, None, :, None]
            k, v = k.masked_fill(pads, 0.0), v.masked_fill(pads, 0.0)
        return q, k, v

    def retain(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, state: State = None
    ) -> tuple[Tensor, State]:
        """Compute o before the group norm: q, k (B, H, L, k), v (B, H, L, v) -> (B, H, L, v), state."""
        with without_autocast(q):
            c, (B, _, L, _) = self.config, q.shape
            log_gamma = log_decays(self.H, q.device)
            i = torch.arange(L, device=q.device)
            q, k = rotate_pairs(q, i), rotate_pairs(k * self.key_dim**-0.5, i)
            kv, seen = (None, None) if state is None else (state["kv"].to(q.dtype), state["seen"])
            o = retention(q, k, v, log_gamma, kv, form=c.form, chunk=c.chunk_size, two_sided=self.bidirectional)
            n = torch.full((B,), L, device=q.device) if lengths is None else lengths
            if c.denominator == "common":
                s = decay_sums(log_gamma, L, seen=seen, lengths=n if self.bidirectional else None)
                o = o / s.sqrt().to(o.dtype)[..., None]
            else:
                if state is not None and c.form != "recurrent":
                    raise ValueError(
                        f"published denominators of the {c.form} form are not defined on a carried state; "
                        "use denominator=common or form=recurrent"
                    )
                o = o / published_denominator(q, k, v, log_gamma, c.form, c.chunk_size)[..., None]
            if self.bidirectional or not returns_state():
                return o, None
            kv = rotate_state(final_state(k, v, log_gamma, lengths, kv), -n)
            return o, {"kv": kv, "seen": n if seen is None else seen + n}

    def gate_output(self, x: Tensor, o: Tensor) -> Tensor:
        """Apply group norm, gate and output projection (eq. 8): x (B, L, D), o (B, H, L, v) -> (B, L, D)."""
        with without_autocast(x):
            normed = join_heads(group_norm(o, self.config.norm_eps)).to(x.dtype)
        return self.out_proj(ACTIVATIONS[self.config.gate](self.g_proj(x)) * normed)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token by the recurrence (eq. 6): x_t (B, D) -> y_t (B, D)."""
        x = x_t.unsqueeze(1)
        q, k, v = (x.squeeze(2) for x in self.project(x, None))  # (B, H, ·)
        with without_autocast(x):
            log_gamma = log_decays(self.H, x.device)
            kv, seen = state["kv"].to(q.dtype), state["seen"]
            # the state is rotated relative to this token, so q and k are not rotated, and the state is afterwards
            kv = advance(kv, k * self.key_dim**-0.5, v, log_gamma)
            o = (q.unsqueeze(-2) @ kv).squeeze(-2)
            o = o / decay_sums(log_gamma, 1, seen=seen).sqrt().to(o.dtype)
            kv = rotate_state(kv, torch.full((1,), -1, device=x.device))
        return self.gate_output(x, o.unsqueeze(2)).squeeze(1), {"kv": kv, "seen": seen + 1}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if self.bidirectional:
            return None
        wide = torch.promote_types(dtype, torch.float32)
        return {
            "kv": torch.zeros(batch, self.H, self.key_dim, self.head_dim, device=device, dtype=wide),
            "seen": torch.zeros(batch, device=device, dtype=torch.int64),
        }


class GLU(nn.Module):
    """Gated channel MLP W_2 (act(W_1 x) * W_gate x), without biases."""

    def __init__(self, d_model: int, d_ff: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_ff, bias=False)
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.fc2 = nn.Linear(d_ff, d_model, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)) * self.gate(x))


class RetNetBackbone(StackBackbone):
    """n_layers of retention and GLU. Pre-norm with a final norm, or post-norm, optionally with DeepNorm's scales."""

    config: RetNetConfig

    def __init__(self, config: RetNetConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        if config.deepnorm:
            self.scale_initial_weights((8.0 * dims.n_layers) ** -0.25)

    def build_block(self, layer: int) -> Block:
        c, D = self.config, self.dims.d_model
        return Block(
            MultiScaleRetention(c, D, bidirectional=self.dims.mode == "bidirectional"),
            RMSNorm(D, eps=c.norm_eps),
            mlp=GLU(D, c.resolved_ffn_dim(D), c.activation),
            norm2=RMSNorm(D, eps=c.norm_eps),
            prenorm=c.prenorm,
            dropout=c.dropout,
            residual_scale=(2.0 * self.dims.n_layers) ** 0.25 if c.deepnorm else 1.0,
        )

    def build_final_norm(self) -> nn.Module | None:
        return RMSNorm(self.dims.d_model, eps=self.config.norm_eps) if self.config.prenorm else None

    @torch.no_grad()
    def scale_initial_weights(self, beta: float) -> None:
        """DeepNorm: multiply values, output projection and both MLP matrices (not the gates) by beta."""
        for name, parameter in self.named_parameters():
            if name.endswith(("v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")):
                parameter.mul_(beta)
