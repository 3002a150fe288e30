"""Optimiser options of single parameters: set where a parameter is created, read where the optimiser is built.

They are stored on the module that owns the parameter, not on the tensor, so they survive `deepcopy` and pickling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ParamOptions:
    """Optimiser options of one parameter; None = the run's.

    lr            peak learning rate (the schedule's shape still applies)
    lr_scale      multiple of the run's learning rate; not together with `lr`
    weight_decay  weight decay, such as 0.0 for the A and dt of state space models
    """

    lr: float | None = None
    lr_scale: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr_scale is not None:
            raise ValueError("options of a parameter take lr or lr_scale, not both")


def param_options(
    module: nn.Module,
    *names: str,
    lr: float | None = None,
    lr_scale: float | None = None,
    weight_decay: float | None = None,
) -> None:
    """Set the options of parameters that `module` itself owns, by their local names."""
    own = dict(module.named_parameters(recurse=False))
    options: dict[str, ParamOptions] = module.__dict__.setdefault("_param_options", {})
    for name in names:
        if name not in own:
            raise KeyError(f"{type(module).__name__} has no parameter {name!r} of its own; it has {sorted(own)}")
        options[name] = ParamOptions(lr=lr, lr_scale=lr_scale, weight_decay=weight_decay)


def parameters_with_options(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, ParamOptions]]:
    """Yield every trainable parameter once, with its qualified name and its options.

    Biases, the scales of norms (parameters of fewer than two dimensions) and embeddings have no weight decay unless
    their options say otherwise.
    """
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        options: dict[str, ParamOptions] = module.__dict__.get("_param_options", {})
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            default = (
                ParamOptions(weight_decay=0.0)
                if parameter.ndim < 2 or isinstance(module, nn.Embedding)
                else ParamOptions()
            )
            yield f"{prefix}.{name}" if prefix else name, parameter, options.get(name, default)


def parameter_groups(model: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for a PyTorch optimiser: one per distinct (lr, weight_decay), in order of first appearance.

    lr, weight_decay  the run's, where a parameter's options say nothing
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for _, parameter, options in parameters_with_options(model):
        own_lr = lr * (1.0 if options.lr_scale is None else options.lr_scale) if options.lr is None else options.lr
        decay = weight_decay if options.weight_decay is None else options.weight_decay
        group = groups.setdefault((own_lr, decay), {"params": [], "lr": own_lr, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())
