"""Time and memory over the length: no faster than declared. L seq_len.

Growth is measured as the exponent between the two longest lengths, where overheads weigh least; whatever constant
part remains makes the measured exponent smaller, never larger. An architecture that is fed by segments is measured
as it is used: driven through the whole length.
"""

from __future__ import annotations

import gc
import math
import time

import torch
from torch import Tensor

from zoo.model.segments import SegmentPlan, drive
from zoo.nn.backbone import Backbone
from zoo.spec.architecture import Mode
from zoo.testing.check import Check, check
from zoo.testing.subject import Subject, ragged

SEGMENT = 128
D_MODEL = 32
LENGTHS = (512, 1024, 2048)
TIME_SLACK = 0.4
"""Caches, allocation and the threshold where another kernel takes over; quadratic for declared linear is 1.0 off."""
MEMORY_SLACK = 0.2
"""A factor log L counts 0.14 between 1024 and 2048."""


def build(subject: Subject, mode: Mode, length: int) -> Backbone:
    """One layer, for calls of `length` or of one segment."""
    longest = SEGMENT if subject.capabilities.segment else length
    return subject.build(mode, d_model=D_MODEL, n_layers=1, max_len=longest)


def plan(subject: Subject) -> SegmentPlan:
    return SegmentPlan(SEGMENT if subject.capabilities.segment else None)


def run(subject: Subject, backbone: Backbone, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Forward over the whole length; the sum of all hidden vectors and auxiliary losses."""
    total = x.new_zeros(())
    for segment in drive(backbone, x, mask, None, plan(subject)):
        total = total + segment.hidden.sum() + sum(segment.aux.values())
    return total


def cpu_seconds(subject: Subject, backbone: Backbone, x: Tensor, repeats: int) -> float:
    """Least CPU time of forward and backward: what other processes take is not counted, the least is not disturbed."""
    least = math.inf
    for _ in range(repeats):
        backbone.zero_grad(set_to_none=True)
        start = time.process_time()
        run(subject, backbone, x).backward()
        least = min(least, time.process_time() - start)
    return least


@check()
def time_grows_as_declared(subject: Subject) -> None:
    """CPU time of forward and backward grows over L no faster than cost.time_exponent."""
    declared = subject.architecture.cost.time_exponent
    for mode in subject.modes:
        shortest = LENGTHS[-2:]
        seconds = []
        for length in shortest:
            backbone = build(subject, mode, length)
            x = subject.input(backbone, length, batch=1)
            run(subject, backbone, x).backward()  # first calls build tables and choose kernels
            seconds.append(cpu_seconds(subject, backbone, x, repeats=3))
        for attempt in range(3):
            found = math.log2(seconds[1] / seconds[0])
            if found <= declared + TIME_SLACK:
                break
            # a machine that slowed down looks like growth; another look at both, further apart
            for i, length in enumerate(shortest):
                backbone = build(subject, mode, length)
                x = subject.input(backbone, length, batch=1)
                seconds[i] = min(seconds[i], cpu_seconds(subject, backbone, x, repeats=4 + attempt))
        assert found <= declared + TIME_SLACK, (
            f"{mode}: time grows as L^{found:.2f} from {shortest[0]} to {shortest[1]} "
            f"({seconds[0] * 1e3:.1f} ms, {seconds[1] * 1e3:.1f} ms), declared is L^{declared:g}"
        )


def saved_bytes(subject: Subject, backbone: Backbone, x: Tensor, mask: Tensor | None) -> int:
    """Bytes that autograd keeps between forward and backward, each storage once, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in own:
            kept[pointer] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = run(subject, backbone, x, mask)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del total
    return size


@check()
def memory_grows_as_declared(subject: Subject) -> None:
    """What is kept for the backward pass grows over L no faster than cost.memory_exponent, with and without pads."""
    declared = subject.architecture.cost.memory_exponent
    for mode in subject.modes:
        for padded in (False, True):
            sizes = []
            for length in LENGTHS:
                backbone = build(subject, mode, length)
                x = subject.input(backbone, length, batch=2)
                mask = ragged(length, (length, length // 2)) if padded else None
                sizes.append(saved_bytes(subject, backbone, x, mask))
                gc.collect()
            found = math.log2(sizes[-1] / sizes[-2])
            assert found <= declared + MEMORY_SLACK, (
                f"{mode}{', padded' if padded else ''}: memory grows as L^{found:.2f} from {LENGTHS[-2]} to "
                f"{LENGTHS[-1]} ({sizes[-2] / 2**20:.1f} MiB, {sizes[-1] / 2**20:.1f} MiB), declared is L^{declared:g}"
            )


CHECKS: tuple[Check, ...] = (time_grows_as_declared, memory_grows_as_declared)
