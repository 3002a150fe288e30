"""Where a token stands: sinusoids, rotations (RoPE) and their extensions, biases (ALiBi, T5).

B batch, H heads, L seq_len, D d_model, d head dimension (even for rotations), p position, t = 0 .. d/2 - 1.
Frequencies and angles are made in float64 (float32 where a device has no float64) and only the finished sines,
cosines and biases are rounded to the caller's dtype: an angle of 16,384 radians in float32 is off by 1e-3.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.spec.errors import ConfigError

RopeLayout = Literal["half-split", "interleaved"]


def wide_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


# -- absolute ------------------------------------------------------------------------------------------------------


def sinusoidal(positions: Tensor, d_model: int, *, layout: str = "interleaved", base: float = 10000.0) -> Tensor:
    """Fixed absolute positions, positions (L,) -> (L, D) in the wide dtype (Vaswani et al. 2017, §3.5).

    layout  "interleaved"  (p, 2u) = sin(p base^(-2u/D)), (p, 2u + 1) = cos of the same: the paper, Long Range Arena
            "concatenated" all sines, then all cosines, frequency base^(-u/(D/2 - 1)): tensor2tensor; D even
    """
    p = positions.to(wide_dtype(positions.device))[:, None]
    if layout == "interleaved":
        u = torch.arange((d_model + 1) // 2, dtype=p.dtype, device=p.device)
        angles = p * base ** (-2 * u / d_model)  # (L, ceil(D/2))
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :d_model]
    if layout == "concatenated":
        if d_model % 2:
            raise ConfigError("d_model", f"concatenated sinusoids need an even width, got {d_model}")
        u = torch.arange(d_model // 2, dtype=p.dtype, device=p.device)
        angles = p * base ** (-u / max(d_model // 2 - 1, 1))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
    raise ConfigError("layout", f"{layout!r}: expected interleaved or concatenated")


# -- rotary --------------------------------------------------------------------------------------------------------


class Rope(NamedTuple):
    """Rotation speeds of one head.

    inv_freq  (d/2,) radians per position
    factor    scales cosines and sines, so that scores grow by its square (YaRN's temperature); 1 otherwise
    """

    inv_freq: Tensor
    factor: float = 1.0


def _even(d_head: int) -> None:
    if d_head < 2 or d_head % 2:
        raise ConfigError("d_head", f"RoPE turns pairs of channels, so the head dimension must be even, got {d_head}")


def rope(d_head: int, *, theta: float = 10000.0, device: torch.device | str = "cpu") -> Rope:
    """theta^(-2t/d), as published (Su et al. 2021, eq. 15)."""
    _even(d_head)
    device = torch.device(device)
    t = torch.arange(d_head // 2, dtype=wide_dtype(device), device=device)
    return Rope(theta ** (-2 * t / d_head))


def rope_linear(d_head: int, *, factor: float, theta: float = 10000.0, device: torch.device | str = "cpu") -> Rope:
    """Position interpolation (Chen et al. 2023, eq. 4): positions, hence all speeds, divided by `factor`."""
    return Rope(rope(d_head, theta=theta, device=device).inv_freq / factor)


def rope_ntk(d_head: int, *, alpha: float, theta: float = 10000.0, device: torch.device | str = "cpu") -> Rope:
    """NTK-aware scaling: theta alpha^(d/(d-2)), so that the slowest pair is interpolated and the fastest kept.

    From a forum post by bloc97 (2023); as eq. 16 in the YaRN paper (Peng et al. 2023).
    """
    _even(d_head)
    if d_head == 2:
        raise ConfigError("d_head", "NTK scaling changes the base by alpha^(d/(d-2)) and needs d >= 4, got 2")
    return rope(d_head, theta=theta * alpha ** (d_head / (d_head - 2)), device=device)


def rope_dynamic_ntk(
    d_head: int,
    *,
    factor: float,
    trained_len: int,
    seq_len: int,
    theta: float = 10000.0,
    device: torch.device | str = "cpu",
) -> Rope:
    """NTK-aware scaling that follows the current length; up to `trained_len` nothing changes.

    alpha = factor * L/trained_len - (factor - 1). The speeds depend on L: keys rotated for a shorter L must not be
    kept in a cache, rotate them anew.
    """
    alpha = factor * max(seq_len, trained_len) / trained_len - (factor - 1)
    return rope_ntk(d_head, alpha=alpha, theta=theta, device=device)


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
    """YaRN (Peng et al. 2023, §3.2 and eq. 22): pairs that turn more than `beta_fast` times within `trained_len`
    keep their speed, those that turn less than `beta_slow` times are interpolated, a ramp over the index between.

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


def rope_tables(positions: Tensor, speeds: Rope) -> tuple[Tensor, Tensor]:
    """positions (..., L) -> cos, sin (..., L, d/2) in the dtype of the speeds, `factor` included."""
    angles = positions.to(speeds.inv_freq.dtype)[..., None] * speeds.inv_freq
    return speeds.factor * angles.cos(), speeds.factor * angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, layout: RopeLayout = "half-split") -> Tensor:
    """Turn every pair of channels by its angle; x (..., L, d), cos and sin (..., L, d/2) -> (..., L, d).

    layout  which channels are a pair: "half-split" t and t + d/2 (GPT-NeoX, Llama), "interleaved" 2t and 2t + 1 (the
            paper, GPT-J). The same map up to a permutation of channels; checkpoints are not interchangeable.
    Computes in at least float32, returns the dtype of x.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    cos, sin = cos.to(wide), sin.to(wide)
    if layout == "half-split":
        a, b = x.to(wide).chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
    if layout == "interleaved":
        a, b = x.to(wide).unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2).to(x.dtype)
    raise ConfigError("layout", f"{layout!r}: expected half-split or interleaved")


# -- linear biases -------------------------------------------------------------------------------------------------


def alibi_slopes(n_heads: int, *, bias_max: float = 8.0, device: torch.device | str = "cpu") -> Tensor:
    """(H,) in the wide dtype: 2^(-bias_max h/n) for h = 1 .. n (Press et al. 2022, §3).

    H no power of two: the slopes of the power of two below, then every second slope of the one above, as in the
    authors' code; BLOOM and MPT build the same list by other words.
    """
    device = torch.device(device)
    dtype = wide_dtype(device)
    n = 2 ** math.floor(math.log2(n_heads))
    h = torch.arange(1, n + 1, dtype=dtype, device=device)
    between = 2 * torch.arange(n_heads - n, dtype=dtype, device=device) + 1
    return 2.0 ** (-bias_max * torch.cat([h / n, between / (2 * n)]))


def alibi_key_bias(slopes: Tensor, positions: Tensor) -> Tensor:
    """slope_h * p_j: slopes (H,), positions (L,) or (B, L) -> (1 or B, H, 1, L).

    On causal rows the softmax cannot tell it from -slope_h (i - j), which needs (L, L) numbers; only there.
    """
    positions = positions.to(slopes.dtype)
    if positions.ndim == 1:
        positions = positions[None]
    return slopes[None, :, None, None] * positions[:, None, None, :]


def real_positions(mask: Tensor) -> Tensor:
    """Position of each key among the real tokens, 0 at pads: mask (B, L) -> (B, L). Right on either side's padding."""
    return (mask.cumsum(-1) - 1) * mask


def alibi_lags(slopes: Tensor, seq_len: int) -> Tensor:
    """-slope_h |lag| for lag = -(L-1) .. L-1: slopes (H,) -> (H, 2L - 1). All that the symmetric bias holds."""
    lag = torch.arange(1 - seq_len, seq_len, dtype=slopes.dtype, device=slopes.device).abs()
    return -slopes[:, None] * lag


def alibi_symmetric(slopes: Tensor, seq_len: int) -> Tensor:
    """-slope_h |i - j|, the bidirectional form, as a view of its lags: slopes (H,) -> (1, H, L, L).

    The rows run backwards through the lags, which no stride can say, so the last axis is flipped: entry (h, i, j)
    is the bias of query i and key L - 1 - j. Attention does not care about the order of keys, so a caller flips
    keys and values too and (L, L) is never stored.
    """
    lags = alibi_lags(slopes, seq_len).contiguous()
    return lags.as_strided((1, lags.shape[0], seq_len, seq_len), (0, lags.stride(0), 1, 1))


# -- T5's buckets --------------------------------------------------------------------------------------------------


def t5_buckets(lags: Tensor, *, bidirectional: bool, n_buckets: int, max_distance: int) -> Tensor:
    """Bucket of each lag = key position - query position; int64 of any shape -> the same shape, 0 .. n_buckets - 1.

    Raffel et al. 2020, §2.1: half of the buckets hold one distance each, the others grow logarithmically up to
    `max_distance`, and all beyond share the last one. `bidirectional` gives half of the buckets to later keys;
    otherwise all later keys are in bucket 0, with the query itself. Raises ConfigError when there is no room for that.
    """
    per_sign = n_buckets // 2 if bidirectional else n_buckets
    if per_sign < 2:
        least = 4 if bidirectional else 2
        raise ConfigError("n_buckets", f"expected at least {least}, got {n_buckets}")
    if max_distance <= per_sign // 2:
        exact = per_sign // 2
        raise ConfigError("max_distance", f"{max_distance} must exceed the {exact} distances with their own bucket")
    table = _t5_table(per_sign, max_distance).to(lags.device)
    distance = lags.abs() if bidirectional else (-lags).clamp_min(0)
    bucket = table[distance.clamp_max(max_distance)]
    return bucket + per_sign * (lags > 0) if bidirectional else bucket


@functools.lru_cache(maxsize=64)
def _t5_table(per_sign: int, max_distance: int) -> Tensor:
    """Bucket of distance 0 .. max_distance, on the host in float32: trained tables belong to the edges made there."""
    exact = per_sign // 2
    distance = torch.arange(max_distance + 1, device="cpu")
    ratio = torch.log(distance.clamp_min(exact).float() / exact) / math.log(max_distance / exact)
    far = exact + (ratio * (per_sign - exact)).long()
    return torch.where(distance < exact, distance, far.clamp_max(per_sign - 1))
