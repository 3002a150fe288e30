"""Positions of tokens: sinusoids, rotations (RoPE) and their extensions, biases (ALiBi, T5).

B batch, H heads, L seq_len, D d_model, d head dimension (even for rotations), p position, t = 0 … d/2 - 1.
Frequencies and angles are made in float64 (float32 where a device has no float64) and only the finished sines,
cosines and biases are rounded to the caller's dtype: an angle of 16,384 radians in float32 is off by 1e-3.
"""

from zoo.ops.positions.alibi import alibi_key_bias, alibi_slopes, alibi_symmetric, real_positions
from zoo.ops.positions.rotary import (
    Rope,
    RopeLayout,
    rope,
    rope_dynamic_ntk,
    rope_linear,
    rope_llama3,
    rope_longrope,
    rope_ntk,
    rope_tables,
    rope_yarn,
    rotate,
)
from zoo.ops.positions.scaling import scaled_rope
from zoo.ops.positions.sinusoids import sinusoidal
from zoo.ops.positions.t5 import t5_buckets

__all__ = [
    "Rope",
    "RopeLayout",
    "alibi_key_bias",
    "alibi_slopes",
    "alibi_symmetric",
    "real_positions",
    "rope",
    "rope_dynamic_ntk",
    "rope_linear",
    "rope_llama3",
    "rope_longrope",
    "rope_ntk",
    "rope_tables",
    "rope_yarn",
    "rotate",
    "scaled_rope",
    "sinusoidal",
    "t5_buckets",
]
