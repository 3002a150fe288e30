"""The Performer.

B batch, L seq_len, D d_model, H heads, d = d_qkv / H, m random features, M = m (hyperbolic: 2m, relu without W: d).

    a = LN(x),  Q, K, V = a W_q, a W_k, a W_v                           (B, H, L, d)
    head_h = D^(-1) phi(Q_h) (phi(K_h)ᵀ V_h),  D = diag(phi(Q_h) phi(K_h)ᵀ 1)   Choromanski et al. 2021, §2.1-2.2
    h = x + concat_h(head_h) W_o
    y = h + W_2 act(W_1 LN(h) + b_1) + b_2

phi: see `zoo.ops.random_features`; causal: prefix sums instead of phi(K)ᵀ V, and running maxima as the shifts.
One W per layer, for all its heads. It is a buffer, a function of (seed, layer, step) only: drawn when the backbone is
built and again by `on_step` at every `redraw_every`-th optimiser step, never inside `forward`.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor

from zoo import ModelDims, State
from zoo.nn import MultiHeadAttention, TransformerStack, at_least_float32, has_values, without_autocast
from zoo.ops.random_features import draw_features
from zoo_performer.config import PerformerConfig
from zoo_performer.op import (
    NO_KEY,
    FeatureMap,
    causal_linear_attention,
    exact_attention,
    exact_causal_attention,
    linear_attention,
)


class PerformerAttention(MultiHeadAttention):
    """Attention by feature maps, bidirectional or causal.

    State, causal only: {"S": (B, H, M, d), "z": (B, H, M)}, and the shift "r" of exponential kernels, (B, H), or
    (B, H, M) where nothing is added to features or sums.
    """

    W: Tensor | None

    def __init__(self, config: PerformerConfig, d_model: int, *, causal: bool) -> None:
        super().__init__(d_model, config.n_heads, d_qkv=config.d_qkv, bias=config.bias, causal=causal)
        self.config = config
        self.register_buffer("W", torch.empty(config.features(self.d_head), self.d_head) if config.project else None)

    def draw(self, seed: int) -> None:
        """Draw new random features W, a function of `seed`."""
        if self.W is not None:
            self.W.copy_(draw_features(*self.W.shape, seed=seed, row_norms=self.config.row_norms))

    def feature_map(self, dtype: torch.dtype) -> FeatureMap:
        """Return phi in the precision of the queries and keys."""
        c = self.config
        W = None if self.W is None else self.W.to(dtype)
        return FeatureMap(c.kernel, W, c.feature_eps, scaled=c.project, grad_shift=c.grad_shift)

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        with without_autocast(q):
            q, k, v = (at_least_float32(t) for t in (q, k, v))
            phi, eps = self.feature_map(q.dtype), self.config.denominator_eps
            if self.config.exact:
                if self.causal:
                    return exact_causal_attention(phi, q, k, v, mask, state)
                return exact_attention(phi, q, k, v, mask), None
            if not self.causal:
                return linear_attention(phi.queries(q), phi.keys(k, mask), v, mask=mask, denominator_eps=eps), None
            phi_k, running = phi.causal_keys(k, mask, None if state is None else state.get("r"))
            return causal_linear_attention(
                phi.queries(q), phi_k, v, mask=mask, running=running, state=state, denominator_eps=eps
            )

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if not self.causal:
            return None
        d, kernel = self.d_head, self.config.kernel
        M = (d if self.W is None else self.W.shape[0]) * (2 if kernel == "hyperbolic" else 1)
        zeros = partial(torch.zeros, device=device, dtype=torch.promote_types(dtype, torch.float32))
        state = {"S": zeros(batch, self.n_heads, M, d), "z": zeros(batch, self.n_heads, M)}
        if kernel == "relu":
            return state
        return state | {"r": zeros(batch, self.n_heads, *([M] if self.config.exact else [])) + NO_KEY}


class PerformerBackbone(TransformerStack):
    """Pre-norm blocks and a final layer norm."""

    config: PerformerConfig
    seed: Tensor

    def __init__(self, config: PerformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        # of the run's own random state; it is saved in the checkpoint, so that a resumed run draws the same features
        self.register_buffer("seed", torch.randint(2**31, ()))
        if has_values(self.seed):  # else seed and features come with the weights that the module is given
            self._draw(0)

    def build_mixer(self, layer: int) -> PerformerAttention:
        return PerformerAttention(self.config, self.dims.d_model, causal=self.dims.mode == "causal")

    def on_step(self, step: int) -> None:
        """Draw W of every layer anew when `step` is a multiple of `redraw_every`."""
        every = self.config.redraw_every
        if every and step and step % every == 0:
            self._draw(step)

    def _draw(self, step: int) -> None:
        for i, block in enumerate(self.stack.blocks):
            cast("PerformerAttention", block.mixer).draw(mix_seed(int(self.seed), step, i))


def mix_seed(seed: int, step: int, layer: int) -> int:
    """Hash three numbers into one seed, so that neither layers nor redraws share their features."""
    value = seed
    for part in (step, layer):
        # splitmix64's finaliser
        value = (value * 0x9E3779B97F4A7C15 + part + 1) % 2**64
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        value ^= value >> 27
    return value % 2**63
