"""minGRU (Feng et al. 2024, arXiv 2410.01201).

    z_t = sigmoid(W_z x_t + b_z)        c_t = g(W_h x_t + b_h)        h_t = (1 - z_t) * h_{t-1} + z_t * c_t

Neither gate nor candidate sees h_{t-1}, so that the recurrence is linear in h and all tokens are computed at once.

B batch, L seq_len, D d_model, E = expansion * D, K taps.
State of a layer: {"conv": (B, D, K) the last K inputs of the convolution, "h": (B, E)}.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import State
from zoo.nn import MLP, Block, DepthwiseConv, Mixer, RMSNorm, StackBackbone, at_least_float32, sequence_lengths
from zoo.ops.scan import diagonal_scan
from zoo_min_gru.config import MinGRUConfig


def g(x: Tensor) -> Tensor:
    """The paper's positive activation, continuous and increasing."""
    return torch.where(x > 0, x + 0.5, torch.sigmoid(x))


class MinGRU(Mixer):
    """A causal convolution, the recurrence, and a projection back to d_model. Pads are at the end of a row."""

    def __init__(self, config: MinGRUConfig, d_model: int) -> None:
        super().__init__()
        self.positive, self.d_hidden = config.candidate == "positive", config.expansion * d_model
        self.conv = DepthwiseConv(d_model, config.n_taps)
        self.z_proj = nn.Linear(d_model, self.d_hidden)
        self.h_proj = nn.Linear(d_model, self.d_hidden)
        self.out_proj = nn.Linear(self.d_hidden, d_model)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        """x (B, L, D), mask (B, L) -> y (B, L, D), state."""
        conv, h = (None, None) if state is None else (state["conv"], state["h"])
        x, conv = self.conv(x, state=conv, lengths=None if mask is None else sequence_lengths(mask))
        gate, candidate = at_least_float32(self.z_proj(x)), at_least_float32(self.h_proj(x))
        candidate = g(candidate) if self.positive else candidate
        # 1 - sigmoid(x) is sigmoid(-x), and keeps its digits where the gate is nearly closed
        h = diagonal_scan(torch.sigmoid(-gate), torch.sigmoid(gate) * candidate, h, mask=mask)
        return self.out_proj(h.to(x.dtype)), {"conv": conv, "h": h[:, -1]}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        wide = torch.promote_types(dtype, torch.float32)
        return {
            "conv": self.conv.init_state(batch, device=device, dtype=dtype),
            "h": torch.zeros(batch, self.d_hidden, device=device, dtype=wide),
        }


class MinGRUBackbone(StackBackbone):
    """Pre-norm blocks of minGRU and channel MLP, and a final norm."""

    config: MinGRUConfig

    def build_block(self, layer: int) -> Block:
        c, d = self.config, self.dims.d_model
        mlp = MLP(d, c.mlp_ratio * d, dropout=c.dropout)
        return Block(MinGRU(c, d), RMSNorm(d), mlp=mlp, norm2=RMSNorm(d), dropout=c.dropout)

    def build_final_norm(self) -> nn.Module:
        return RMSNorm(self.dims.d_model)
