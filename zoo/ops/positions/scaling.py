"""RoPE as a configuration describes it: the published frequencies, or one of their extensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops.positions.rotary import (
    Rope,
    rope,
    rope_dynamic_ntk,
    rope_linear,
    rope_llama3,
    rope_longrope,
    rope_ntk,
    rope_yarn,
)
from zoo.spec.positions import RopeScaling


def scaled_rope(
    d_head: int,
    scaling: RopeScaling,
    *,
    max_len: int,
    seq_len: int | Tensor,
    theta: float = 10000.0,
    device: torch.device | str = "cpu",
) -> Rope:
    """Frequencies under `scaling`, as Hugging Face's `rope_scaling` of the same fields.

    max_len  the longest input of the model; with the scaling it says how much longer than trained
    seq_len  L, or one for each row (B, 1); dynamic and longrope depend on it, and then inv_freq is (B, d/2)
    """
    factor, trained_len = scaling.resolve_factor(max_len), scaling.trained_len(max_len)
    base: dict[str, Any] = {"theta": theta, "device": device}
    longer: dict[str, Any] = {"factor": factor, "trained_len": trained_len, **base}
    match scaling.rope_type:
        case "default":
            return rope(d_head, **base)
        case "linear":
            return rope_linear(d_head, factor=factor, **base)
        case "ntk":
            return rope_ntk(d_head, alpha=factor, **base)
        case "dynamic":
            return rope_dynamic_ntk(d_head, seq_len=seq_len, **longer)
        case "yarn":
            return rope_yarn(
                d_head,
                beta_fast=scaling.beta_fast,
                beta_slow=scaling.beta_slow,
                truncate=scaling.truncate,
                attention_factor=scaling.attention_factor,
                mscale=scaling.mscale or None,
                mscale_all_dim=scaling.mscale_all_dim or None,
                **longer,
            )
        case "llama3":
            return rope_llama3(
                d_head, low_freq_factor=scaling.low_freq_factor, high_freq_factor=scaling.high_freq_factor, **longer
            )
        case "longrope":
            return rope_longrope(
                d_head,
                short_factor=scaling.short_factor,
                long_factor=scaling.long_factor,
                seq_len=seq_len,
                attention_factor=scaling.attention_factor,
                **longer,
            )
