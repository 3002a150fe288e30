"""What an example costs, and how many of them a device holds at once, before anything is trained."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from zoo.data.batch import Batch
from zoo.ops.backend import use_backend
from zoo.run import machine
from zoo.run.compose import Experiment

aten = torch.ops.aten
ADAM = 4
"""Copies of the parameters: weights, gradients and two moments."""
NOT_COUNTED_BY_TORCH = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(
        grad, q, k, v
    ),
}
"""FLOPs of ops from the shapes of their inputs, where torch's counter leaves them out: the CPU's fused attention."""
KEPT = 8 << 30
"""Bytes that a step may keep for its backward pass where `train.micro_batch_size` is 0. A constant, not what is free on
this machine: one configuration then draws the same dropout everywhere."""


def choose_micro_batch_size(experiment: Experiment, model: nn.Module, example_bytes: int) -> int:
    """Examples that a device holds at once: as configured, else the most that divide its share of the batch and keep
    at most KEPT bytes for the backward pass. Batch norm, whose statistics are the batch's, gets the whole share.

    example_bytes  what one example keeps (`saved_bytes`)
    """
    train = experiment.train
    share = train.batch_size // (train.devices * train.num_nodes)
    if train.micro_batch_size or _has_batch_norm(model):
        return train.micro_batch_size or share
    most = KEPT // max(example_bytes, 1)
    return max((n for n in range(1, share + 1) if share % n == 0 and n <= most), default=1)


def warn_of_memory(experiment: Experiment, model: nn.Module, micro: int, example_bytes: int) -> int:
    """Bytes that a step's micro-batch needs at least; prints a line when they cannot fit into what memory there is."""
    there = available_bytes("cuda" if on_gpu(experiment) else "cpu")
    needed = needed_bytes(experiment, model, micro, example_bytes, there)
    if needed > there:
        print(
            f"zoo: {experiment.name} needs more than {needed / 2**30:.1f} GiB for {micro} examples at once, and "
            f"{there / 2**30:.1f} GiB are free{remedy(model, micro)}",
            file=sys.stderr,
        )
    return needed


def needed_bytes(experiment: Experiment, model: nn.Module, micro: int, example_bytes: int, there: int) -> int:
    """Bytes that a step's micro-batch needs at least; found out more exactly where that is more than `there`."""
    parameters = ADAM * sum(p.numel() * p.element_size() for p in model.parameters())
    needed = parameters + micro * example_bytes
    if needed > there:  # examples may share what they keep, such as the kernels of a convolution
        needed = parameters + (saved_bytes(experiment, model, micro) or micro * example_bytes)
    return needed


def remedy(model: nn.Module, micro: int) -> str:
    """What helps a run for which memory is too small: the end of a sentence."""
    smaller = next((n for n in range(micro // 2, 0, -1) if micro % n == 0), 0)
    effect = (
        "needs less, with batch norm over fewer examples" if _has_batch_norm(model) else "computes the same with less"
    )
    return f"; train.micro_batch_size={smaller} {effect}" if smaller else ""


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def on_gpu(experiment: Experiment) -> bool:
    """Whether the run is to be on a GPU."""
    accelerator = experiment.train.accelerator
    return accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())


@contextlib.contextmanager
def _here(experiment: Experiment, model: nn.Module, training: bool) -> Iterator[None]:
    """For a call on the CPU that leaves no trace; forms of ops that were requested for a GPU may not exist here."""
    before = model.training
    try:
        with use_backend(None) if on_gpu(experiment) else contextlib.nullcontext(), torch.random.fork_rng():
            model.train(training)
            yield
    finally:
        model.train(before)


def count_forward_flops(experiment: Experiment, model: nn.Module) -> int:
    """FLOPs of one example's forward pass: matrix products, convolutions and attention, as torch counts them.

    Raises what a model raises that its inputs do not fit.
    """
    # with gradients on: the counter hooks parameters that are given as inputs, and can do so only then
    with FlopCounterMode(display=False, custom_mapping=NOT_COUNTED_BY_TORCH) as counter:
        _call(experiment, model, training=False)
    return int(counter.get_total_flops())


def saved_bytes(experiment: Experiment, model: nn.Module, examples: int = 1) -> int:
    """Bytes that a forward pass in training keeps for backward: a lower bound of what a step needs.

    What backward computes again is not counted. 0 where the call fails: one example may be too few for batch norm.
    """
    kept: dict[int, Tensor] = {}  # of each storage one tensor, which keeps it alive

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    scale = {"64-true": 2.0, "bf16-mixed": 0.5, "16-mixed": 0.5}.get(experiment.train.precision, 1.0)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with contextlib.suppress(Exception), hooks:
        # several may not fit; one takes less time with values than the bookkeeping without them does
        own = _call_without_values(experiment, model, examples) if examples > 1 else _call(experiment, model)
        for tensor in own:
            kept.pop(tensor.untyped_storage()._cdata, None)
        return int(scale * sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
    return 0


def _call(experiment: Experiment, model: nn.Module, *, training: bool = True) -> list[Tensor]:
    """Call the model on one example; return its parameters and buffers."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with _here(experiment, model, training):
            model(experiment.kind.example_batch(experiment.model_spec))
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
    return [*model.parameters(), *model.buffers()]


def _call_without_values(experiment: Experiment, model: nn.Module, examples: int) -> list[Tensor]:
    """Call the model on tensors that have shapes but no values; return what stood for its parameters and buffers.

    Raises what FakeTensorMode raises where a shape depends on values, as that of the scored tokens does.
    """
    batch = experiment.kind.example_batch(experiment.model_spec)
    batch = Batch._make(None if part is None else part.repeat_interleave(examples, 0) for part in batch)
    with _here(experiment, model, True), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors = (*model.named_parameters(), *model.named_buffers())
        own: dict[str, Tensor] = {name: mode.from_tensor(x) for name, x in tensors}
        functional_call(model, own, (batch,))
    return list(own.values())


@contextlib.contextmanager
def limit_memory() -> Iterator[None]:
    """Let allocations fail that would take this process beyond the memory that is free now, where the system can: an
    exception, where the kernel would end the process."""
    try:
        import resource
    except ImportError:
        yield
        return
    more, before = machine.available_bytes(), resource.getrlimit(resource.RLIMIT_DATA)
    used = getattr(psutil.Process().memory_info(), "data", 0)
    if not used or (before[0] != resource.RLIM_INFINITY and before[0] < used + more):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    text = str(error).lower().replace("bad_alloc", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(s in text for s in ("out of memory", "can't allocate memory"))
    )


def available_bytes(device: str) -> int:
    """Free memory of the GPU, or of this machine."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else machine.available_bytes()
