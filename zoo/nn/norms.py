"""Norms of the residual stack, computed in at least float32. B batch, L seq_len, D d_model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.ops.dtypes import at_least_float32


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over D, in at least float32 also under autocast."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            weight = None if self.weight is None else self.weight.to(wide.dtype)
            bias = None if self.bias is None else self.bias.to(wide.dtype)
            return F.layer_norm(wide, self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight over D (Zhang & Sennrich 2019, eq. 4, with eps inside the root)."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
            return (wide * scale * self.weight.to(wide.dtype)).to(x.dtype)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of each feature over all real tokens of the batch: pads enter neither statistics nor gradients.

    The published S4 and S5 code lets pads into the statistics; here a score must not depend on the padding.
    Pads themselves come out as the affine image of what they were, with the same statistics.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            flat = wide.reshape(-1, x.shape[-1])
            if mask is None or not self.training or bool(mask.all()):
                if self.training and flat.shape[0] == 1:
                    # one token has no variance, so the running statistics serve
                    return self._with_running(flat).reshape(x.shape).to(x.dtype)
                return super().forward(flat).reshape(x.shape).to(x.dtype)
            real = flat[mask.reshape(-1)]
            if real.shape[0] < 2:
                return self._with_running(flat).reshape(x.shape).to(x.dtype)
            out = torch.zeros_like(flat)
            out[mask.reshape(-1)] = super().forward(real)
            return out.reshape(x.shape).to(x.dtype)

    def _with_running(self, flat: Tensor) -> Tensor:
        return F.batch_norm(flat, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


def make_norm(kind: str, d_model: int, *, eps: float = 1e-5) -> nn.Module:
    """Build a norm by name ("layer", "rms", "batch"), called as `norm(x, mask)` with x (B, L, D) or (B, D)."""
    kinds: dict[str, type[nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm, "batch": BatchNorm}
    if kind not in kinds:
        raise ValueError(f"norm {kind!r}: expected one of {sorted(kinds)}")
    return kinds[kind](d_model, eps=eps)
