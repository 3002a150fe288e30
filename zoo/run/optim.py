"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from zoo.nn import parameter_groups
from zoo.spec.settings import OptimSettings


def schedule_factor(step: int, *, steps: int, settings: OptimSettings) -> float:
    """The learning rate at `step` (0-based) as a fraction of its peak.

    Linear warm-up over `warmup_ratio * steps` steps, the first of which already moves; then cosine or linear to
    `min_lr_ratio`, constant, or rsqrt: 1 / sqrt(step) from the peak on, as Long Range Arena's text recipes have it.
    """
    warm = round(settings.warmup_ratio * steps)
    if step < warm:
        return (step + 1) / warm
    if settings.lr_scheduler == "constant":
        return 1.0
    if settings.lr_scheduler == "rsqrt":
        return math.sqrt(max(warm, 1) / (step + 1))
    progress = min((step - warm) / max(steps - warm, 1), 1.0)
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if settings.lr_scheduler == "cosine" else 1 - progress
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * shape


def build_optimizer(model: nn.Module, settings: OptimSettings, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW over the groups, and the scheduler to be stepped once per optimiser step."""
    groups = parameter_groups(model, lr=settings.lr, weight_decay=settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(settings.betas[0], settings.betas[1]), eps=settings.eps)
    return optimizer, LambdaLR(optimizer, lambda step: schedule_factor(step, steps=steps, settings=settings))
