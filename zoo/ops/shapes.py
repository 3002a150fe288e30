"""One checker for the shapes of an op's arguments."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def check_shapes(op: str, tensors: Mapping[str, Mapping[str, Tensor | None]], **sizes: int) -> None:
    """Check tensors against shapes written as names of dimensions, and raise ValueError at the first mismatch.

        check_shapes("conv", {"batch seq_len channels": {"x": x}, "channels taps": {"weight": weight}})

    A name stands for one size: that in `sizes`, or else that of its first occurrence. "1|batch" also allows size 1.
    seq_len must be at least 1. A tensor that is None is skipped.
    """
    for spec, of_this_shape in tensors.items():
        dims = [(dim.removeprefix("1|"), dim.startswith("1|")) for dim in spec.split()]
        for name, tensor in of_this_shape.items():
            if tensor is None:
                continue
            fits = tensor.ndim == len(dims)
            for (dim, or_one), size in zip(dims, tensor.shape, strict=False):
                known = sizes.get(dim, max(size, 1) if dim == "seq_len" else size)
                fits &= size == known or (size == 1 and or_one)
            if not fits:
                expected = ", ".join(("1 or " if or_one else "") + _describe(dim, sizes) for dim, or_one in dims)
                raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}, expected ({expected})")
            sizes |= {dim: size for (dim, or_one), size in zip(dims, tensor.shape, strict=True) if not or_one}


def _describe(dim: str, sizes: Mapping[str, int]) -> str:
    """A dimension with its size, as far as known: "batch=2", "seq_len >= 1", "channels"."""
    return f"{dim}={sizes[dim]}" if dim in sizes else "seq_len >= 1" if dim == "seq_len" else dim
