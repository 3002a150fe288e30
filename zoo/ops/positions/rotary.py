"""Rotary positions (RoPE, Su et al. 2021) and their extensions to longer contexts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.ops.dtypes import compute_dtype, wide_dtype
from zoo.spec.errors import ConfigError

RopeLayout = Literal["half-split", "interleaved"]


class Rope(NamedTuple):
    """Rotation frequencies of one head.

    inv_freq  (d/2,) radians per position; (…, 1, d/2) where rows have frequencies of their own
    factor    scales cosines and sines, so that scores grow by its square (YaRN's temperature); 1 otherwise
    """

    inv_freq: Tensor
    factor: float = 1.0


def rope(d_head: int, *, theta: float = 10000.0, device: torch.device | str = "cpu") -> Rope:
    """The published frequencies theta^(-2t/d) (Su et al. 2021, eq. 15)."""
    if d_head < 2 or d_head % 2:
        raise ConfigError("d_head", f"RoPE turns pairs of channels, so the head dimension must be even, got {d_head}")
    device = torch.device(device)
    t = torch.arange(d_head // 2, dtype=wide_dtype(device), device=device)
    return Rope(theta ** (-2 * t / d_head))


def rope_linear(d_head: int, *, factor: float, theta: float = 10000.0, device: torch.device | str = "cpu") -> Rope:
    """Position interpolation (Chen et al. 2023, eq. 4): positions, hence all frequencies, divided by `factor`."""
    return Rope(rope(d_head, theta=theta, device=device).inv_freq / factor)


def rope_ntk(d_head: int, *, alpha: float, theta: float = 10000.0, device: torch.device | str = "cpu") -> Rope:
    """NTK-aware scaling: theta alpha^(d/(d-2)), so that the slowest pair is interpolated and the fastest kept.

    From a forum post by bloc97 (2023); eq. 16 of the YaRN paper (Peng et al. 2023).
    """
    if d_head == 2:
        raise ConfigError("d_head", "NTK scaling changes the base by alpha^(d/(d-2)) and needs d >= 4, got 2")
    return rope(d_head, theta=theta * alpha ** (d_head / (d_head - 2)), device=device)


def rope_dynamic_ntk(
    d_head: int,
    *,
    factor: float,
    trained_len: int,
    seq_len: int | Tensor,
    theta: float = 10000.0,
    device: torch.device | str = "cpu",
) -> Rope:
    """NTK-aware scaling that follows the current length; up to `trained_len` nothing changes.

    seq_len  L, or one for each row: (B, 1) -> inv_freq (B, d/2)
    alpha = factor * L/trained_len - (factor - 1). The frequencies depend on L: do not cache keys rotated for another L.
    """
    if d_head == 2:
        raise ConfigError("d_head", "NTK scaling changes the base by alpha^(d/(d-2)) and needs d >= 4, got 2")
    inv_freq = rope(d_head, theta=theta, device=device).inv_freq
    length = torch.as_tensor(seq_len, device=device).clamp_min(trained_len).to(inv_freq.dtype)
    alpha = factor * length / trained_len - (factor - 1)
    t = torch.arange(d_head // 2, dtype=inv_freq.dtype, device=device)
    return Rope(inv_freq * alpha ** (-2 * t / (d_head - 2)))  # the base theta alpha^(d/(d-2)), to the power -2t/d


def rope_yarn(
    d_head: int,
    *,
    factor: float,
    trained_len: int,
    theta: float = 10000.0,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    attention_factor: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    device: torch.device | str = "cpu",
) -> Rope:
    """YaRN (Peng et al. 2023, §3.2 and eq. 22): interpolate slow pairs, keep fast ones, blend those between.

    beta_fast         pairs that turn more often than this within `trained_len` keep their frequency
    beta_slow         pairs that turn less often are interpolated; between the two, a linear ramp over the index
    truncate          round the ends of the ramp outwards to whole indices, as the authors' code does
    attention_factor  given, or 0.1 ln(factor) + 1; with both `mscale`s the quotient of 0.1 m ln(factor) + 1 for each
    """
    base = rope(d_head, theta=theta, device=device).inv_freq

    def index(turns: float) -> float:
        """The pair that makes so many turns within trained_len."""
        return d_head * math.log(trained_len / (2 * math.pi * turns)) / (2 * math.log(theta))

    low, high = index(beta_fast), index(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d_head - 1)
    if low == high:
        high += 0.001  # a step instead of a division by zero
    t = torch.arange(d_head // 2, dtype=base.dtype, device=base.device)
    ramp = ((t - low) / (high - low)).clamp(0, 1)

    def temperature(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    if attention_factor is None:
        if mscale and mscale_all_dim:
            attention_factor = temperature(mscale) / temperature(mscale_all_dim)
        else:
            attention_factor = temperature(1.0)
    return Rope(base * (1 - ramp) + base / factor * ramp, attention_factor)


def rope_llama3(
    d_head: int,
    *,
    factor: float,
    trained_len: int,
    theta: float = 10000.0,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    device: torch.device | str = "cpu",
) -> Rope:
    """The scaling of Llama 3.1: interpolate slow pairs, keep fast ones, blend those between by their frequency.

    From the code published with the model (Grattafiori et al. 2024 name the base only). A pair turns
    trained_len inv_freq / 2π times: at least `high_freq_factor` times keeps it, at most `low_freq_factor` divides it.
    """
    base = rope(d_head, theta=theta, device=device).inv_freq
    turns = trained_len * base / (2 * math.pi)
    kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return Rope(base * kept + base / factor * (1 - kept))


def rope_longrope(
    d_head: int,
    *,
    short_factor: Sequence[float],
    long_factor: Sequence[float],
    factor: float,
    trained_len: int,
    seq_len: int | Tensor,
    theta: float = 10000.0,
    attention_factor: float | None = None,
    device: torch.device | str = "cpu",
) -> Rope:
    """LongRoPE (Ding et al. 2024): every frequency divided by a factor of its own, another one for long inputs.

    seq_len           L, or one for each row: (B, 1) -> inv_freq (B, d/2); above `trained_len` it is long
    attention_factor  given, or sqrt(1 + ln(factor) / ln(trained_len))
    """
    base = rope(d_head, theta=theta, device=device).inv_freq
    short, long = (torch.tensor(list(x), dtype=base.dtype, device=device) for x in (short_factor, long_factor))
    if attention_factor is None:
        attention_factor = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(trained_len))
    is_long = torch.as_tensor(seq_len, device=device) > trained_len
    return Rope(base / torch.where(is_long, long, short), attention_factor)


def rope_tables(positions: Tensor, frequencies: Rope) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all angles, times `factor`, in the wide dtype: positions (…, L) -> two of (…, L, d/2)."""
    inv_freq, factor = frequencies
    angles = positions.to(inv_freq.dtype)[..., None] * inv_freq
    return factor * angles.cos(), factor * angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, layout: RopeLayout = "half-split") -> Tensor:
    """Rotate every pair of channels by its angle: x (…, L, d), cos and sin (…, L, d/2) -> (…, L, d) in x's dtype.

    layout  which channels are a pair: "half-split" t and t + d/2 (GPT-NeoX, Llama), "interleaved" 2t and 2t + 1 (the
            paper, GPT-J). The same map up to a permutation of channels; checkpoints are not interchangeable.
    Computed in at least float32.
    """
    dtype = compute_dtype(x)
    cos, sin = cos.to(dtype), sin.to(dtype)
    if layout == "half-split":
        a, b = x.to(dtype).chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
    if layout == "interleaved":
        a, b = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2).to(x.dtype)
    raise ConfigError("layout", f"{layout!r}: expected half-split or interleaved")
