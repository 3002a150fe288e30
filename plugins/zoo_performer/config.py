"""What a user may choose about the Performer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_block, check_choice, check_widths

KERNELS = ("softmax", "hyperbolic", "relu")
ROW_NORMS = ("gaussian", "sqrt_d")


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
    eps: float | None = None
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

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        check_block(self, dims)
        check_widths(self, "n_features")
        check_choice(self, "kernel", KERNELS)
        check_choice(self, "row_norms", ROW_NORMS)
        if not self.project and self.kernel != "relu":
            raise ConfigError("project", f"only kernel=relu works without random features, not {self.kernel}")
        if not self.project and self.n_features:
            raise ConfigError("n_features", f"{self.n_features}, but with project=false there are no random features")
        if self.redraw_every < 0:
            raise ConfigError("redraw_every", f"expected a number of steps, or 0 for never, got {self.redraw_every}")
        for name in ("eps", "denominator_eps"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(name, f"expected a number from 0, got {getattr(self, name)}")
