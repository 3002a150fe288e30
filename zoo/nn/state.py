"""Carried state, and the operations on it that are the same for every architecture. B batch.

A state is a pytree (dict, list, tuple) of tensors, every leaf batch-first (B, ...), or None = nothing carried. A
backbone that needs to know which entries of a leaf are valid keeps a mask as another leaf. Boolean and integer leaves
(masks, counters) are selected like the others, but are not counted as elements.

Leaves whose other dimensions change from call to call (a memory that grows while it fills) can be detached, selected
and reset row by row (`reset_rows`); two states can be mixed (`where_rows`) only when they are `compatible`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

State: TypeAlias = Any
"""A pytree of tensors (dict, list, tuple), every leaf batch-first; None = nothing carried, or the initial state."""


_return_state = True  # a value of the process, not of a thread: see zoo/ops/backend.py


@contextlib.contextmanager
def return_state(value: bool) -> Iterator[None]:
    """Set whether backbones called inside return the state after the sequence (True unless set).

    With False a backbone may return None or anything else in its place, where computing the state is work of its own.
    Outputs and gradients are the same either way.
    """
    global _return_state
    outer, _return_state = _return_state, value
    try:
        yield
    finally:
        _return_state = outer


def returns_state() -> bool:
    """Whether the state after the sequence is to be returned, as `return_state` has set it."""
    return _return_state


def leaves(state: State) -> list[Tensor]:
    """Return the tensors of a state, in a fixed order; none for None. TypeError for a leaf that is no tensor."""
    tensors = [leaf for leaf in pytree.tree_leaves(state) if leaf is not None]
    for leaf in tensors:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"a state holds tensors only, but this one holds a {type(leaf).__name__}")
    return tensors


def map_state(fn: Callable[[Tensor], Tensor], state: State) -> State:
    """Apply `fn` to every leaf."""
    return pytree.tree_map(lambda leaf: None if leaf is None else fn(leaf), state)


def detach(state: State) -> State:
    """Detach every leaf from its gradient history."""
    return map_state(Tensor.detach, state)


def select_rows(state: State, index: Tensor) -> State:
    """Select rows of the batch by integer index (n,) or boolean mask (B,)."""
    return map_state(lambda leaf: leaf[index.to(leaf.device)], state)


def compatible(new: State, old: State) -> bool:
    """Return whether two states have the same tree and shapes, so that their rows can be mixed."""
    new_leaves, new_spec = pytree.tree_flatten(new)
    old_leaves, old_spec = pytree.tree_flatten(old)
    if new_spec != old_spec:
        return False
    return all(
        (n is None and o is None) or (n is not None and o is not None and n.shape == o.shape)
        for n, o in zip(new_leaves, old_leaves, strict=True)
    )


def where_rows(keep: Tensor, new: State, old: State) -> State:
    """Take row b of `new` where keep[b], of `old` elsewhere; keep (B,) bool.

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
    """Reset some rows to the initial state: rows (B,) bool, fresh from `init_state`.

    Entries that a leaf has gained since it was fresh are zero there: not real (see `Backbone.init_state`).
    Raises ValueError like `where_rows`.
    """
    new, spec = pytree.tree_flatten(fresh)
    old, old_spec = pytree.tree_flatten(state)
    if spec == old_spec:
        pairs = [(n, o, n is not None and o is not None and n.shape != o.shape) for n, o in zip(new, old, strict=True)]
        new = [torch.zeros_like(o) if grown and _fits(o, n) else n for n, o, grown in pairs]
    return where_rows(rows, pytree.tree_unflatten(new, spec), state)


def elements(state: State) -> int:
    """Count the numbers carried per sample; a complex one counts twice, masks and counters do not count."""
    total = 0
    for leaf in leaves(state):
        if leaf.is_floating_point() or leaf.is_complex():
            total += leaf[:1].numel() * (2 if leaf.is_complex() else 1)
    return total


def batch_size(state: State) -> int | None:
    """Return the batch size of all leaves; None for a state without leaves. ValueError where leaves differ."""
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in leaves(state)}
    if len(sizes) > 1 or None in sizes:
        raise ValueError(f"leaves that are not batch-first: {describe(state)}")
    return sizes.pop() if sizes else None


def check_state(state: State, fresh: State) -> State:
    """Return `state` in the dtypes of `fresh`. ValueError unless it has its batch size, tree, kinds and shapes.

    state  given by the caller; None always passes
    fresh  from `init_state` of the same batch size (device "meta" costs nothing). A dimension that is 0 there may have
           any size: a memory that fills
    """
    if state is None:
        return None
    given, expected = batch_size(state), batch_size(fresh) or 0
    if given is not None and given != expected:
        raise ValueError(f"state of batch size {given} given with an input of batch size {expected}")
    new, new_spec = pytree.tree_flatten(state)
    old, old_spec = pytree.tree_flatten(fresh)
    if new_spec != old_spec or not all(map(_alike, new, old)):
        raise ValueError(
            f"a state of another architecture or configuration: given {describe(state)}, carried here {describe(fresh)}"
        )
    cast = [n if n is None else n.to(o.dtype) for n, o in zip(new, old, strict=True)]
    return pytree.tree_unflatten(cast, new_spec)


def _alike(leaf: Tensor | None, fresh: Tensor | None) -> bool:
    if leaf is None or fresh is None:
        return leaf is fresh
    return _kind(leaf) == _kind(fresh) and _fits(leaf, fresh)


def _kind(leaf: Tensor) -> tuple[bool, bool, bool]:
    return leaf.is_complex(), leaf.is_floating_point(), leaf.dtype == torch.bool


def _fits(leaf: Tensor, fresh: Tensor) -> bool:
    """Whether a leaf has the shape of a fresh one, or has grown from it in dimensions that are 0 there."""
    return leaf.ndim == fresh.ndim and all(f in (0, n) for n, f in zip(leaf.shape, fresh.shape, strict=True))


def describe(state: State) -> str:
    """Format the shapes of the leaves, for messages."""
    return "None" if state is None else "[" + ", ".join(str(tuple(leaf.shape)) for leaf in leaves(state)) + "]"
