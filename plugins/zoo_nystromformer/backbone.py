"""The Nyströmformer.

B batch, L seq_len, D d_model, H heads, d = d_qkv / H, m landmarks, c taps.

    a = LN(x),  Q, K, V = a W_q, a W_k, a W_v                                    (B, H, L, d)
    head_h = F1 F2⁺ F3 V_h + w_h * V_h                                           Xiong et al. 2021, §3.2, see op.py
    h = x + concat_h(head_h) W_o
    y = h + W_2 act(W_1 LN(h) + b_1) + b_2

w_h is one kernel per head along the sequence. Post-norm (prenorm=False): h = LN(x + …), y = LN(h + …), no final norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import ModelDims, State
from zoo.nn import MultiHeadAttention, TransformerStack, at_least_float32, without_autocast
from zoo_nystromformer.config import NystromformerConfig
from zoo_nystromformer.op import depthwise, nystrom_attention


class NystromAttention(MultiHeadAttention):
    """Nyström attention plus a convolution of the values."""

    def __init__(self, config: NystromformerConfig, d_model: int) -> None:
        super().__init__(d_model, config.n_heads, d_qkv=config.d_qkv, bias=config.bias)
        self.config = config
        self.conv: nn.Parameter | None = None
        if config.conv_kernel:
            # PyTorch's own values of a depthwise convolution, as the paper's code leaves them
            bound = config.conv_kernel**-0.5
            self.conv = nn.Parameter(torch.empty(config.n_heads, config.conv_kernel).uniform_(-bound, bound))

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        c = self.config
        with without_autocast(q):
            q, k, v = (at_least_float32(t) for t in (q, k, v))
            if mask is not None and c.padding != "blind":
                v = v.masked_fill(~mask[:, None, :, None], 0)
            y = nystrom_attention(
                q, k, v, m=c.n_landmarks, mask=mask, n_iter=c.pinv_iterations, init=c.pinv_init, padding=c.padding
            )
            return (y if self.conv is None else y + depthwise(v, self.conv.to(v.dtype))), None


class NystromformerBackbone(TransformerStack):
    """Transformer blocks around Nyström attention."""

    config: NystromformerConfig

    def __init__(self, config: NystromformerConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        self.pads_count = config.padding == "blind"

    def build_mixer(self, layer: int) -> NystromAttention:
        return NystromAttention(self.config, self.dims.d_model)
