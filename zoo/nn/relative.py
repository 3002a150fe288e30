"""The layer of Transformer-XL and its successors: relative attention over [memory; segment], then an MLP.

Shapes: B batch, T tokens of the segment, M rows of memory, K = M + T, D d_model, H heads, E width of a head, P
position rows (see `zoo.ops.relative`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.norms import LayerNorm
from zoo.nn.stack import MLP
from zoo.ops.dtypes import compute_dtype
from zoo.ops.relative import relative_attention
from zoo.ops.tracing import without_autocast


class RelativePositions(NamedTuple):
    """Positional vectors R (P, D) of all distances and biases u and v (H, E), which all layers share."""

    R: Tensor
    u: Tensor
    v: Tensor


class RelativeAttention(nn.Module):
    """Attention with relative positions (Dai et al. 2019, §3.3); no biases in the projections.

    A_ij = q_i·k_j + q_i·W_{k,R} R_{i-j} + u·k_j + v·W_{k,R} R_{i-j}
    """

    def __init__(self, d_model: int, n_heads: int, d_head: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        width = n_heads * d_head
        self.W_q = nn.Linear(d_model, width, bias=False)
        self.W_kE = nn.Linear(d_model, width, bias=False)
        self.W_v = nn.Linear(d_model, width, bias=False)
        self.W_kR = nn.Linear(d_model, width, bias=False)
        self.W_o = nn.Linear(width, d_model, bias=False)

    def forward(self, z: Tensor, n_tokens: int, positions: RelativePositions, visible: Tensor) -> Tensor:
        """z (B, K, D), its last `n_tokens` rows the segment; visible broadcastable to (B, H, T, K) -> (B, T, D)."""
        if n_tokens == 1:
            return self.attend_from_last(z, positions, visible)
        y = relative_attention(
            self.heads(self.W_q(z[:, -n_tokens:])),
            self.heads(self.W_kE(z)),
            self.heads(self.W_v(z)),
            self.heads(self.W_kR(positions.R)),
            positions.u,
            positions.v,
            visible,
            self.dropout if self.training else 0.0,
        )
        return self.W_o(y.flatten(-2))

    def attend_from_last(self, z: Tensor, positions: RelativePositions, visible: Tensor) -> Tensor:
        """`forward` of one token in O(K H D) instead of O(K D²): only the token itself is projected, (B, 1, D).

        q·(W z_j) = (Wᵀ q)·z_j: W_{k,E} and W_{k,R} are applied to the query, and W_v to the weighted sum of the z_j.
        """
        q = self.heads(self.W_q(z[:, -1]))  # (B, H, E)
        W_kE, W_kR, W_v = (W.weight.unflatten(0, (self.n_heads, -1)) for W in (self.W_kE, self.W_kR, self.W_v))
        content = torch.einsum("bhe,hed->bhd", q + positions.u, W_kE) @ z.mT  # (B, H, K)
        # the distances of R are K - 1 to 0, as those of the keys
        position = torch.einsum("bhe,hed->bhd", q + positions.v, W_kR) @ positions.R.mT
        with without_autocast(q):
            score = (content + position).to(compute_dtype(content)) * q.shape[-1] ** -0.5
            weight = score.masked_fill(~visible[..., 0, :], -torch.inf).softmax(dim=-1)
        weight = F.dropout(weight, self.dropout, self.training).to(z.dtype)
        y = torch.einsum("bhd,hed->bhe", weight @ z, W_v)
        return self.W_o(y.flatten(-2))[:, None]

    def heads(self, x: Tensor) -> Tensor:
        """(..., H E) -> (..., H, E)"""
        return x.unflatten(-1, (self.n_heads, -1))


class RelativeLayer(nn.Module):
    """A Transformer-XL layer: an attention that is called like `RelativeAttention`, and a ReLU MLP.

        post-norm  a = LN(h + attention),      h' = LN(a + FF(a))
        pre-norm   a = h + attention of LN[m; h],  h' = a + FF(LN a)

    `context` is [memory; h]; the gradient is stopped where the memory is made, not here. `positions` is what the
    attention takes as its third argument (`RelativePositions` for `RelativeAttention`).
    """

    def __init__(
        self, attention: nn.Module, d_model: int, d_ff: int, *, pre_lnorm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.pre_lnorm = pre_lnorm
        self.attention = attention
        self.norm_attn = LayerNorm(d_model)
        self.ff = MLP(d_model, d_ff, activation="relu", dropout=dropout)
        self.norm_ff = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, context: Tensor, n_tokens: int, positions: RelativePositions | Tensor, visible: Tensor) -> Tensor:
        """context (B, K, D), visible broadcastable to (B, H, T, K) -> (B, T, D)."""
        h = context[:, -n_tokens:]
        a = h + self.dropout(self.attention(self.normalize_context(context), n_tokens, positions, visible))
        if self.pre_lnorm:
            return a + self.dropout(self.ff(self.norm_ff(a)))
        a = self.norm_attn(a)
        return self.norm_ff(a + self.dropout(self.ff(a)))

    def normalize_context(self, context: Tensor) -> Tensor:
        """The input of the attention, (B, K, D): pre-norm the norm of `context`, which is stored un-normalised."""
        return self.norm_attn(context) if self.pre_lnorm else context
