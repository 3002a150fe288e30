"""Mega (Ma et al. 2023, arXiv 2209.10655): a moving average drives single-head gated attention, then a channel MLP.

Shapes: B batch, L seq_len, D d_model, N d_ema, z d_attn, E d_value, R directions, c chunk_size, C chunks, T tokens of
the open chunk and of this call. A layer with input x0 and x = norm(x0) computes (sections are the paper's)

    (1)  x' = silu(EMA(x) + omega * x)                                      §3.1, moving average
    (2)  [u; s; r; c] = W x' + b                                            §3.2 and §3.3, one projection of x'
    (3)  q = kappa_q * silu(s) + mu_q,   k = kappa_k * silu(s) + mu_k       shared representation
    (4)  v = silu(W_v x + b_v)                                              of x, not of x'
    (5)  o = f(q kᵀ / tau + b_rel) v                                        within chunks (§3.5), or over everything
    (6)  h = silu(c + U_h (silu(r) * o) + b_h)                              candidate, through the reset gate
    (7)  y = x0 + sigmoid(u) * (h - x0)                                     update gate
    (8)  x0 <- y + W_2 silu(W_1 norm(y))                                    channel MLP

or, post-norm, the same with x = x0 and a norm of y and of the sum in (8).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import ModelDims, State
from zoo.nn import (
    MLP,
    Block,
    Mixer,
    RMSNorm,
    StackBackbone,
    at_least_float32,
    init_normal,
    make_norm,
    param_options,
    returns_state,
    sequence_lengths,
    without_autocast,
)
from zoo.ops.diagonal import DiagonalSSM
from zoo.ops.fftconv import fft_conv
from zoo_mega.cache import Cache, gather_tokens, scatter_tokens
from zoo_mega.config import MegaConfig
from zoo_mega.op import damped_ema, single_head_attention


class MovingAverage(nn.Module):
    """The damped moving average of every channel, equation (1); bidirectional, the sum of one from each side.

    Both sides include the current token. Pads are zero in the averages. The state is h (B, D, N) after each sequence's
    last real token, causal only.
    """

    def __init__(self, d_model: int, d_ema: int, *, bidirectional: bool, truncation: int | None = None) -> None:
        super().__init__()
        R = 2 if bidirectional else 1
        self.recurrent = R == 1 and truncation is None
        self.truncation = truncation
        self.alpha = nn.Parameter(0.2 * torch.randn(R, d_model, d_ema))
        self.delta = nn.Parameter(0.2 * torch.randn(R, d_model, d_ema))
        sign = torch.ones(d_ema)
        sign[1::2] = -1  # alternating signs, so that the dimensions do not learn the same
        self.beta = nn.Parameter(sign + 0.02 * torch.randn(R, d_model, d_ema))
        self.eta = nn.Parameter(torch.randn(R, d_model, d_ema))
        self.omega = nn.Parameter(torch.randn(d_model))
        param_options(self, "omega")  # decays like a weight, although it has one dimension

    @property
    def system(self) -> DiagonalSSM:
        """Return the averages of all R D channels as one diagonal state space model."""
        return damped_ema(self.alpha, self.delta, self.beta, self.eta)

    def kernel(self, L: int, dtype: torch.dtype) -> Tensor:
        """Compute the convolution kernels (R, D, taps), taps = L or the truncation."""
        taps = L if self.truncation is None else min(L, self.truncation)
        return self.system.kernel(taps, dtype)[0].unflatten(0, (self.eta.shape[0], -1))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> (B, L, D), state; None unless it is a recurrence that can be continued."""
        if state is not None and not self.recurrent:
            raise ValueError("a bidirectional or truncated moving average carries no state, but one was given")
        with without_autocast(x):
            wide = at_least_float32(x)
            real = (wide if mask is None else wide.masked_fill(~mask[..., None], 0.0)).transpose(1, 2)  # (B, D, L)
            K = self.kernel(x.shape[1], wide.dtype)
            if K.shape[0] == 1:
                y = fft_conv(real, K[0])
            else:
                # the second kernel of fft_conv begins at the next token, so its first tap joins the other's
                y = fft_conv(real, K[0] + F.pad(K[1, :, :1], (0, K.shape[-1] - 1)), K[1, :, 1:])
            if state is not None:
                y = y + self.system.response(state, x.shape[1])
            if self.recurrent:
                lengths = None if mask is None else sequence_lengths(mask)
                state = self.system.final_state(real, lengths, state) if returns_state() else None
            return F.silu(y.transpose(1, 2) + self.omega.to(wide.dtype) * wide).to(x.dtype), state

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the recurrence by one token: x_t (B, D), state (B, D, N)."""
        with without_autocast(x_t):
            wide = at_least_float32(x_t)
            y_t, state = self.system.step(wide, state)
            return F.silu(y_t + self.omega.to(wide.dtype) * wide).to(x_t.dtype), state


class GatedAttention(Mixer):
    """Gated attention over the moving average, equations (1) to (7): x = norm(x0) and x0 -> y - x0.

    State, causal only: {"ema": (B, D, N), "k": (B, M, z), "v": (B, M, E), "real": (B, M) bool} with the keys and values
    of the open chunk, M = c - 1; without chunks those of all tokens so far.
    """

    def __init__(self, config: MegaConfig, dims: ModelDims) -> None:
        super().__init__()
        D = dims.d_model
        self.z, self.E = config.resolved_d_attn(D), config.resolved_d_value(D)
        self.causal, self.kind = dims.mode == "causal", config.attention
        self.chunk = None if config.chunk_size == -1 else config.chunk_size
        self.ema = MovingAverage(D, config.d_ema, bidirectional=not self.causal, truncation=config.truncation)
        self.W_v = nn.Linear(D, self.E)
        self.W = nn.Linear(D, D + self.z + self.E + D)
        self.U_h = nn.Linear(self.E, D)
        self.kappa = nn.Parameter(0.02 * torch.randn(2, self.z))
        self.mu = nn.Parameter(torch.zeros(2, self.z))
        n_positions = self.chunk or config.max_positions or dims.max_len
        widths = [2 * n_positions - 1] if config.bias == "simple" else [self.z, self.z]
        self.bias = nn.ParameterList(0.02 * torch.randn(width) for width in widths)
        param_options(self.bias, *dict(self.bias.named_parameters()))  # decay like weights
        self.dropout = nn.Dropout(config.dropout)
        init_normal(self.W_v, self.W, self.U_h)  # N(0, 0.02²), as the published code

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, state: State = None, residual: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L), residual x0 (B, L, D), default x -> (B, L, D), state or None."""
        x_ema, ema = self.ema(x, mask=mask, state=None if state is None else state["ema"])  # (1)
        return self.gated_attention(x, x_ema, x if residual is None else residual, mask, state, ema)

    def step(self, x_t: Tensor, state: State, *, residual: Tensor | None = None) -> tuple[Tensor, State]:
        """One token: x_t (B, D), by the recurrence of the moving average and one query over the open chunk."""
        if not self.causal:
            raise TypeError("a bidirectional Mega has no step form")
        x_ema, ema = self.ema.step(x_t, state["ema"])
        x, x_ema, x0 = (t.unsqueeze(1) for t in (x_t, x_ema, x_t if residual is None else residual))
        y, state = self.gated_attention(x, x_ema, x0, None, state, ema)
        return y.squeeze(1), state

    def gated_attention(
        self, x: Tensor, x_ema: Tensor, x0: Tensor, mask: Tensor | None, state: State, ema: Tensor
    ) -> tuple[Tensor, State]:
        """Apply equations (2) to (7) to x, x' and x0 (B, L, D); `ema` becomes part of the new state."""
        D = x.shape[-1]
        u, s, r, c = self.W(self.dropout(x_ema)).split([D, self.z, self.E, D], -1)  # (2)
        q, k = (F.silu(s) * self.kappa[i] + self.mu[i] for i in range(2))  # (3)
        v = F.silu(self.W_v(x))  # (4)
        cache = None if state is None else Cache(state["k"], state["v"], state["real"])
        o, cache = self.chunked_attention(q, k, v, mask, cache)  # (5)
        h = self.dropout(F.silu(c + self.U_h(F.silu(r) * o)))  # (6)
        return torch.sigmoid(u) * (h - x0), None if cache is None else {"ema": ema, **cache._asdict()}  # (7)

    def chunked_attention(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Cache | None]:
        """Apply equation (5) to q, k (B, L, z), v (B, L, E) after the cached tokens: o (B, L, E), next cache."""
        L, real, at = q.shape[1], mask, torch.arange(q.shape[1], device=q.device)
        if cache is not None and cache.real.shape[1]:
            cache, at = cache.append(k, v, mask)
            k, v, real = cache
        if self.chunk is None or k.shape[1] <= self.chunk:
            o = self.attention(q, k, v, at, real)
        elif at.ndim == 1:
            o = self.attention_in_chunks(q, k, v, real, self.chunk)[:, :L]
        else:
            # cached tokens have no queries: their columns are zero, and their outputs are dropped
            q = scatter_tokens(q.new_zeros(*k.shape), at, q)
            o = gather_tokens(self.attention_in_chunks(q, k, v, real, self.chunk), at)
        if not self.causal:
            return o, None
        if real is None:
            real = torch.ones(k.shape[:2], dtype=torch.bool, device=k.device)
        cache = Cache(k, v, real) if self.chunk is None else Cache(k, v, real).open_chunk(self.chunk)
        return o, cache.without_pads()

    def attention_in_chunks(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, c: int) -> Tensor:
        """Attend within each chunk, with lags of the bias counted anew: (B, T, ·) -> (B, C c, E)."""
        T = q.shape[1]
        if real is None and T % c and not self.causal:
            real = torch.ones(1, T, dtype=torch.bool, device=q.device)
        if real is not None:
            real = F.pad(real, (0, -T % c)).unflatten(1, (-1, c))  # (B, C, c)
        q, k, v = (F.pad(t, (0, 0, 0, -T % c)).unflatten(1, (-1, c)) for t in (q, k, v))  # (B, C, c, ·)
        return self.attention(q, k, v, torch.arange(c, device=q.device), real).flatten(1, 2)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, at: Tensor, real: Tensor | None) -> Tensor:
        """Call `single_head_attention` with this layer's bias and attention function."""
        return single_head_attention(q, k, v, tuple(self.bias), at, real, kind=self.kind, causal=self.causal)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if not self.causal:
            return None
        M = 0 if self.chunk is None else self.chunk - 1
        wide = dtype if dtype == torch.float64 else torch.float32
        return {
            "ema": torch.zeros(batch, *self.ema.eta.shape[1:], device=device, dtype=wide),
            "k": torch.zeros(batch, M, self.z, device=device, dtype=dtype),
            "v": torch.zeros(batch, M, self.E, device=device, dtype=dtype),
            "real": torch.zeros(batch, M, device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        if not self.causal:
            return 0
        M = seq_len if self.chunk is None else self.chunk - 1
        return self.ema.eta[0].numel() + M * (self.z + self.E)


class MegaBlock(Block):
    """A Mega block, equations (1) to (8). The mixer also gets x0, with which its update gate interpolates."""

    mixer: GatedAttention

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        y, state = self.mixer(self.norm1(x, mask) if self.prenorm else x, mask=mask, state=state, residual=x)
        return self.apply_mlp(self._gated(x, y, mask), mask), state

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        y_t, state = self.mixer.step(self.norm1(x_t, None) if self.prenorm else x_t, state, residual=x_t)
        return self.apply_mlp(self._gated(x_t, y_t, None), None), state

    def _gated(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        # without dropout, which the mixer applied to the candidate; the gate's share of x stays whole
        return x + y if self.prenorm else self.norm1(x + y, mask)


class MegaBackbone(StackBackbone):
    """n_layers Mega blocks, and a final norm if they are pre-norm."""

    def build_block(self, layer: int) -> MegaBlock:
        config, D = self.config, self.dims.d_model
        mlp = MLP(D, config.resolved_d_ff(D), activation="silu")
        init_normal(mlp.linear1, mlp.linear2)
        return MegaBlock(
            GatedAttention(config, self.dims),
            self.build_norm(),
            mlp=mlp,
            norm2=self.build_norm(),
            prenorm=config.prenorm,
            dropout=config.dropout,
        )

    def build_final_norm(self) -> nn.Module | None:
        return self.build_norm() if self.config.prenorm else None

    def build_norm(self) -> nn.Module:
        """Build the norm that the configuration names; "scale" is RMS norm with one number for all channels."""
        return RMSNorm(1) if self.config.norm == "scale" else make_norm(self.config.norm, self.dims.d_model)
