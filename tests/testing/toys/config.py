from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, Preset, Reported


@dataclass
class ToyConfig:
    fault: str = ""
    """The planted fault, by name."""
    heads: int = 2
    """Divides d_model."""

    def check(self, dims: ModelDims) -> None:
        if dims.d_model % self.heads:
            raise ConfigError("d_model", f"{dims.d_model} is not divisible by heads = {self.heads}")


PRESETS = {("listops", "quick"): Preset(values={"arch.heads": 2, "optim.lr": 1e-3}, sources={"*": "ours, a toy"})}
REPORTED = (Reported(task="listops", metric="accuracy", value=0.5, source="nowhere"),)
BAD_PRESETS = {("listops", "quick"): Preset(values={"arch.head": 2}, sources={"*": "ours, a toy"})}
