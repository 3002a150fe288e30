"""Nyström attention, Xiong et al. 2021. B batch, H heads, L seq_len, m landmarks, d head dimension, c kernel taps.

    Q̃, K̃ = means of q and k over m segments                                             (B, H, m, d)
    F1 = softmax(Q K̃ᵀ/√d),  F2 = softmax(Q̃ K̃ᵀ/√d),  F3 = softmax(Q̃ Kᵀ/√d)              §3.2
    y = F1 F2⁺ (F3 V) + depthwise convolution of V over the sequence                      §3.2, figure 2

Read from the right, it is attention of the landmarks to the sequence, a mixing of m vectors, and attention of the
sequence to the landmarks: nothing larger than the fused kernels' blocks is stored.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.ops.attention import attention


def iterative_pinv(A: Tensor, *, n_iter: int = 6, init: str = "exact") -> Tensor:
    """Approximate A⁺ by the third-order iteration of Razavi et al. 2014: A (B, H, m, m), whose rows sum to 1.

        Z ← Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4,      Z_0 = Aᵀ / (‖A‖_1 ‖A‖_∞),  ‖A‖_∞ = 1

    init  exact: ‖A‖_1, the largest column sum, of each matrix | original: one, the largest of the batch and all
          heads, as published: then an example's result depends on the others of its batch
    """
    columns = A.sum(-2)  # (B, H, m)
    norm = columns.amax(-1)[..., None, None] if init == "exact" else columns.amax()
    Z = A.transpose(-1, -2) / norm
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    for _ in range(n_iter):
        AZ = A @ Z
        Z = Z @ (13 * eye - AZ @ (15 * eye - AZ @ (7 * eye - AZ))) / 4
    return Z


def landmark_weights(mask: Tensor | None, seq_len: int, m: int, padding: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weight of each token in each landmark (B or 1, m, L), and n (B or 1,), the tokens divided up.

    Token r of n belongs to segment floor(r m / n): m segments as equal as they can be; with n < m a token is a
    segment by itself, and others stay empty.

    padding  real: the real tokens of each row are divided, so that padding a row changes nothing
             zero: the padded length is divided, pads count as zero vectors (Nyströmformer's own code)
             blind: the same, and pads count as they are (transformers)
    """
    positions = torch.arange(seq_len, device=like.device)[None]  # (1, L)
    if mask is None or padding != "real":
        rank, n = positions, torch.full((1,), seq_len, device=like.device)
    else:
        rank, n = mask.cumsum(-1) - 1, mask.sum(-1)
    segment = rank * m // n.clamp_min(1)[:, None]  # (B or 1, L)
    member = segment[:, None] == torch.arange(m, device=like.device)[:, None]  # (B or 1, m, L)
    if mask is not None and padding == "real":
        member = member & mask[:, None]
    size = member.sum(-1, keepdim=True)
    if mask is not None and padding == "zero":
        member = member & mask[:, None]
    return member.to(like.dtype) / size.clamp_min(1), n


def nystrom_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    m: int,
    mask: Tensor | None = None,
    n_iter: int = 6,
    init: str = "exact",
    padding: str = "real",
) -> Tensor:
    """Compute y without the convolution: q, k, v (B, H, L, d), mask (B, L), True = real -> (B, H, L, d).

    m               landmarks; a row of no more than m tokens gets exact softmax attention, and so does any with m = 0
    n_iter, init    see `iterative_pinv`
    padding         see `landmark_weights`
    A row without any real token gets zero.
    """
    seq_len = q.shape[-2]
    if mask is not None and padding == "zero":
        q, k = (t.masked_fill(~mask[:, None, :, None], 0) for t in (q, k))
    if m == 0 or seq_len <= m:
        return attention(q, k, v, mask=mask)
    weights, n = landmark_weights(mask, seq_len, m, padding, q)

    def landmarks(x: Tensor) -> Tensor:
        """(B, H, L, d) -> (B, H, m, d)"""
        if weights.shape[0] == 1:
            return torch.einsum("ml,bhld->bhmd", weights[0], x)
        return torch.einsum("bml,bhld->bhmd", weights, x)

    Q, K = landmarks(q), landmarks(k)
    F2 = torch.softmax(Q @ K.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
    mixed = iterative_pinv(F2, n_iter=n_iter, init=init) @ attention(Q, k, v, mask=mask)  # F2⁺ (F3 V)
    if mask is None or padding != "real":
        return attention(q, K, mixed)
    # in a row of n <= m tokens the landmarks are the tokens: F1 = F2 = F3, and F1 V is exact, as the iteration is not
    few = (n <= m)[:, None, None, None]
    return attention(q, K, torch.where(few, landmarks(v), mixed), mask=weights.sum(-1) > 0)


def depthwise(v: Tensor, weight: Tensor) -> Tensor:
    """Convolve along the sequence with a centred kernel per head, zero-padded: v (B, H, L, d), weight (H, c), c odd."""
    c = weight.shape[-1]
    return F.conv2d(v, weight[:, None, :, None], padding=(c // 2, 0), groups=weight.shape[0])
