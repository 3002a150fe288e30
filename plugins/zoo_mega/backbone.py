"""Mega: y = x + u * (h - x), where a moving average drives single-head attention and both gates; then an MLP.

    x' = silu(EMA(x) + omega * x)                              moving average (section 3.1)
    [u; s; r; c] = W x' + b        z = silu(s)                  one projection of it
    q = kappa_q * z + mu_q         k = kappa_k * z + mu_k       value = silu(W_v x + b_v), of x and not of x'
    o = f(q kᵀ / tau + b_rel) value                            inside chunks, or over everything
    h = silu(c + U_h (silu(r) * o) + b_h)                      candidate behind the reset gate
    y = x0 + sigmoid(u) * (h - x0)                             update gate; x0 is x before the norm

B batch, L seq_len, D d_model, N d_ema, z d_attn, E d_value, R directions, c chunk_size, C chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import MLP, Block, Mixer, ResidualStack, at_least_float32, last_real, make_norm, param_options
from zoo.ops.fftconv import fft_conv
from zoo_mega.cache import Cache, columns, in_chunks, remember
from zoo_mega.config import MegaConfig
from zoo_mega.op import damped_ema, single_head_attention


class MovingAverage(nn.Module):
    """silu(EMA(x) + omega * x). Bidirectional: the sum of one average from each side; both see the current token.

    Pads are zero for the averages. State: h (B, D, N) after each row's last real token, causal only.
    """

    def __init__(self, d_model: int, d_ema: int, *, bidirectional: bool, truncation: int | None = None) -> None:
        super().__init__()
        R = 2 if bidirectional else 1
        self.truncation = truncation
        self.alpha = nn.Parameter(0.2 * torch.randn(R, d_model, d_ema))
        self.delta = nn.Parameter(0.2 * torch.randn(R, d_model, d_ema))
        sign = torch.ones(d_ema)
        sign[1::2] = -1  # neighbours begin with opposite signs, so that they do not learn the same
        self.beta = nn.Parameter(sign + 0.02 * torch.randn(R, d_model, d_ema))
        self.eta = nn.Parameter(torch.randn(R, d_model, d_ema))
        self.omega = nn.Parameter(torch.randn(d_model))
        param_options(self, "omega")  # decays like a weight, although it has one dimension

    def kernel(self, L: int, dtype: torch.dtype) -> Tensor:
        """(R, D, taps), taps = L or the truncation."""
        taps = L if self.truncation is None else min(L, self.truncation)
        ema = damped_ema(self.alpha, self.delta, self.beta, self.eta)
        return ema.kernel(taps, dtype)[0].unflatten(0, (self.eta.shape[0], -1))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> (B, L, D), state; None where there is no recurrence to continue."""
        recurrent = self.eta.shape[0] == 1 and self.truncation is None
        if state is not None and not recurrent:
            raise ValueError("a bidirectional or truncated moving average has no state to go on from")
        lengths = None if mask is None else last_real(mask)
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            seen = (wide if mask is None else wide.masked_fill(~mask[..., None], 0.0)).transpose(1, 2)  # (B, D, L)
            L, after = seen.shape[-1], None
            K = self.kernel(L, wide.dtype)
            if K.shape[0] == 1:
                y = fft_conv(seen, K[0])
            else:
                # the second kernel of fft_conv begins at the next token, so its first tap joins the other's
                own = K[0] + F.pad(K[1, :, :1], (0, K.shape[-1] - 1))
                y = fft_conv(seen, own, K[1, :, 1:])
            if recurrent:
                ema = damped_ema(self.alpha, self.delta, self.beta, self.eta)
                if state is not None:
                    y = y + ema.response(state, L)
                after = ema.final_state(seen, lengths, state)
            y = F.silu(y.transpose(1, 2) + self.omega.to(wide.dtype) * wide)
        return y.to(x.dtype), after

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token by the recurrence: x_t (B, D), state (B, D, N)."""
        with torch.autocast(x_t.device.type, enabled=False):
            wide = at_least_float32(x_t)
            y_t, state = damped_ema(self.alpha, self.delta, self.beta, self.eta).step(wide, state)
            y_t = F.silu(y_t + self.omega.to(wide.dtype) * wide)
        return y_t.to(x_t.dtype), state


class Projected(NamedTuple):
    """What the moving average's output is split into: update gate (D), queries, keys (z), reset gate (E), candidate."""

    u: Tensor
    q: Tensor
    k: Tensor
    r: Tensor
    c: Tensor


class GatedAttention(Mixer):
    """The equations at the head of this file, without the norm: x -> sigmoid(u) * (h - x0).

    State, causal only: {"ema": (B, D, N), "k": (B, M, z), "v": (B, M, E), "real": (B, M) bool}, keys and values of
    the open chunk, M = c - 1; without chunks those of all tokens so far.
    """

    def __init__(self, config: MegaConfig, d_model: int, *, bidirectional: bool, max_len: int) -> None:
        super().__init__()
        D, self.z, self.E = d_model, config.resolved_d_attn(d_model), config.resolved_d_value(d_model)
        self.causal, self.kind = not bidirectional, config.attention
        self.chunk = None if config.chunk_size == -1 else config.chunk_size
        self.ema = MovingAverage(D, config.d_ema, bidirectional=bidirectional, truncation=config.truncation)
        self.W_v = nn.Linear(D, self.E)
        self.W = nn.Linear(D, D + self.z + self.E + D)
        self.U_h = nn.Linear(self.E, D)
        self.kappa = nn.Parameter(0.02 * torch.randn(2, self.z))
        self.mu = nn.Parameter(torch.zeros(2, self.z))
        if config.bias == "simple":
            positions = self.chunk or config.max_positions or max_len
            self.bias = nn.ParameterList([0.02 * torch.randn(2 * positions - 1)])
        else:
            self.bias = nn.ParameterList([0.02 * torch.randn(self.z) for _ in range(2)])
        param_options(self.bias, *dict(self.bias.named_parameters()))  # they decay like weights
        self.dropout = nn.Dropout(config.dropout)
        for linear in (self.W_v, self.W, self.U_h):
            initialise(linear)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, state: State = None, residual: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L), residual x0 (B, L, D), None = x -> (B, L, D), state or None."""
        m, ema = self.ema(x, mask=mask, state=None if state is None else state["ema"])
        p = self.project(self.dropout(m))
        o, cache = self.attend(p.q, p.k, F.silu(self.W_v(x)), mask, carried(state))
        after = {"ema": ema, **cache._asdict()} if cache is not None else None
        return self.update(p, o, x if residual is None else residual), after

    def step(self, x_t: Tensor, state: State, *, residual: Tensor | None = None) -> tuple[Tensor, State]:
        """One token: x_t (B, D). The moving average by its recurrence, one query over the open chunk."""
        if not self.causal:
            raise TypeError("a bidirectional Mega has no step form")
        m_t, ema = self.ema.step(x_t, state["ema"])
        p = self.project(self.dropout(m_t))
        q, k, v = (t.unsqueeze(1) for t in (p.q, p.k, F.silu(self.W_v(x_t))))
        o, cache = self.attend(q, k, v, None, carried(state))
        assert cache is not None
        return self.update(p, o.squeeze(1), x_t if residual is None else residual), {"ema": ema, **cache._asdict()}

    def project(self, m: Tensor) -> Projected:
        """m (..., D) -> the five parts, q and k with their own scale and offset."""
        u, s, r, c = self.W(m).split([m.shape[-1], self.z, self.E, m.shape[-1]], -1)
        z = F.silu(s)
        q, k = (z * self.kappa[i] + self.mu[i] for i in range(2))
        return Projected(torch.sigmoid(u), q, k, F.silu(r), c)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Cache | None]:
        """q, k (B, L, z), v (B, L, E) -> o (B, L, E), and the cache after it (causal)."""
        L, real, start, at = q.shape[1], mask, None, torch.arange(q.shape[1], device=q.device)
        if cache is not None:
            now = columns(cache, L)
            k, v = now.lay(cache.k, k), now.lay(cache.v, v)
            new = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if mask is None else mask
            real = now.lay(cache.real[..., None], new[..., None])[..., 0] & now.filled
            start, at = now.start, now.positions(L)
        if self.chunk is None or k.shape[1] <= self.chunk:
            o = self.attention(q, k, v, at, real)
        elif cache is None:
            o = self.attend_in_chunks(q, k, v, real, self.chunk)[:, :L]
        else:
            # carried tokens ask nothing: their columns hold zeros, and what they answer is dropped
            q = now.lay(q.new_zeros(*cache.k.shape[:2], self.z), q)
            o = self.attend_in_chunks(q, k, v, real, self.chunk)
            o = o.gather(1, at[..., None].expand(-1, -1, self.E))
        if not self.causal:
            return o, None
        ends = L if mask is None else last_real(mask)
        return o, remember(k, v, real, ends if start is None else start + ends, self.chunk)

    def attend_in_chunks(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, chunk: int) -> Tensor:
        """Attention inside every chunk: (B, T, ·) -> (B, C c, E). Lags of the bias begin anew in each."""
        T = q.shape[1]
        if real is None and T % chunk and not self.causal:
            real = torch.ones(1, T, dtype=torch.bool, device=q.device)
        if real is not None:
            real = F.pad(real, (0, -T % chunk)).unflatten(1, (-1, chunk))
        q, k, v = (in_chunks(t, chunk) for t in (q, k, v))
        return self.attention(q, k, v, torch.arange(chunk, device=q.device), real).flatten(1, 2)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, at: Tensor, real: Tensor | None) -> Tensor:
        return single_head_attention(q, k, v, tuple(self.bias), at, real, kind=self.kind, causal=self.causal)

    def update(self, p: Projected, o: Tensor, residual: Tensor) -> Tensor:
        """What the update gate adds to the residual stream."""
        h = self.dropout(F.silu(p.c + self.U_h(p.r * o)))
        return p.u * (h - residual)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        if not self.causal:
            return None
        D, N = self.ema.eta.shape[1:]
        M = 0 if self.chunk is None else self.chunk - 1
        wide = dtype if dtype == torch.float64 else torch.float32
        return {
            "ema": torch.zeros(batch, D, N, device=device, dtype=wide),
            "k": torch.zeros(batch, M, self.z, device=device, dtype=dtype),
            "v": torch.zeros(batch, M, self.E, device=device, dtype=dtype),
            "real": torch.zeros(batch, M, device=device, dtype=torch.bool),
        }

    def state_size(self, seq_len: int) -> int:
        if not self.causal:
            return 0
        columns = seq_len if self.chunk is None else self.chunk - 1
        return self.ema.eta[0].numel() + columns * (self.z + self.E)


class MegaBlock(Block):
    """Block whose mixer is given the residual stream itself beside its norm: the update gate interpolates with it."""

    mixer: GatedAttention

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        y, state = self.mixer(self.norm1(x, mask) if self.prenorm else x, mask=mask, state=state, residual=x)
        return self._channels(self._gated(x, y, mask), mask), state

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        y_t, state = self.mixer.step(self.norm1(x_t, None) if self.prenorm else x_t, state, residual=x_t)
        return self._channels(self._gated(x_t, y_t, None), None), state

    def _gated(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        # no dropout of the sum: the mixer has dropped in the candidate, and the gate's share of x stays whole
        return x + y if self.prenorm else self.norm1(x + y, mask)


class MegaBackbone(Backbone):
    """n_layers Mega blocks; a final norm when they are pre-norm."""

    def __init__(self, config: MegaConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        self.stack = ResidualStack(
            [build_block(config, dims) for _ in range(dims.n_layers)],
            final_norm=mega_norm(config.norm, dims.d_model) if config.prenorm else None,
        )

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        return self.stack(x, mask=mask, state=state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return self.stack.init_state(batch, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        return self.stack.step(x_t, state)

    def state_size(self, seq_len: int) -> int:
        return self.stack.state_size(seq_len)


class ScaleNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) times one learned number (Nguyen & Salazar 2019, with the mean for the sum)."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scalar = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            scale = self.scalar.to(wide.dtype) * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
            return (wide * scale).to(x.dtype)


def mega_norm(kind: str, d_model: int) -> nn.Module:
    """A norm by its name in the configuration."""
    return ScaleNorm() if kind == "scale" else make_norm(kind, d_model)


def build_block(config: MegaConfig, dims: ModelDims) -> MegaBlock:
    """Gated attention and the channel MLP W2 silu(W1 x), each with its norm."""
    D = dims.d_model
    mlp = MLP(D, config.resolved_d_ff(D), activation="silu")
    for linear in (mlp.linear1, mlp.linear2):
        initialise(linear)
    return MegaBlock(
        GatedAttention(config, D, bidirectional=dims.mode == "bidirectional", max_len=dims.max_len),
        mega_norm(config.norm, D),
        mlp=mlp,
        norm2=mega_norm(config.norm, D),
        prenorm=config.prenorm,
        dropout=config.dropout,
    )


def initialise(linear: nn.Linear) -> None:
    """Weights N(0, 0.02²), biases zero, as the published code has it."""
    nn.init.normal_(linear.weight, 0.0, 0.02)
    nn.init.zeros_(linear.bias)


def carried(state: State) -> Cache | None:
    """The attention's part of a state; None where it holds no column."""
    if state is None or state["real"].shape[1] == 0:
        return None
    return Cache(state["k"], state["v"], state["real"])
