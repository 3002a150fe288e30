"""Checks that time and memory grow with the length no faster than declared. L seq_len.

Growth is the exponent between two long lengths, where overheads weigh least; a remaining constant part makes the
measured exponent smaller, never larger. An architecture that is fed by segments is driven through the whole length.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from zoo.model.segments import drive
from zoo.nn.backbone import Backbone
from zoo.testing.architectures import scopes
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject, random_input
from zoo.testing.expect import right_padded

SEGMENT_LENGTH = 128
LENGTHS = (1024, 2048)
TIME_SLACK = 0.4
"""Allowance for caches, allocation and kernel thresholds; quadratic growth declared as linear is off by 1.0."""
MEMORY_SLACK = 0.2
"""A factor log L counts 0.14 between 1024 and 2048."""


def build(subject: ArchitectureSubject, length: int, batch: int) -> tuple[Backbone, Tensor]:
    """One layer for inputs of `length`, and an input."""
    max_len = SEGMENT_LENGTH if subject.capabilities.segment else length
    backbone = subject.build(d_model=32, n_layers=1, max_len=max_len)
    return backbone, random_input(backbone, length, batch=batch)


def run(subject: ArchitectureSubject, backbone: Backbone, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Forward over the whole length; the sum of all hidden vectors and auxiliary losses."""
    segments = drive(backbone, x, mask, None, subject.segment_plan(SEGMENT_LENGTH))
    return sum((s.hidden.sum() + sum(s.aux.values()) for s in segments), x.new_zeros(()))


def cpu_seconds(subject: ArchitectureSubject, length: int, repeats: int) -> float:
    """Least CPU time of forward and backward among some repeats, which other processes disturb least."""
    backbone, x = build(subject, length, batch=1)
    run(subject, backbone, x).backward()  # first calls build tables and choose kernels
    least = math.inf
    for _ in range(repeats):
        backbone.zero_grad(set_to_none=True)
        start = time.process_time()
        run(subject, backbone, x).backward()
        least = min(least, time.process_time() - start)
    return least


@check(scopes.FORWARD)
def time_grows_as_declared(subject: ArchitectureSubject) -> None:
    """CPU time of forward and backward grows over L no faster than cost.time_exponent."""
    declared = subject.architecture.cost.time_exponent
    seconds = [math.inf, math.inf]
    for repeats in (3, 4, 5, 6):
        # a machine that slows down looks like growth: measure both again, and keep the least
        seconds = [min(least, cpu_seconds(subject, n, repeats)) for least, n in zip(seconds, LENGTHS, strict=True)]
        exponent = math.log2(seconds[1] / seconds[0])
        if exponent <= declared + TIME_SLACK:
            return
    raise AssertionError(
        f"time grows as L^{exponent:.2f} from {LENGTHS[0]} to {LENGTHS[1]} tokens ({seconds[0] * 1e3:.1f} ms, "
        f"{seconds[1] * 1e3:.1f} ms), declared is L^{declared:g}"
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
    for padded in (False, True):
        sizes = [saved_bytes(subject, length, padded) for length in LENGTHS]
        exponent = math.log2(sizes[1] / sizes[0])
        assert exponent <= declared + MEMORY_SLACK, (
            f"{'padded: ' if padded else ''}memory grows as L^{exponent:.2f} from {LENGTHS[0]} to {LENGTHS[1]} tokens "
            f"({sizes[0] / 2**20:.1f} MiB, {sizes[1] / 2**20:.1f} MiB), declared is L^{declared:g}"
        )
