"""What a user may choose about the Performer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from zoo import ConfigError, Shape

KERNELS = ("softmax", "hyperbolic", "relu")
ROW_NORMS = ("gaussian", "sqrt_d")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


@dataclass
class PerformerConfig:
    """The pre-norm block h = x + FAVOR(LN x), y = h + MLP(LN h)."""

    n_heads: int = 4
    """Attention heads; must divide d_qkv."""
    d_qkv: int = 0
    """Width of all heads together; 0 = d_model."""
    d_ff: int = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    kernel: str = "softmax"
    """softmax (positive random features) | hyperbolic (the same over W and -W) | relu (generalised attention)."""
    n_features: int = 0
    """Random features m, rows of W; 0 = d ln d of the head dimension d, at least d."""
    project: bool = True
    """For kernel=relu: relu(W u d^(-1/4)), as performer-pytorch; false: relu(u) without any W, as Long Range Arena."""
    row_norms: str = "gaussian"
    """gaussian (each row of W is N(0, I_d)) | sqrt_d (all rows equally long)."""
    redraw_every: int = 1000
    """Draw W anew every so many optimiser steps; 0 = never. Evaluation always uses the W of the last step."""
    eps: Optional[float] = None  # noqa: UP045  (OmegaConf reads the annotation)
    """Added to every feature; unset = 1e-6 for softmax, 0 for hyperbolic, 1e-3 for relu."""
    denominator_eps: float = 0.0
    """Added to the normaliser: to phi_q z, or, causal, to every entry of z."""
    grad_shift: bool = True
    """Gradients flow through the maximum that guards the exponentials (jax); false: it is a constant (PyTorch)."""
    activation: str = "gelu"
    """gelu (exact) | gelu_tanh | relu | silu: in the channel MLP."""
    bias: bool = True
    """Biases in the attention's projections (the MLP always has them)."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    dropout: float = 0.0
    """Dropout on what each sublayer adds, and inside the MLP."""

    def features(self, d_head: int) -> int:
        """m for heads of dimension d: the rule of performer-pytorch where none is given."""
        return self.n_features or max(d_head, int(d_head * math.log(d_head)))

    @property
    def feature_eps(self) -> float:
        """What is added to every feature."""
        return {"softmax": 1e-6, "hyperbolic": 0.0, "relu": 1e-3}[self.kernel] if self.eps is None else self.eps

    def check(self, shape: Shape) -> None:
        """Raise ConfigError for what cannot be built."""
        if self.n_heads < 1:
            raise ConfigError("n_heads", f"expected a positive number, got {self.n_heads}")
        for name in ("d_qkv", "d_ff", "n_features"):
            if getattr(self, name) < 0:
                raise ConfigError(name, f"expected a positive number, or 0 for the default, got {getattr(self, name)}")
        d_qkv = self.d_qkv or shape.d_model
        if d_qkv % self.n_heads:
            width = f"d_qkv {d_qkv}" if self.d_qkv else f"d_model {d_qkv}"
            raise ConfigError("n_heads", f"{self.n_heads} does not divide {width}")
        if self.kernel not in KERNELS:
            raise ConfigError("kernel", f"{self.kernel!r}: expected one of {', '.join(KERNELS)}")
        if self.row_norms not in ROW_NORMS:
            raise ConfigError("row_norms", f"{self.row_norms!r}: expected one of {', '.join(ROW_NORMS)}")
        if not self.project and self.kernel != "relu":
            raise ConfigError("project", f"only kernel=relu works without random features, not {self.kernel}")
        if not self.project and self.n_features:
            raise ConfigError("n_features", f"{self.n_features}, but with project=false there are no random features")
        if self.redraw_every < 0:
            raise ConfigError("redraw_every", f"expected a number of steps, or 0 for never, got {self.redraw_every}")
        for name in ("eps", "denominator_eps"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(name, f"expected a number from 0, got {getattr(self, name)}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError("activation", f"{self.activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if self.norm_eps <= 0:
            raise ConfigError("norm_eps", f"expected a positive number, got {self.norm_eps}")
        if not 0 <= self.dropout < 1:
            raise ConfigError("dropout", f"expected a number in [0, 1), got {self.dropout}")
