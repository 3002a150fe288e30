"""Test tensors, and assertions whose messages say what differs, where, and by how much. B batch, L seq_len."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn

from zoo.nn.state import State, describe, leaves
from zoo.spec.errors import did_you_mean
from zoo.spec.settings import SECTIONS

SAME = 1e-10
"""Relative float64 difference of one algorithm on the same numbers in another arrangement (padding, batch rows)."""
EQUIVALENT = 1e-8
"""Relative float64 difference of two algorithms for one function (recurrence and convolution, chunks and one call)."""


def noise_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Fixed Gaussian noise of the tensor's shape and dtype."""
    generator = torch.Generator().manual_seed(2000 + seed)
    return torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.dtype)


def weighted_sum(hidden: Tensor, seed: int = 0) -> Tensor:
    """A scalar that depends on every element of `hidden`, each with a weight of its own."""
    return (hidden * noise_like(hidden, seed)).sum()


def right_padded(seq_len: int, lengths: Sequence[int]) -> Tensor:
    """A mask (B, seq_len) of rows with lengths[b] real tokens, then pads."""
    return torch.arange(seq_len) < torch.tensor(lengths)[:, None]


def relative_size(part: Tensor, whole: Tensor) -> float:
    """Largest magnitude of `part` over that of `whole`; 0 for an empty part, inf where a NaN is."""
    if not part.numel() or not part.any():
        return 0.0
    ratio = (part.abs().max() / whole.abs().max().clamp_min(1e-30)).item()
    return ratio if ratio == ratio else float("inf")


def importable_without_torch(targets: Iterable[str]) -> None:
    """Assert that the modules of "module:attribute" strings can be imported, in another process, without torch."""
    modules = sorted({target.partition(":")[0] for target in targets if target})
    code = (
        "import importlib, sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': sys.exit(module + ' imports torch')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
    assert process.returncode == 0, f"importing {', '.join(modules)}: {last_line}"


def known_settings(keys: Iterable[str], where: str, others: Iterable[str] = ()) -> None:
    """Assert that dotted configuration keys are settings of a run, or among others."""
    known = [f"{section}.{field.name}" for section, cls in SECTIONS.items() for field in fields(cls)] + [*others]
    for key in keys:
        assert key in known, f"{where}: key {key!r}{did_you_mean(key, known)}"


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Assert that two tensors have one shape and differ by at most `tolerance`, relative to the largest number.

    The message names the first place that differs: row and position of hidden vectors (B, L, D), position of (L, D).
    """
    assert actual.shape == expected.shape, f"{what}: shapes {tuple(actual.shape)} and {tuple(expected.shape)}"
    change = (actual - expected).detach().abs()
    difference = relative_size(change, expected.detach())
    if difference <= tolerance:
        return
    first = (~(change <= tolerance * expected.detach().abs().max())).nonzero()[0].tolist()
    names = {2: ("position",), 3: ("row", "position")}.get(change.ndim, ())
    place = ", ".join(f"{name} {index}" for name, index in zip(names, first, strict=False)) or f"index {first}"
    raise AssertionError(f"{what} differ by {difference:.3g} (relative; tolerance {tolerance:g}), first at {place}")


def states_close(actual: State, expected: State, tolerance: float, what: str) -> None:
    """Assert that two states are close leaf by leaf, masks and counters equal."""
    ours, theirs = leaves(actual), leaves(expected)
    same = [x.shape for x in ours] == [x.shape for x in theirs]
    assert same, f"{what}: leaves {describe(actual)} and {describe(expected)}"
    for x, y in zip(ours, theirs, strict=True):
        exact = not (x.is_floating_point() or x.is_complex())
        close(x.double() if exact else x, y.double() if exact else y, 0.0 if exact else tolerance, what)


def finite(tensor: Tensor, what: str) -> None:
    """Assert that no number is NaN or infinite."""
    bad = (~torch.isfinite(tensor)).sum().item()
    assert not bad, f"{what}: {bad} of {tensor.numel()} numbers are not finite"


def refused(call: Callable[[], object], what: str, error: type[Exception] = ValueError) -> str:
    """Assert that the call raises `error`; its message."""
    try:
        call()
    except error as raised:
        return str(raised)
    raise AssertionError(f"{what} is accepted; expected a {error.__name__}")


def same_form(hidden: Tensor, expected: Tensor, where: str) -> None:
    """Assert that hidden is finite, and has the shape, dtype and device of `expected`."""
    for what in ("shape", "dtype", "device"):
        ours, theirs = getattr(hidden, what), getattr(expected, what)
        assert ours == theirs, f"{where}: hidden has {what} {ours}, expected {theirs}"
    finite(hidden, where)


def finite_gradients(backbone: nn.Module, x: Tensor, where: str) -> None:
    """Assert that the gradients of x and of the parameters, where there are any, are finite."""
    for name, leaf in [("x", x), *backbone.named_parameters()]:
        if leaf.grad is not None:
            finite(leaf.grad, f"{where}: gradient of {name}")
