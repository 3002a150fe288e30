from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, PositiveInt


@dataclass
class ToyConfig:
    fault: str = ""
    """The planted fault, by name."""
    heads: PositiveInt = 2
    """Divides d_model."""

    def check(self, dims: ModelDims) -> None:
        if dims.d_model % self.heads:
            raise ConfigError("d_model", f"{dims.d_model} is not divisible by heads = {self.heads}")
