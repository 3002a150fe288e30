"""Operations on carried state: one generic map, so that no architecture writes them again.

A state is a pytree (dict, list, tuple) of tensors, every leaf batch-first (B, ...), or None = nothing carried. What
of the batch is real in a leaf is the backbone's knowledge: it keeps its own valid mask as a leaf where it needs one.
Boolean and integer leaves (masks, counters) are bookkeeping: they are moved and selected like the others, but not
cast and not counted.

Leaves whose other dimensions change from call to call (a memory that grows while it fills) can be detached, moved
and selected; two states can be mixed row by row (`where_rows`, `reset_rows`) only when they are `compatible`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

State: TypeAlias = Any
"""A pytree of tensors (dict, list, tuple), every leaf batch-first; None = nothing carried, or the initial state."""


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in a fixed order; none for None. Raises TypeError for a leaf that is no tensor."""
    found = [leaf for leaf in pytree.tree_leaves(state) if leaf is not None]
    for leaf in found:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"a state holds tensors only, found {type(leaf).__name__}")
    return found


def map_state(fn: Callable[[Tensor], Tensor], state: State) -> State:
    """`fn` of every leaf, in the same tree."""
    return pytree.tree_map(lambda leaf: None if leaf is None else fn(leaf), state)


def detach(state: State) -> State:
    """The same state without its gradient history."""
    return map_state(Tensor.detach, state)


def to(state: State, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
    """Move to `device`; cast real leaves to `dtype` and complex ones to the complex dtype of that precision."""

    def move(leaf: Tensor) -> Tensor:
        if dtype is None or not (leaf.is_floating_point() or leaf.is_complex()):
            return leaf.to(device=device)
        return leaf.to(device=device, dtype=dtype.to_complex() if leaf.is_complex() else dtype)

    return map_state(move, state)


def select_rows(state: State, index: Tensor) -> State:
    """Rows of the batch by integer index (n,) or boolean mask (B,)."""
    return map_state(lambda leaf: leaf[index.to(leaf.device)], state)


def compatible(new: State, old: State) -> bool:
    """Whether the two have the same tree and leaf by leaf the same shape, so that rows of both can be mixed."""
    new_leaves, new_spec = pytree.tree_flatten(new)
    old_leaves, old_spec = pytree.tree_flatten(old)
    if new_spec != old_spec:
        return False
    return all(
        (n is None and o is None) or (n is not None and o is not None and n.shape == o.shape)
        for n, o in zip(new_leaves, old_leaves, strict=True)
    )


def where_rows(keep: Tensor, new: State, old: State) -> State:
    """Row b of `new` where keep[b], of `old` elsewhere; keep (B,) bool.

    Raises ValueError when the two are not `compatible`: rows of memories of different lengths cannot be mixed
    without knowing which of their entries are valid.
    """
    if not compatible(new, old):
        raise ValueError(f"states of different form cannot be mixed row by row: {describe(new)} and {describe(old)}")

    def pick(n: Tensor, o: Tensor) -> Tensor:
        if n is None:
            return n
        if n.shape[0] != keep.shape[0]:
            raise ValueError(f"a row mask of {keep.shape[0]} rows for a state of batch size {n.shape[0]}")
        return torch.where(keep.to(n.device).view(-1, *(1,) * (n.ndim - 1)), n, o)

    return pytree.tree_map(pick, new, old)


def reset_rows(state: State, rows: Tensor, fresh: State) -> State:
    """`state` with the rows where rows (B,) bool is True taken from `fresh` (from `init_state`).

    Raises ValueError like `where_rows`.
    """
    return where_rows(rows, fresh, state)


def elements(state: State) -> int:
    """Numbers carried per sample; a complex one counts twice, masks and counters do not count."""
    total = 0
    for leaf in leaves(state):
        if leaf.is_floating_point() or leaf.is_complex():
            total += leaf[:1].numel() * (2 if leaf.is_complex() else 1)
    return total


def batch_size(state: State) -> int | None:
    """The batch size that all leaves agree on; None for a state without leaves. Raises ValueError otherwise."""
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in leaves(state)}
    if len(sizes) > 1 or None in sizes:
        raise ValueError(f"leaves that are not batch-first: {describe(state)}")
    return sizes.pop() if sizes else None


def check_batch(state: State, batch: int) -> None:
    """Raise ValueError, naming both numbers, when `state` belongs to another batch size."""
    found = batch_size(state)
    if found is not None and found != batch:
        raise ValueError(f"state of batch size {found} given with an input of batch size {batch}")


def check_state(state: State, fresh: State) -> None:
    """Raise ValueError, naming both, when `state` is not of the kind of `fresh`.

    state  what a caller gave; None is always right
    fresh  from `init_state` of the same batch size (device "meta" costs nothing). A dimension that is 0 there may have
           any size: a memory that fills
    """
    if state is None:
        return
    check_batch(state, batch_size(fresh) or 0)
    new, new_spec = pytree.tree_flatten(state)
    old, old_spec = pytree.tree_flatten(fresh)
    if new_spec != old_spec or not all(map(_alike, new, old)):
        raise ValueError(
            f"a state of another architecture or configuration: given {describe(state)}, carried here {describe(fresh)}"
        )


def _alike(leaf: Tensor | None, fresh: Tensor | None) -> bool:
    if leaf is None or fresh is None:
        return leaf is fresh
    kinds = [(t.is_complex(), t.is_floating_point()) for t in (leaf, fresh)]
    sizes = leaf.ndim == fresh.ndim and all(f in (0, n) for n, f in zip(leaf.shape, fresh.shape, strict=True))
    return kinds[0] == kinds[1] and sizes


def describe(state: State) -> str:
    """Shapes of the leaves, for messages."""
    return "None" if state is None else "[" + ", ".join(str(tuple(leaf.shape)) for leaf in leaves(state)) + "]"
