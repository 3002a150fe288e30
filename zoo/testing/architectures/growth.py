"""Checks that time and memory grow with the length no faster than declared. L seq_len.

Growth is the exponent between two long lengths, where what does not grow weighs least; a remaining constant part makes
the exponent smaller, never larger. An architecture that is fed by segments is driven through four and through eight,
the first of which fill its memory, so that the exponent is up to 0.12 larger. Both are counted, operations for time and
bytes for memory, so that a busy machine changes no verdict; `zoo cost` takes times.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from zoo.model.segments import drive
from zoo.nn.backbone import Backbone
from zoo.run.memory import NOT_COUNTED_BY_TORCH
from zoo.testing.architectures import scopes
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject, random_input
from zoo.testing.expect import right_padded

SEGMENT_LENGTH = 128
SLACK = 0.2
"""A factor log L counts 0.14 between 1024 and 2048."""
FLOPS = FlopCounterMode(display=False, custom_mapping=NOT_COUNTED_BY_TORCH).flop_registry


def lengths(subject: ArchitectureSubject) -> tuple[int, int]:
    """The two lengths: wider than usual windows and blocks of 512, or whole segments."""
    return (4 * SEGMENT_LENGTH, 8 * SEGMENT_LENGTH) if subject.capabilities.segment else (1024, 2048)


def build(subject: ArchitectureSubject, length: int, batch: int) -> tuple[Backbone, Tensor]:
    """One layer for inputs of `length`, and an input."""
    max_len = SEGMENT_LENGTH if subject.capabilities.segment else length
    backbone = subject.build(d_model=32, n_layers=1, max_len=max_len)
    return backbone, random_input(backbone, length, batch=batch)


def run(subject: ArchitectureSubject, backbone: Backbone, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Forward over the whole length; the sum of all hidden vectors and auxiliary losses."""
    segments = drive(backbone, x, mask, None, subject.segment_plan(SEGMENT_LENGTH))
    return sum((s.hidden.sum() + sum(s.aux.values()) for s in segments), x.new_zeros(()))


class CountOperations(TorchDispatchMode):
    """Adds up the work of what is called under it: FLOPs of matrix products, convolutions and attention, of every other
    operator the elements that it reads or writes, whichever are more. Views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = FLOPS.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **kwargs, out_val=out)
        elif not func.is_view:
            self.operations += max(elements((args, kwargs)), elements(out))
        return out


def elements(tree: Any) -> int:
    """Elements of all tensors in nested arguments or results."""
    return sum(leaf.numel() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def count_operations(subject: ArchitectureSubject, length: int) -> int:
    """Operations of forward and backward; tables that a first call builds and later ones find again are not counted."""
    backbone, x = build(subject, length, batch=1)
    with torch.no_grad():
        run(subject, backbone, x)
    with CountOperations() as counter:
        run(subject, backbone, x).backward()
    return counter.operations


@check(scopes.FORWARD)
def time_grows_as_declared(subject: ArchitectureSubject) -> None:
    """Operations of forward and backward grow over L no faster than cost.time_exponent."""
    declared = subject.architecture.cost.time_exponent
    short, long = lengths(subject)
    counts = [count_operations(subject, length) for length in (short, long)]
    exponent = math.log2(counts[1] / counts[0])
    assert exponent <= declared + SLACK, (
        f"time grows as L^{exponent:.2f} from {short} to {long} tokens ({counts[0]:,} and {counts[1]:,} "
        f"operations), declared is L^{declared:g}"
    )


def saved_bytes(subject: ArchitectureSubject, length: int, padded: bool) -> int:
    """Bytes that autograd keeps between forward and backward, each storage once, parameters not counted."""
    backbone, x = build(subject, length, batch=2)
    mask = right_padded(length, (length, length // 2)) if padded else None
    parameters = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in parameters:
            kept[pointer] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run(subject, backbone, x, mask)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@check(scopes.FORWARD)
def memory_grows_as_declared(subject: ArchitectureSubject) -> None:
    """Memory kept for the backward pass grows over L no faster than cost.memory_exponent, with and without padding."""
    declared = subject.architecture.cost.memory_exponent
    short, long = lengths(subject)
    for padded in (False, True):
        sizes = [saved_bytes(subject, length, padded) for length in (short, long)]
        exponent = math.log2(sizes[1] / sizes[0])
        assert exponent <= declared + SLACK, (
            f"{'padded: ' if padded else ''}memory grows as L^{exponent:.2f} from {short} to {long} tokens "
            f"({sizes[0] / 2**20:.1f} MiB, {sizes[1] / 2**20:.1f} MiB), declared is L^{declared:g}"
        )
