"""What a user may choose about the Nyströmformer."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_block, check_choice, check_positive

INITS = ("exact", "original")
PADDING = ("real", "zero", "blind")


@dataclass
class NystromformerConfig:
    """The block h = x + NystromMHA(LN x), y = h + MLP(LN h), or the same with norms after the sums."""

    n_heads: int = 4
    """Attention heads; must divide d_qkv."""
    n_landmarks: int = 32
    """Segments whose means stand for the sequence; 0 = none, exact softmax attention."""
    d_qkv: int = 0
    """Width of all heads together; 0 = d_model."""
    d_ff: int = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    conv_kernel: int = 35
    """Taps of the depthwise convolution of the values, one odd kernel per head; 0 = no convolution."""
    pinv_iterations: int = 6
    """Steps towards the pseudo-inverse."""
    pinv_init: str = "exact"
    """exact (scaled per matrix) | original (one scale for the batch and all heads: rows of a batch influence each
    other)."""
    padding: str = "real"
    """real (segments divide each row's real tokens) | zero (they divide the padded length, pads count as zero) | blind
    (pads count as they are, also in the convolution, and are hidden as keys only): the last two are published forms."""
    prenorm: bool = True
    """Norms before the sublayers and one at the end (LRA); false: after the sums (the pretrained models)."""
    activation: str = "gelu"
    """gelu (exact) | gelu_tanh | relu | silu: in the channel MLP."""
    bias: bool = True
    """Biases in the attention's projections (the MLP always has them)."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    dropout: float = 0.0
    """Dropout on what each sublayer adds, and inside the MLP."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_block(self, dims)
        if self.n_landmarks < 0:
            raise ConfigError("n_landmarks", f"expected a positive number, or 0 for none, got {self.n_landmarks}")
        if self.conv_kernel and (self.conv_kernel < 0 or self.conv_kernel % 2 == 0):
            raise ConfigError("conv_kernel", f"expected an odd number of taps, or 0 for none, got {self.conv_kernel}")
        check_positive(self, "pinv_iterations")
        check_choice(self, "pinv_init", INITS)
        check_choice(self, "padding", PADDING)
