"""A checkpoint's tensors -> ours, and back. Whatever does not fit is listed, all of it, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

import torch
from torch import Tensor

from zoo.convert.conversion import Weight
from zoo.spec.errors import DataError

SHOWN = 20
"""More faults than this are counted, not listed."""


def to_ours(
    theirs: Mapping[str, Tensor],
    weights: Sequence[Weight],
    shapes: Mapping[str, torch.Size],
    *,
    aliases: Mapping[str, str],
    ignored: Sequence[str],
    where: str,
) -> dict[str, Tensor]:
    """Our state dict from a checkpoint's.

    shapes   of our state dict, whose keys `weights` covers
    aliases  keys of theirs that are another name of a tensor
    Raises DataError that lists every missing, superfluous and misshapen tensor of `where`.
    """
    faults: list[str] = []
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    named = {w.ours for w in weights}
    if set(shapes) != named:
        raise AssertionError(f"the map leaves out or invents {sorted(set(shapes) ^ named)}")
    for weight in weights:
        found = {source: theirs.get(source, theirs.get(_alias(source, aliases))) for source in weight.sources}
        used |= set(found)
        missing = [source for source, tensor in found.items() if tensor is None]
        if missing:
            faults += [f"missing: {source}" for source in missing]
            continue
        try:
            tensor = _joined([tensor for tensor in found.values() if tensor is not None], weight)
        except RuntimeError:
            tensor = None
        if tensor is None or tensor.shape != shapes[weight.ours]:
            given = ", ".join(f"{s} {tuple(t.shape)}" for s, t in found.items() if t is not None)
            faults.append(f"shape: {given}, expected {tuple(shapes[weight.ours])} in our {weight.ours}")
            continue
        ours[weight.ours] = tensor
    for key in sorted(set(theirs) - used):
        if key in aliases:
            other = theirs.get(aliases[key])
            if other is not None and not torch.equal(other, theirs[key]):
                faults.append(f"differs: {key} from {aliases[key]}, of which it is another name")
        elif not any(fnmatch(key, pattern) for pattern in ignored):
            faults.append(f"extra: {key} {tuple(theirs[key].shape)}")
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise DataError("\n  ".join([f"{where}: {len(faults)} tensors do not fit:", *faults[:SHOWN], *more]))
    return ours


def _alias(key: str, aliases: Mapping[str, str]) -> str:
    """Another name under which a checkpoint may keep `key`; itself where there is none."""
    return next((other for other, name in aliases.items() if name == key), key)


def _joined(tensors: list[Tensor], weight: Weight) -> Tensor:
    tensor = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    tensor = tensor.T if weight.transpose else tensor
    if weight.shape and [n for n in tensor.shape if n != 1] == [n for n in weight.shape if n != 1]:
        tensor = tensor.reshape(weight.shape)
    return tensor.contiguous()


def to_theirs(ours: Mapping[str, Tensor], weights: Sequence[Weight]) -> dict[str, Tensor]:
    """A checkpoint's tensors from our state dict: the reverse of `to_ours`."""
    theirs: dict[str, Tensor] = {}
    for weight in weights:
        tensor = ours[weight.ours]
        tensor = tensor.T if weight.transpose else tensor
        tensor = tensor.reshape(weight.their_shape) if weight.their_shape else tensor
        for source, piece in zip(weight.sources, tensor.chunk(len(weight.sources)), strict=True):
            theirs[source] = piece.clone(memory_format=torch.contiguous_format)
    return theirs
