"""What an op may do while PyTorch traces it (compile, export, fake and meta tensors) or transforms it (torch.func)."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


def in_transform() -> bool:
    """Whether the call runs under a transform of torch.func: grad, vjp, jvp, vmap."""
    # functorch has no public name for it; there is no level outside of all transforms
    return not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None


def plain_only() -> bool:
    """Whether a backward pass of our own would be lost, so that an op is to run as plain PyTorch operations.

    The transforms of torch.func refuse an autograd.Function that saves more than inputs and outputs; torch.export
    replaces one by what its forward pass does, in which nothing may be written in place.
    """
    return in_transform() or torch.compiler.is_exporting()


def has_values(x: Tensor) -> bool:
    """Whether the host may look at the numbers of x: it is neither traced nor transformed, nor a meta tensor."""
    return type(x) in (Tensor, nn.Parameter) and not (x.is_meta or torch.compiler.is_compiling() or in_transform())


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Let nothing inside be cast to half precision, on the device of x; the meta device knows no autocast."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def draw_seed() -> int:
    """A seed for a generator, of the CPU's random state; 0 where tensors have no values (FakeTensorMode)."""
    drawn = torch.randint(1 << 62, (), device="cpu")
    return int(drawn) if has_values(drawn) else 0
