"""Key maps between our state dict and a Hugging Face checkpoint, and the tensors that they rename."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import torch
from torch import Tensor

from zoo.spec.errors import DataError, ZooError

MAX_LISTED = 20
"""Mismatches beyond this number are counted, not listed."""
IGNORED = ("*position_ids", "*token_type_ids")
"""Buffers that old checkpoints saved although they hold no weights."""


@dataclass(frozen=True, slots=True)
class HFTensor:
    """Where a checkpoint stores one of our tensors, and in which layout.

    keys       its key, or the keys of several tensors that are ours when concatenated along the first dimension
    transpose  theirs is stored transposed
    squeeze    dimensions of size 1 that theirs has and ours lacks, ascending
    """

    keys: str | tuple[str, ...]
    transpose: bool = False
    squeeze: tuple[int, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The keys as a tuple."""
        return (self.keys,) if isinstance(self.keys, str) else self.keys

    def to_ours(self, tensors: Iterable[Tensor]) -> Tensor:
        """Join the checkpoint's tensors, one per key, into ours."""
        first, *others = tensors
        tensor = torch.cat([first, *others]) if others else first
        tensor = tensor.T if self.transpose else tensor
        return tensor.squeeze(self.squeeze).contiguous() if self.squeeze else tensor.contiguous()

    def to_theirs(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Split our tensor into the checkpoint's, one per key."""
        for dim in self.squeeze:
            tensor = tensor.unsqueeze(dim)
        tensor = tensor.T if self.transpose else tensor
        return tuple(piece.clone(memory_format=torch.contiguous_format) for piece in tensor.chunk(len(self.sources)))


KeyMap = Mapping[str, str | HFTensor]
"""Pattern of our keys -> pattern of theirs.

A pattern is a tensor's key or a prefix of it that ends at a dot; the remainder is the same on both sides. `{layer}`
stands for a number. Of several patterns that match, the longest applies.
"""


def match_keys(key_map: KeyMap, names: Iterable[str], *, strip_prefix: str = "") -> dict[str, HFTensor]:
    """Find the checkpoint's keys for each of our keys.

    names         keys of our state dict
    strip_prefix  prefix to remove from the checkpoint's keys
    Raises ZooError for a name that no pattern matches.
    """
    patterns = [(_compile(ours), key_map[ours]) for ours in sorted(key_map, key=len, reverse=True)]
    matched = {}
    for name in names:
        hits = ((match, theirs) for regex, theirs in patterns if (match := regex.fullmatch(name)))
        match, theirs = next(hits, (None, ""))
        if match is None:
            raise ZooError(f"the key map of this conversion has no entry for our tensor {name}")
        tensor = HFTensor(theirs) if isinstance(theirs, str) else theirs
        filled = (key.replace("{layer}", match.groupdict().get("layer", "")) + match["rest"] for key in tensor.sources)
        matched[name] = replace(tensor, keys=tuple(key.removeprefix(strip_prefix) for key in filled))
    return matched


def _compile(pattern: str) -> re.Pattern[str]:
    layered = re.escape(pattern).replace(re.escape("{layer}"), r"(?P<layer>\d+)")
    return re.compile(layered + r"(?P<rest>(\..+)?)")


def import_tensors(
    theirs: Mapping[str, Tensor],
    sources: Mapping[str, HFTensor],
    shapes: Mapping[str, torch.Size],
    *,
    aliases: Mapping[str, str],
    where: str,
) -> dict[str, Tensor]:
    """Make our state dict from a checkpoint's tensors, using each of them exactly once.

    sources  where the checkpoint stores each of our tensors
    shapes   of our tensors
    aliases  keys that some checkpoints also hold -> the key of the same tensor
    Raises DataError that lists every missing, unexpected and misshapen tensor of the checkpoint `where`.
    """
    faults: list[str] = []
    ours: dict[str, Tensor] = {}
    other_names = {key: alias for alias, key in aliases.items()}
    for name, source in sources.items():
        tensors = {key: theirs.get(key, theirs.get(other_names.get(key, key))) for key in source.sources}
        present = {key: tensor for key, tensor in tensors.items() if tensor is not None}
        if len(present) < len(tensors):
            faults += [f"missing: {key}" for key in tensors if key not in present]
            continue
        try:
            ours[name] = source.to_ours(present.values())
            fits = ours[name].shape == shapes[name]
        except (RuntimeError, IndexError):  # tensors that cannot be concatenated or squeezed
            fits = False
        if not fits:
            given = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in present.items())
            faults.append(f"shape: {given}, expected {tuple(shapes[name])} in our {name}")
    used = {key for source in sources.values() for key in source.sources}
    for key in sorted(set(theirs) - used):
        if key in aliases:
            original = theirs.get(aliases[key])
            if original is not None and not torch.equal(original, theirs[key]):
                faults.append(f"differs: {key} from {aliases[key]}, to which it is tied")
        elif not any(fnmatch(key, pattern) for pattern in IGNORED):
            faults.append(f"unexpected: {key} {tuple(theirs[key].shape)}")
    if faults:
        more = [f"and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
        raise DataError("\n  ".join([f"{where}: {len(faults)} tensors do not fit:", *faults[:MAX_LISTED], *more]))
    return ours


def export_tensors(ours: Mapping[str, Tensor], sources: Mapping[str, HFTensor]) -> dict[str, Tensor]:
    """Make a checkpoint's tensors from our state dict: the inverse of `import_tensors`."""
    theirs: dict[str, Tensor] = {}
    for name, source in sources.items():
        theirs.update(zip(source.sources, source.to_theirs(ours[name]), strict=True))
    return theirs
