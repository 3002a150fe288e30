"""Configuration of the Performer. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from zoo import BlockConfig, ConfigError, ModelDims, NonNegativeFloat, NonNegativeInt


@dataclass
class PerformerConfig(BlockConfig):
    """The pre-norm block h = x + FAVOR(LN x), y = h + MLP(LN h)."""

    kernel: Literal["softmax", "hyperbolic", "relu"] = "softmax"
    """softmax: positive random features. hyperbolic: the same over W and -W. relu: generalised attention."""
    n_features: NonNegativeInt = 0
    """Random features m, rows of W; 0 = d ln d of the head dimension d, at least d."""
    project: bool = True
    """For kernel=relu: relu(W u d^(-1/4)), as performer-pytorch; false: relu(u) without any W, as Long Range Arena."""
    row_norms: Literal["gaussian", "sqrt_d"] = "gaussian"
    """gaussian: each row of W is N(0, I_d). sqrt_d: all rows have length sqrt(d)."""
    redraw_every: NonNegativeInt = 1000
    """Draw W anew after this many optimiser steps; 0 = never. Evaluation always uses the W of the last step."""
    eps: NonNegativeFloat | None = None
    """Added to every feature; null = 1e-6 for softmax, 0 for hyperbolic, 1e-3 for relu."""
    denominator_eps: NonNegativeFloat = 0.0
    """Added to the normaliser: to phi_q z, or, causal, to every entry of z."""
    grad_shift: bool = True
    """Gradients flow through the maximum that guards the exponentials (jax); false: it is a constant (PyTorch)."""

    def features(self, d_head: int) -> int:
        """Number of random features for heads of dimension d; by default that of performer-pytorch."""
        return self.n_features or max(d_head, int(d_head * math.log(d_head)))

    @property
    def feature_eps(self) -> float:
        """`eps`, or its default for the kernel."""
        return {"softmax": 1e-6, "hyperbolic": 0.0, "relu": 1e-3}[self.kernel] if self.eps is None else self.eps

    @property
    def exact(self) -> bool:
        """Whether features are exponentials with nothing added to them or to their sums."""
        return self.kernel != "relu" and not self.feature_eps and not self.denominator_eps

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        super().check(dims)
        if not self.project and self.kernel != "relu":
            raise ConfigError("project", f"only kernel=relu works without random features, not {self.kernel}")
        if not self.project and self.n_features:
            raise ConfigError("n_features", f"{self.n_features}, but with project=false there are no random features")
