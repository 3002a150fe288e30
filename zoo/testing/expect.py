"""Assertions that checks share. A message says what differs, where, and by how much. B batch, L seq_len, D d_model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.nn.backbone import Backbone, Output, State
from zoo.nn.state import describe, elements, leaves
from zoo.testing.tensors import noise_like, relative_size, weighted_sum

NO_GRADIENT = 1e-12
"""Relative float64 gradient that counts as none: rounding in an FFT, nothing else."""
SAME = 1e-10
"""Relative float64 difference of one algorithm on the same numbers in another arrangement (padding, batch rows)."""
EQUIVALENT = 1e-8
"""Relative float64 difference of two algorithms for one function (recurrence and convolution, chunks and one call)."""


def importable_without_torch(targets: Iterable[str]) -> None:
    """Assert that the modules of "module:attribute" strings can be imported, in another process, without torch."""
    modules = sorted({target.partition(":")[0] for target in targets if target})
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name + ' imports torch')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
    assert process.returncode == 0, f"importing {', '.join(modules)}: {last_line}"


# -- values --------------------------------------------------------------------------------------------------------


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Assert that two tensors have one shape and differ by at most `tolerance`, relative to the largest number."""
    assert actual.shape == expected.shape, f"{what}: shapes {tuple(actual.shape)} and {tuple(expected.shape)}"
    difference = relative_size((actual - expected).detach(), expected.detach())
    assert difference <= tolerance, f"{what} differ by {difference:.3g} (relative; tolerance {tolerance:g})"


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


def value_error(call: Callable[[], object], what: str) -> str:
    """Assert that the call raises ValueError; its message."""
    try:
        call()
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{what} is accepted; expected a ValueError")


def hidden_like(hidden: Tensor, x: Tensor, out_len: int, where: str) -> None:
    """Assert that hidden is finite, has shape (B, out_len, D), and the dtype and device of x (B, L, D)."""
    expected = (x.shape[0], out_len, x.shape[2])
    assert hidden.shape == expected, f"{where}: hidden has shape {tuple(hidden.shape)}, expected {expected}"
    assert hidden.dtype == x.dtype, f"{where}: hidden is {hidden.dtype}, the input {x.dtype}"
    assert hidden.device == x.device, f"{where}: hidden is on {hidden.device}, the input on {x.device}"
    finite(hidden, where)


def pure(call: Callable[[], Output], arguments: Iterable[Tensor | None], between: Callable[[], object]) -> None:
    """Assert that a call modifies no argument, and that repeated after `between()` it gives the same result."""
    tensors = [tensor for tensor in arguments if tensor is not None]
    before = [tensor.clone() for tensor in tensors]
    first = call()
    for a, b in zip(before, tensors, strict=True):
        assert torch.equal(a, b), f"an argument of shape {tuple(b.shape)} is modified in place"
    between()
    second = call()
    assert torch.equal(first.hidden, second.hidden), "a call in between changes the outputs"
    states_close(second.state, first.state, 0.0, "states before and after a call in between")


def same_without_default_device(call: Callable[[], Tensor], expected: Tensor) -> None:
    """Assert that the call creates no tensor on the default device.

    While the default device is "meta", a tensor created without `device=` cannot be combined with the inputs.
    """
    try:
        with torch.device("meta"):
            outputs = call()
    except Exception as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        advice = "pass device=x.device, or device='cpu' for a table on the host"
        raise AssertionError(f"a tensor is created without device= ({advice}): {cause}") from error
    assert outputs.device == expected.device, f"inputs are on {expected.device}, outputs on {outputs.device}"
    close(outputs, expected, 0.0, "outputs with default devices meta and cpu")


# -- where information passes --------------------------------------------------------------------------------------


def rows_independent(function: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> None:
    """Assert that each row of `function(*inputs)` depends on the same row of the inputs only."""
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    where = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
    hidden = function(*tensors)
    for row in range(len(hidden)):
        others = [r for r in range(len(hidden)) if r != row]
        gradients = torch.autograd.grad(weighted_sum(hidden[row]), tensors, retain_graph=True)
        for name, gradient in zip(inputs, gradients, strict=True):
            leak = relative_size(gradient[others], gradient)
            assert leak == 0, f"{where}: row {row} has a gradient from {name} of other rows ({leak:.3g}, relative)"
        alone = function(*(tensor[row : row + 1] for tensor in tensors))[0]
        close(alone, hidden[row], SAME, f"{where}: outputs of row {row} alone and in the batch")


def no_future(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    other: Tensor,
    positions: Sequence[int],
    cuts: Iterable[int],
    where: str,
) -> None:
    """Assert that outputs up to each cut depend neither by gradient nor by value on later inputs.

    other      replaces the later inputs
    positions  input position of each output
    """
    x = x.requires_grad_()
    hidden = function(x)
    for cut in sorted(cuts):
        past = [i for i, position in enumerate(positions) if position <= cut]
        if not past or cut >= x.shape[1] - 1:
            continue
        (gradient,) = torch.autograd.grad(weighted_sum(hidden[:, past]), x, retain_graph=True)
        leak = relative_size(gradient[:, cut + 1 :], gradient)
        what = f"{where}: outputs up to position {cut}"
        assert leak < NO_GRADIENT, f"{what} have a gradient from later inputs ({leak:.3g}, relative)"
        changed = function(torch.cat([x[:, : cut + 1], other[:, cut + 1 :]], dim=1))
        close(changed[:, past], hidden[:, past], NO_GRADIENT, f"{what} for different later inputs")


def run_chunks(
    call: Callable[[int, int, State], Output], sizes: Iterable[int], state: State = None
) -> Iterator[Output]:
    """Yield `call(start, stop, state)` for successive chunks, each with the state that the one before returned."""
    start = 0
    for size in sizes:
        out = call(start, start + size, state)
        yield out
        start, state = start + size, out.state


def chunks_equal_one_call(
    call: Callable[[int, int, State], Output],
    divisions: Iterable[Sequence[int]],
    tensors: Mapping[str, Tensor],
    *,
    state: State = None,
    real: Tensor | None = None,
) -> None:
    """Assert that chunks with carried state equal one call in outputs, last state, and gradients of `tensors`.

    real  (B, L) bool, the tokens whose outputs are compared; None = all
    """
    whole: Output | None = None
    for sizes in divisions:
        whole = whole or call(0, sum(sizes), None)
        real = torch.ones(whole.hidden.shape[:2], dtype=torch.bool) if real is None else real
        outputs = list(run_chunks(call, sizes, state))
        where = "chunks of one token" if set(sizes) == {1} else f"chunks of {', '.join(map(str, sizes))} tokens"
        hidden = torch.cat([out.hidden for out in outputs], dim=1)
        close(hidden[real], whole.hidden[real], EQUIVALENT, f"{where}: outputs")
        states_close(outputs[-1].state, whole.state, EQUIVALENT, f"{where}: states")
        if tensors:
            ours, theirs = (
                torch.autograd.grad(weighted_sum(h * real.unsqueeze(-1)), list(tensors.values()), retain_graph=True)
                for h in (hidden, whole.hidden)
            )
            largest = torch.stack([gradient.abs().max() for gradient in theirs]).max()
            for name, a, b in zip(tensors, ours, theirs, strict=True):
                difference = relative_size(a - b, largest)
                assert difference <= EQUIVALENT, f"{where}: gradients of {name} differ by {difference:.3g} (relative)"


def state_size(backbone: Backbone, length: int, state: State) -> None:
    """Assert that `backbone.state_size(length)` is the number of elements per sample in `state`."""
    declared, carried = backbone.state_size(length), elements(state)
    assert declared == carried, (
        f"state_size({length}) is {declared}, but {carried} elements per sample are carried in {describe(state)} "
        "(complex numbers count twice, masks and counters not)"
    )


# -- precision and gradients ---------------------------------------------------------------------------------------


def float64_throughout(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Assert that a smooth function of a float64 tensor is computed in float64 at every stage."""
    y = function(x)
    assert y.dtype == torch.float64, f"outputs for a float64 input are {y.dtype}"
    # the second difference of a smooth function vanishes; a stage in float32 leaves its rounding of 1e-7
    change = 1e-7 * noise_like(x)
    rounding = relative_size(function(x + change) + function(x - change) - 2 * y, y)
    assert rounding < 1e-10, f"relative rounding of {rounding:.2g}: a stage is computed in less than float64"


def close_in_bfloat16(backbone: Backbone, x: Tensor, hidden: Callable[[], Tensor], loss: Callable[[], Tensor]) -> None:
    """Assert that `hidden()` under autocast is near float32, and that it and the gradients of `loss()` are finite."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = hidden()
        loss_value = loss()
    finite(rough, "bfloat16 autocast: outputs")
    loss_value.backward()
    finite_gradients(backbone, x, "bfloat16 autocast")
    exact = hidden()
    difference = ((rough.float() - exact).norm() / exact.norm()).item()
    assert difference < 0.2, f"outputs under bfloat16 autocast differ from float32 by {difference:.2g} (relative norm)"


def finite_gradients(backbone: nn.Module, x: Tensor, where: str) -> None:
    """Assert that the gradients of x and of the parameters, where there are any, are finite."""
    for name, leaf in [("x", x), *backbone.named_parameters()]:
        if leaf.grad is not None:
            finite(leaf.grad, f"{where}: gradient of {name}")


def all_parameters_trained(backbone: nn.Module, loss: Tensor) -> None:
    """Assert that every parameter gets a finite gradient that is not zero everywhere."""
    loss.backward()
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            finite(parameter.grad, f"gradient of {name}")
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere"


def gradients_correct(loss: Callable[[], Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Assert that autograd's slope of `loss()` along a random direction of each tensor equals a finite difference."""
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    gradients = torch.autograd.grad(loss(), list(tensors.values()), allow_unused=True)
    for i, ((name, tensor), gradient) in enumerate(zip(tensors.items(), gradients, strict=True)):
        direction = noise_like(tensor, seed=i)
        slope = 0.0 if gradient is None else (gradient * direction).sum().item()
        with torch.no_grad():
            tensor += 1e-6 * direction
            above = loss().item()
            tensor -= 2e-6 * direction
            difference = (above - loss().item()) / 2e-6
            tensor += 1e-6 * direction
        wrong = abs(slope - difference) >= 1e-4 * max(abs(slope), abs(difference), 1e-3)
        assert not wrong, f"slope along {name}: {slope:.8g} by autograd, {difference:.8g} by finite differences"
