"""What a user may choose about the Nyströmformer."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, Shape

INITS = ("exact", "original")
PADDING = ("real", "zero", "blind")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


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

    def check(self, shape: Shape) -> None:
        """Raise ConfigError for what cannot be built."""
        if self.n_heads < 1:
            raise ConfigError("n_heads", f"expected a positive number, got {self.n_heads}")
        for name in ("d_qkv", "d_ff"):
            if getattr(self, name) < 0:
                raise ConfigError(name, f"expected a positive number, or 0 for the default, got {getattr(self, name)}")
        d_qkv = self.d_qkv or shape.d_model
        if d_qkv % self.n_heads:
            width = f"d_qkv {d_qkv}" if self.d_qkv else f"d_model {d_qkv}"
            raise ConfigError("n_heads", f"{self.n_heads} does not divide {width}")
        if self.n_landmarks < 0:
            raise ConfigError("n_landmarks", f"expected a positive number, or 0 for none, got {self.n_landmarks}")
        if self.conv_kernel and (self.conv_kernel < 0 or self.conv_kernel % 2 == 0):
            raise ConfigError("conv_kernel", f"expected an odd number of taps, or 0 for none, got {self.conv_kernel}")
        if self.pinv_iterations < 1:
            raise ConfigError("pinv_iterations", f"expected a positive number, got {self.pinv_iterations}")
        for name, allowed in (("pinv_init", INITS), ("padding", PADDING), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(name, f"{getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        if self.norm_eps <= 0:
            raise ConfigError("norm_eps", f"expected a positive number, got {self.norm_eps}")
        if not 0 <= self.dropout < 1:
            raise ConfigError("dropout", f"expected a number in [0, 1), got {self.dropout}")
