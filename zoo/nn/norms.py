"""Norms of the residual stack, computed in at least float32. B batch, L seq_len, D d_model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.ops.dtypes import at_least_float32
from zoo.ops.tracing import without_autocast


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over D, in at least float32 also under autocast."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        with without_autocast(x):
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
        with without_autocast(x):
            wide = at_least_float32(x)
            scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
            return (wide * scale * self.weight.to(wide.dtype)).to(x.dtype)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of each feature over all real tokens of the batch: pads enter neither statistics nor gradients.

    The published S4 and S5 code lets pads into the statistics; here a score must not depend on the padding.
    Pads themselves come out as the affine image of what they were, with the same statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        with without_autocast(x):
            wide = at_least_float32(x)
            mean, variance = self._batch_moments(wide, mask) if self.training else self._running_moments(wide.dtype)
            scale = torch.rsqrt(variance + self.eps) * self.weight.to(wide.dtype)
            return ((wide - mean) * scale + self.bias.to(wide.dtype)).to(x.dtype)

    def _batch_moments(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance (D,) over the real tokens of x (B, L, D) or (B, D), which the running ones follow.

        Fewer than two tokens have no variance, so the running statistics serve. No step waits for the device.
        """
        real = None if mask is None else mask[..., None]
        dims = tuple(range(x.ndim - 1))
        n = x.new_full((), x[..., 0].numel()) if real is None else real.sum().to(x.dtype)
        mean = (x if real is None else x.masked_fill(~real, 0.0)).sum(dims) / n.clamp_min(1)
        centred = x - mean if real is None else (x - mean).masked_fill(~real, 0.0)
        variance = centred.square().sum(dims) / n.clamp_min(1)
        running_mean, running_variance = self._running_moments(x.dtype)
        enough = n > 1
        mean, variance = torch.where(enough, mean, running_mean), torch.where(enough, variance, running_variance)
        with torch.no_grad():
            unbiased = torch.where(enough, variance * n / (n - 1).clamp_min(1), running_variance)
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.lerp_(new.to(running.dtype), self.momentum)
            self.num_batches_tracked += enough
        return mean, variance

    def _running_moments(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.running_mean.to(dtype), self.running_var.to(dtype)


def make_norm(kind: str, d_model: int, *, eps: float = 1e-5) -> nn.Module:
    """Build a norm by name ("layer", "rms", "batch"), called as `norm(x, mask)` with x (B, L, D) or (B, D)."""
    kinds: dict[str, type[nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm, "batch": BatchNorm}
    if kind not in kinds:
        raise ValueError(f"norm {kind!r}: expected one of {sorted(kinds)}")
    return kinds[kind](d_model, eps=eps)
