"""One checker for the shapes of an op's arguments."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def check_shapes(op: str, tensors: Mapping[str, tuple[Tensor | None, str]], **sizes: int) -> None:
    """Check tensors against shapes written as names of dimensions, and raise ValueError at the first mismatch.

        check_shapes("conv", {"x": (x, "batch seq_len channels"), "weight": (weight, "channels taps")})

    A name stands for one size: that in `sizes`, or else that of its first occurrence. "1|batch" also allows size 1.
    seq_len must be at least 1. A tensor that is None is skipped.
    """
    for name, (tensor, spec) in tensors.items():
        if tensor is None:
            continue
        dims = spec.split()
        fits = tensor.ndim == len(dims)
        for dim, size in zip(dims, tensor.shape, strict=False):
            known = sizes.get(dim.removeprefix("1|"), max(size, 1) if dim == "seq_len" else size)
            fits &= size == known or (size == 1 and dim.startswith("1|"))
        if not fits:
            raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}, expected ({_describe(dims, sizes)})")
        sizes |= {dim: size for dim, size in zip(dims, tensor.shape, strict=True) if not dim.startswith("1|")}


def _describe(dims: list[str], sizes: Mapping[str, int]) -> str:
    """Dimensions with their sizes as far as known: "batch=2, seq_len >= 1, channels=3"."""
    words = []
    for dim in dims:
        either, name = ("1 or ", dim[2:]) if dim.startswith("1|") else ("", dim)
        free = "seq_len >= 1" if name == "seq_len" else name
        words.append(either + (f"{name}={sizes[name]}" if name in sizes else free))
    return ", ".join(words)
