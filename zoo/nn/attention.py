"""Multi-head attention. B batch, L seq_len, D d_model, H heads, d = d_qkv / H."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.backbone import State
from zoo.nn.init import init_xavier
from zoo.nn.stack import Mixer
from zoo.ops.attention import attention, join_heads, split_heads
from zoo.ops.dtypes import compute_dtype
from zoo.ops.tracing import without_autocast


class MultiHeadAttention(Mixer):
    """Multi-head self-attention (Vaswani et al. 2017, §3.2.2); a subclass replaces `compute_attention`.

        Q, K, V = x W_q, x W_k, x W_v               (B, H, L, d)
        y = concat_h(attention(Q_h, K_h, V_h)) W_o  (B, L, D)

    n_heads    heads; divides d_qkv
    d_qkv      width of all heads of queries together; 0 = d_model
    n_kv_heads heads of keys and values, each shared by n_heads / n_kv_heads heads of queries (grouped-query attention,
               Ainslie et al. 2023); 0 = n_heads
    bias       biases in the four projections
    fused_qkv  one matrix `qkv` for W_q, W_k and W_v, instead of `q`, `k` and `v`
    causal     query i sees keys 0 .. i
    dropout    on the attention weights
    """

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    qkv: nn.Linear

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_qkv: int = 0,
        n_kv_heads: int = 0,
        bias: bool = True,
        fused_qkv: bool = False,
        causal: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        d_qkv = d_qkv or d_model
        self.n_heads, self.d_head = n_heads, d_qkv // n_heads
        self.n_kv_heads = n_kv_heads or n_heads
        self.fused_qkv, self.causal, self.attn_dropout = fused_qkv, causal, dropout
        d_kv = self.n_kv_heads * self.d_head
        self.widths = (d_qkv, d_kv, d_kv)
        if fused_qkv:
            self.qkv = nn.Linear(d_model, sum(self.widths), bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(d_model, width, bias=bias) for width in self.widths)
        self.out = nn.Linear(d_qkv, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the projections: Xavier-uniform weights, zero biases."""
        init_xavier(*((self.qkv,) if self.fused_qkv else (self.q, self.k, self.v)), self.out)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        q, k, v = self.project_qkv(x)
        y, state = self.compute_attention(q, k, v, mask=mask, state=state)
        return self.project_out(y, q), state

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        """q, k, v (B, H, L, d), mask (B, L) -> y (B, H, L, d), state. Here softmax attention, without a state."""
        return attention(q, k, v, mask=mask, causal=self.causal, dropout=self.dropout_p), None

    def attend_from_last(
        self,
        z: Tensor,
        *,
        context: Tensor | None = None,
        visible: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Softmax attention of the last token of z (B, K, D) alone, to z or to a context (B, K, D): (B, 1, D).

        visible (bool) and bias are broadcastable to (B, H, K), and a key must be visible. Not for shared heads.

        O(K H D) instead of O(K D²), because only the token itself is projected: q·(W_k z_j + b_k) is (W_kᵀ q)·z_j and a
        number that is the same for all j, and W_v is applied to the weighted sum of the z_j.
        """
        context = z if context is None else context
        (W_q, b_q), (W_k, _), (W_v, b_v) = self.projections()
        q = F.linear(z[:, -1], W_q, b_q).unflatten(-1, (self.n_heads, -1))  # (B, H, d)
        W_k, W_v = (W.unflatten(0, (self.n_heads, -1)) for W in (W_k, W_v))  # (H, d, D)
        score = torch.einsum("bhe,hed->bhd", q, W_k) @ context.mT  # (B, H, K)
        with without_autocast(q):
            score = score.to(compute_dtype(score)) * self.d_head**-0.5
            score = score if bias is None else score + bias
            score = score if visible is None else score.masked_fill(~visible, -torch.inf)
            weight = F.dropout(score.softmax(dim=-1), self.dropout_p).to(context.dtype)
        y = torch.einsum("bhd,hed->bhe", weight @ context, W_v)
        if b_v is not None:
            y = y + weight.sum(-1, keepdim=True) * b_v.unflatten(0, (self.n_heads, -1))
        return self.out(y.to(q.dtype).flatten(1))[:, None]

    def projections(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of the projections of queries, keys and values."""
        if not self.fused_qkv:
            return [(linear.weight, linear.bias) for linear in (self.q, self.k, self.v)]
        weights = self.qkv.weight.split(self.widths)
        biases = [None] * 3 if self.qkv.bias is None else self.qkv.bias.split(self.widths)
        return list(zip(weights, biases, strict=True))

    def project_qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, L, D) -> q (B, H, L, d), k and v (B, n_kv_heads, L, d)."""
        parts = self.qkv(x).split(self.widths, dim=-1) if self.fused_qkv else (self.q(x), self.k(x), self.v(x))
        heads = (self.n_heads, self.n_kv_heads, self.n_kv_heads)
        q, k, v = (split_heads(part, n) for part, n in zip(parts, heads, strict=True))
        return q, k, v

    def project_out(self, y: Tensor, q: Tensor) -> Tensor:
        """y (B, H, L, d), which may be in float32, back in the precision of the queries -> (B, L, D)."""
        return self.out(join_heads(y).to(q.dtype))

    @property
    def dropout_p(self) -> float:
        """Dropout on the attention weights in the present mode, training or evaluation."""
        return self.attn_dropout if self.training else 0.0
