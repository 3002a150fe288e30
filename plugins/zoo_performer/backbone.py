"""The Performer.

B batch, L seq_len, D d_model, H heads, d = d_qkv / H, m random features, M = m (hyperbolic: 2m, relu without W: d).

    a = LN(x),  Q, K, V = a W_q, a W_k, a W_v                           (B, H, L, d)
    head_h = D^(-1) phi(Q_h) (phi(K_h)ᵀ V_h),  D = diag(phi(Q_h) phi(K_h)ᵀ 1)   Choromanski et al. 2021, §2.1-2.2
    h = x + concat_h(head_h) W_o
    y = h + W_2 act(W_1 LN(h) + b_1) + b_2

phi: see `zoo.ops.random_features`; causal: prefix sums instead of phi(K)ᵀ V, and a running maximum as the shift.
One W per layer, for all its heads. It is a buffer, a function of (seed, layer, step) only: drawn when the backbone is
built and again by `on_step` at every `redraw_every`-th optimiser step, never inside `forward`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import Block, LayerNorm, Mixer, ResidualStack, at_least_float32, block_around, projections
from zoo.ops.attention import join_heads, split_heads
from zoo.ops.random_features import draw_features
from zoo_performer.config import PerformerConfig
from zoo_performer.op import NOTHING, FeatureMap, causal_linear_attention, causal_step, linear_attention


class PerformerAttention(Mixer):
    """Multi-head attention by feature maps, bidirectional or causal."""

    W: Tensor | None

    def __init__(self, config: PerformerConfig, d_model: int, *, causal: bool) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        d_qkv = config.d_qkv or d_model
        self.d_head = d_qkv // config.n_heads
        self.q, self.k, self.v, self.out = projections(d_model, d_qkv, bias=config.bias)
        self.n_features = config.features(self.d_head) if config.project else 0
        self.register_buffer("W", torch.empty(self.n_features, self.d_head) if config.project else None)

    def draw(self, seed: int) -> None:
        """New random features, a function of `seed`."""
        if self.W is not None:
            drawn = draw_features(*self.W.shape, seed=seed, row_norms=self.config.row_norms)
            self.W.copy_(drawn)

    def features(self, dtype: torch.dtype) -> FeatureMap:
        """phi in the precision of the queries and keys."""
        c = self.config
        W = None if self.W is None else self.W.to(dtype)
        return FeatureMap(c.kernel, W, c.feature_eps, scaled=c.project, grad_shift=c.grad_shift)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        q, k, v = (split_heads(linear(x), self.config.n_heads) for linear in (self.q, self.k, self.v))  # (B, H, L, d)
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (at_least_float32(t) for t in (q, k, v))
            phi, floor = self.features(q.dtype), self.config.denominator_eps
            if self.causal:
                phi_k, running = phi.causal_keys(k, mask, None if state is None else state.get("r"))
                y, state = causal_linear_attention(
                    phi.queries(q), phi_k, v, mask=mask, running=running, state=state, denominator_eps=floor
                )
            else:
                y = linear_attention(phi.queries(q), phi.keys(k, mask), v, mask=mask, denominator_eps=floor)
        return self.out(join_heads(y).to(x.dtype)), state  # (B, L, H d) -> (B, L, D)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """x_t (B, D) -> (B, D)"""
        x, H = x_t[:, None], self.config.n_heads
        q, k, v = (split_heads(linear(x), H) for linear in (self.q, self.k, self.v))  # (B, H, 1, d)
        with torch.autocast(x_t.device.type, enabled=False):
            q, k, v = (at_least_float32(t) for t in (q, k, v))
            phi = self.features(q.dtype)
            phi_k, running = phi.causal_keys(k, r=state.get("r"))
            y, state = causal_step(
                phi.queries(q)[:, :, 0],
                phi_k[:, :, 0],
                v[:, :, 0],
                state,
                r=None if running is None else running[..., 0],
                denominator_eps=self.config.denominator_eps,
            )
        return self.out(y.flatten(1).to(x_t.dtype)), state

    # -- state ---------------------------------------------------------------------------------------------------

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if not self.causal:
            return None
        wide = dtype if dtype == torch.float64 else torch.float32
        return {
            name: torch.full((batch, *form), NOTHING if name == "r" else 0.0, device=device, dtype=wide)
            for name, form in self._state_form().items()
        }

    def state_size(self, seq_len: int) -> int:
        if not self.causal:
            return 0
        return sum(torch.Size(form).numel() for form in self._state_form().values())

    def _state_form(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the state's leaves after the batch."""
        H, M = self.config.n_heads, self.n_features or self.d_head
        M *= 2 if self.config.kernel == "hyperbolic" else 1
        form: dict[str, tuple[int, ...]] = {"S": (H, M, self.d_head), "z": (H, M)}
        return form if self.config.kernel == "relu" else form | {"r": (H,)}


def performer_block(config: PerformerConfig, d_model: int, *, causal: bool) -> Block:
    """h = x + FAVOR(LN x), y = h + MLP(LN h)."""
    return block_around(lambda: PerformerAttention(config, d_model, causal=causal), config, d_model)


class PerformerBackbone(Backbone):
    """Pre-norm blocks and a final layer norm."""

    seed: Tensor

    def __init__(self, config: PerformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        blocks = [performer_block(config, dims.d_model, causal=dims.mode == "causal") for _ in range(dims.n_layers)]
        self.stack = ResidualStack(blocks, LayerNorm(dims.d_model, eps=config.norm_eps))
        # of the run's own random state; it travels in the checkpoint, so that a resumed run draws what it would have
        self.register_buffer("seed", torch.randint(2**31, ()))
        self._draw(0)

    def on_step(self, step: int) -> None:
        """Draw W of every layer anew when `step` is a multiple of `redraw_every`."""
        every = self.config.redraw_every
        if every and step and step % every == 0:
            self._draw(step)

    def _draw(self, step: int) -> None:
        layers = [module for module in self.modules() if isinstance(module, PerformerAttention)]
        for i, layer in enumerate(layers):
            layer.draw(mixed(int(self.seed), step, i))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D), state of the causal form."""
        return self.stack(x, mask=mask, state=state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return self.stack.init_state(batch, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        return self.stack.step(x_t, state)

    def state_size(self, seq_len: int) -> int:
        return self.stack.state_size(seq_len)


def mixed(seed: int, step: int, layer: int) -> int:
    """One seed of three numbers, so that neither layers nor redraws share their features."""
    value = seed
    for part in (step, layer):
        # splitmix64's finaliser
        value = (value * 0x9E3779B97F4A7C15 + part + 1) % 2**64
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        value ^= value >> 27
    return value % 2**63
