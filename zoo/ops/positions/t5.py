"""Buckets of relative distances (T5, Raffel et al. 2020, §2.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.spec.errors import ConfigError


def t5_buckets(lags: Tensor, *, bidirectional: bool, n_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each lag = key position - query position; int64 of any shape -> the same shape, 0 … n_buckets - 1.

    Half of the buckets hold one distance each, the others grow logarithmically up to `max_distance`, and all beyond
    share the last one. `bidirectional` gives half of the buckets to later keys; otherwise all later keys are in bucket
    0, with the query itself. Raises ConfigError when there is no room for that.
    """
    per_sign = n_buckets // 2 if bidirectional else n_buckets
    exact = per_sign // 2
    if exact < 1:
        raise ConfigError("n_buckets", f"expected at least {4 if bidirectional else 2}, got {n_buckets}")
    if max_distance <= exact:
        raise ConfigError("max_distance", f"{max_distance} must exceed the {exact} distances with their own bucket")
    table = _t5_table(per_sign, max_distance).to(lags.device)
    distance = lags.abs() if bidirectional else (-lags).clamp_min(0)
    bucket = table[distance.clamp_max(max_distance)]
    return bucket + per_sign * (lags > 0) if bidirectional else bucket


def _t5_table(per_sign: int, max_distance: int) -> Tensor:
    """The bucket of distances 0 … max_distance, on the CPU in float32: trained tables depend on that rounding.

    Made anew in every call: a tensor that was kept could be one of a tracer, and wrong or unusable in later calls.
    """
    exact = per_sign // 2
    distance = torch.arange(max_distance + 1, device="cpu")
    ratio = torch.log(distance.clamp_min(exact).float() / exact) / math.log(max_distance / exact)
    far = exact + (ratio * (per_sign - exact)).long()
    return torch.where(distance < exact, distance, far.clamp_max(per_sign - 1))
