"""Per-parameter optimiser marks: made where a parameter is created, honoured by the optimiser builder.

A mark lives on the module that owns the parameter, not on the tensor, so it survives `deepcopy` and pickling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ParamOptions:
    """How one parameter wants to be optimised; None = as all others.

    lr            peak learning rate of its own (the schedule's shape still applies)
    lr_scale      multiple of the run's learning rate; not together with `lr`
    weight_decay  weight decay of its own (0.0 for the A and dt of state space models)
    """

    lr: float | None = None
    lr_scale: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr_scale is not None:
            raise ValueError("a mark takes lr or lr_scale, not both")


def param_options(
    module: nn.Module,
    *names: str,
    lr: float | None = None,
    lr_scale: float | None = None,
    weight_decay: float | None = None,
) -> None:
    """ParamOptions parameters of `module` by their local names."""
    own = dict(module.named_parameters(recurse=False))
    marks: dict[str, ParamOptions] = module.__dict__.setdefault("_zoo_marks", {})
    for name in names:
        if name not in own:
            raise KeyError(f"{type(module).__name__} has no parameter {name!r} of its own; it has {sorted(own)}")
        marks[name] = ParamOptions(lr=lr, lr_scale=lr_scale, weight_decay=weight_decay)


def parameters_with_options(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, ParamOptions]]:
    """Every trainable parameter once, with its qualified name and mark (an empty one where there is none).

    Biases and the scales of norms (parameters of fewer than two dimensions) and embeddings carry no weight decay
    unless they are marked otherwise.
    """
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        marks: dict[str, ParamOptions] = module.__dict__.get("_zoo_marks", {})
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            default = (
                ParamOptions(weight_decay=0.0)
                if parameter.ndim < 2 or isinstance(module, nn.Embedding)
                else ParamOptions()
            )
            yield f"{prefix}.{name}" if prefix else name, parameter, marks.get(name, default)
