"""Configuration of the Nyströmformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import BlockConfig, ConfigError, ModelDims, NonNegativeInt, PositiveInt


@dataclass
class NystromformerConfig(BlockConfig):
    """The block h = x + NystromMHA(LN x), y = h + MLP(LN h), or the same with norms after the sums."""

    n_landmarks: NonNegativeInt = 32
    """Landmarks, the means of as many segments of the sequence; 0 = exact softmax attention."""
    conv_kernel: NonNegativeInt = 35
    """Taps of the depthwise convolution of the values, one odd kernel per head; 0 = no convolution."""
    pinv_iterations: PositiveInt = 6
    """Newton-Schulz iterations for the pseudo-inverse."""
    pinv_init: Literal["exact", "original"] = "exact"
    """exact: scaled per matrix. original: one scale for the batch and all heads, so that rows of a batch influence each
    other."""
    padding: Literal["real", "zero", "blind"] = "real"
    """real: segments divide each row's real tokens. zero: they divide the padded length, pads count as zero. blind: as
    zero, but pads count as they are, also in the convolution, and are masked as keys only. zero and blind are published
    forms."""
    prenorm: bool = True
    """Norms before the sublayers and one at the end (LRA); false: after the sums (the pretrained models)."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        super().check(dims)
        if self.conv_kernel and self.conv_kernel % 2 == 0:
            raise ConfigError("conv_kernel", f"expected an odd number of taps, or 0 for none, got {self.conv_kernel}")
