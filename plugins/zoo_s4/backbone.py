"""S4 (Gu, Goel & Ré 2022, arXiv 2111.00396): every channel has a state space model of its own, channels mix in a gate.

B batch, L seq_len, H d_model, N = 2n d_state.

    s_t = Abar s_{t-1} + Bbar x_t,   u_t = C s_t + D x_t            eq. 3, as a recurrence
    u = K * x + D x,   K_l = C Abar^l Bbar                          eq. 4-5, as a convolution
    y = GLU(W GELU(u) + b)

The layer has three forms that agree: one long convolution (training), convolutions of pieces that carry a state, and
the recurrence token by token. The parameters are in kernel.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import State
from zoo.nn import (
    Block,
    Mixer,
    StackBackbone,
    TiedDropout,
    at_least_float32,
    make_norm,
    param_options,
    returns_state,
    sequence_lengths,
    without_autocast,
)
from zoo.ops.fftconv import fft_conv
from zoo_s4.config import S4Config
from zoo_s4.kernel import S4Kernel


class S4Mixer(Mixer):
    """The S4 layer. State, causal only: (B, H, n) complex, after each row's last real token. Pads are zero inputs."""

    def __init__(self, config: S4Config, d_model: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.kernel = S4Kernel(config, d_model, n_kernels=2 if bidirectional else 1)
        self.D = nn.Parameter(torch.randn(d_model))
        param_options(self, "D")  # decays like a weight, although it has one dimension
        # the reference has dropout in the convolution and again in the block around it; only the latter may be tied
        self.conv_dropout = nn.Dropout(config.dropout)
        self.dropout = TiedDropout(config.dropout) if config.tie_dropout else nn.Dropout(config.dropout)
        self.output_linear = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, H), mask (B, L) -> y (B, L, H), state (causal) or None (bidirectional)."""
        u, state = self.convolve(x, mask=mask, state=state)
        return self.activate(u), state

    def convolve(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """Compute u = K * x + D x (B, L, H) and the state after it. K is causal, or two-sided (k1 without lag 0)."""
        lengths = None
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
            lengths = sequence_lengths(mask)
        with without_autocast(x):
            u = at_least_float32(x).transpose(1, 2)  # (B, H, L)
            L = u.shape[-1]
            ssm = self.kernel.discretize()
            K = ssm.kernel(L, u.dtype)
            # D is added to the kernel at lag 0, which saves one pass over (B, H, L)
            k0 = K[0] + F.pad(self.D.to(u.dtype)[:, None], (0, L - 1))
            if self.bidirectional:
                y, after = fft_conv(u, k0, K[1]), None
            else:
                y = fft_conv(u, k0)
                if state is not None:
                    y = y + ssm.response(state, L)
                after = ssm.final_state(u, lengths, state) if returns_state() else None
            return y.transpose(1, 2).to(x.dtype).contiguous(), after

    def activate(self, u: Tensor) -> Tensor:
        """GLU(W GELU(u) + b) with dropout: (B, L, H) or (B, H) -> the same shape."""
        v = self.output_linear(self.dropout(self.conv_dropout(F.gelu(u))))
        return self.dropout(F.glu(v, dim=-1))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        H, n = self.kernel.C.shape[1:3]
        wide = torch.complex128 if dtype == torch.float64 else torch.complex64
        return None if self.bidirectional else torch.zeros(batch, H, n, device=device, dtype=wide)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token by the recurrence: x_t (B, H), state (B, H, n) -> y_t (B, H), state."""
        with without_autocast(x_t):
            u_t = at_least_float32(x_t)
            y_t, state = self.kernel.discretize().step(u_t, state)
            y_t = (y_t + self.D.to(u_t.dtype) * u_t).to(x_t.dtype)
        return self.activate(y_t), state


class S4Backbone(StackBackbone):
    """S4 blocks. Pre-norm: x + f(norm x), then a final norm. Post-norm: norm(x + f(x))."""

    config: S4Config

    def build_block(self, layer: int) -> Block:
        c, D = self.config, self.dims.d_model
        mixer = S4Mixer(c, D, bidirectional=self.dims.mode == "bidirectional")
        return Block(mixer, make_norm(c.norm, D), prenorm=c.prenorm)

    def build_final_norm(self) -> nn.Module | None:
        return make_norm(self.config.norm, self.dims.d_model) if self.config.prenorm else None
