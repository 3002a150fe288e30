"""The dimensions that a run gives to a backbone. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.spec.errors import ConfigError

Mode = Literal["causal", "bidirectional", "seq2seq"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDims:
    """What the run decides about a backbone, as opposed to its architecture's own configuration.

    d_model   width of the residual stream at every boundary
    n_layers  depth
    mode      "causal" | "bidirectional" | "seq2seq"
    max_len   the longest sequence that one call will be given
    """

    d_model: int
    n_layers: int
    mode: Mode
    max_len: int

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "max_len"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"expected a positive number, got {getattr(self, name)}")
