"""Layers that LongT5's encoder and decoder share. No biases anywhere, norms before sub-layers.

Shapes: B batch, L seq_len, D d_model, H heads, E width of a head (d_kv), d_ff width of the feed-forward layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn import MultiHeadAttention, param_options
from zoo.ops.positions import t5_buckets
from zoo_longt5.config import LongT5Config


class T5Attention(MultiHeadAttention):
    """T5's attention projections. Not the scores but the initial values of q are divided by sqrt(E)."""

    def __init__(self, config: LongT5Config, d_model: int) -> None:
        d_qkv = config.n_heads * config.head_width(d_model)
        super().__init__(d_model, config.n_heads, d_qkv=d_qkv, bias=False, dropout=config.dropout)
        # Adafactor, which T5 is trained with, takes steps in proportion to a matrix; Adam's are the same for all, so q,
        # smaller by sqrt(E), would learn faster than under scores that are divided by sqrt(E)
        param_options(self.q, "weight", lr_scale=self.d_head**-0.5)

    def reset_parameters(self) -> None:
        """Initialise as T5: N(0, 1 / fan-in), q smaller by sqrt(E)."""
        D, d_qkv = self.q.in_features, self.q.out_features
        nn.init.normal_(self.q.weight, std=(D * self.d_head) ** -0.5)
        nn.init.normal_(self.k.weight, std=D**-0.5)
        nn.init.normal_(self.v.weight, std=D**-0.5)
        nn.init.normal_(self.out.weight, std=d_qkv**-0.5)


class FeedForward(nn.Module):
    """T5's feed-forward layer.

    gated_gelu: wo(gelu(wi_0 x) * wi_1 x), Shazeer 2020, eq. 6 with GELU in its tanh form; relu: wo(relu(wi x)).
    """

    def __init__(self, config: LongT5Config, d_model: int) -> None:
        super().__init__()
        d_ff = config.ffn_width(d_model)
        self.gated = config.ffn == "gated_gelu"
        if self.gated:
            self.wi_0, self.wi_1 = nn.Linear(d_model, d_ff, bias=False), nn.Linear(d_model, d_ff, bias=False)
        else:
            self.wi = nn.Linear(d_model, d_ff, bias=False)
        for weight in self.parameters():
            nn.init.normal_(weight, std=d_model**-0.5)
        self.wo = nn.Linear(d_ff, d_model, bias=False)
        nn.init.normal_(self.wo.weight, std=d_ff**-0.5)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)"""
        if self.gated:
            h = F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x)  # (B, L, d_ff)
        else:
            h = F.relu(self.wi(x))
        return self.wo(self.dropout(h))


class PositionBias(nn.Module):
    """T5's relative position bias, a number per bucket and head, shared by all layers of a stack."""

    def __init__(self, config: LongT5Config, d_model: int, *, two_sided: bool) -> None:
        super().__init__()
        self.config, self.two_sided = config, two_sided
        self.table = nn.Parameter(torch.randn(config.n_buckets, config.n_heads) * d_model**-0.5)
        param_options(self, "table", lr_scale=config.bias_lr_scale, weight_decay=0.0)  # an embedding

    def forward(self, first: int, last: int) -> Tensor:
        """Look up the bias for key position - query position = first .. last, inclusive: (H, last - first + 1)."""
        c = self.config
        lags = torch.arange(first, last + 1, device=self.table.device)
        bucket = t5_buckets(lags, bidirectional=self.two_sided, n_buckets=c.n_buckets, max_distance=c.max_distance)
        return self.table[bucket].T
