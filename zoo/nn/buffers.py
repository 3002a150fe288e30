"""Buffers that are a function of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def derived_buffer(module: nn.Module, name: str, make: Callable[[], Tensor]) -> None:
    """Register `make()` as a buffer that is not saved with the weights.

    It is made again when weights are loaded, so that a module that was built on the meta device is whole after
    `to_empty` and `load_state_dict`. `make` must be picklable, as modules are.
    """
    module.register_buffer(name, make().to(torch.get_default_device()), persistent=False)
    module.register_load_state_dict_post_hook(partial(_make_again, name=name, make=make))


def _make_again(module: nn.Module, incompatible_keys: object, *, name: str, make: Callable[[], Tensor]) -> None:
    old: Tensor = getattr(module, name)
    setattr(module, name, make().to(old.dtype).to("cpu" if old.is_meta else old.device))
