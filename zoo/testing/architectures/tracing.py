"""Checks of what traces a backbone: torch.compile, torch.export, torch.func, and the meta device."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.nn.backbone import Backbone
from zoo.testing import expect
from zoo.testing.architectures import scopes
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject, random_inputs, run
from zoo.testing.check import NotDeclared
from zoo.testing.expect import relative_size, right_padded, weighted_sum

LENGTH = 33
MASK = right_padded(LENGTH, (LENGTH, 20))


class Hidden(nn.Module):
    """A backbone, or the encoder and decoder of one, as a module that returns the hidden vectors alone."""

    backbone: Backbone

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return run(self.backbone, *inputs, mask=mask).hidden


@contextmanager
def traced() -> Iterator[None]:
    """Trace without what earlier traces left, and turn the reason why it fails into an AssertionError."""
    torch._dynamo.reset()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # torch warns of numbers that it specialises
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}") from error
    finally:
        logging.disable(before)
        torch._dynamo.reset()


def equal_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], what: str) -> None:
    """Assert that gradients are equal, relative to the largest of all."""
    largest = torch.stack([gradient.abs().max() for gradient in theirs.values()]).max()
    for name, gradient in theirs.items():
        difference = relative_size(ours[name] - gradient, largest)
        assert difference <= expect.EQUIVALENT, f"{what}: gradient of {name} differs by {difference:.3g} (relative)"


def gradients(model: Hidden, call: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden vectors of `call`, and the gradients of a sum of them."""
    named = {**dict(zip("xy", inputs, strict=False)), **dict(model.named_parameters())}
    hidden = call(*inputs, mask=MASK)
    found = torch.autograd.grad(weighted_sum(hidden), list(named.values()), materialize_grads=True)
    return hidden.detach(), dict(zip(named, found, strict=True))


class Operators(TorchDispatchMode):
    """Lists the operators that are called under it, but for `detach`, which autograd calls for what it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[object] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.detach.default:
            self.called.append(func)
        return func(*args, **(kwargs or {}))


def operators(model: Hidden, inputs: list[Tensor], with_gradients: bool) -> list[object]:
    """The operators of one forward call, in their order."""
    with torch.set_grad_enabled(with_gradients), Operators() as listed:
        model(*inputs, mask=MASK)
    return listed.called


def depends_on_gradients(model: Hidden, inputs: list[Tensor], graph: fx.GraphModule) -> bool:
    """Whether a call without gradients is another program than `graph`, which is one with gradients: it calls other
    operators, or dynamo made higher-order ones for gradients (of an autograd.Function, of activation checkpointing)."""
    if any(isinstance(node.target, HigherOrderOperator) for node in graph.graph.nodes):
        return True
    return operators(model, inputs, with_gradients=True) != operators(model, inputs, with_gradients=False)


@check(scopes.EVERY_MODE, slow=True)
def compiles_with_equal_gradients(subject: ArchitectureSubject) -> None:
    """torch.compile makes one graph of a call, with the values and gradients of eager mode."""
    model = Hidden(subject.build_float64(n_layers=1))
    inputs = [x.requires_grad_() for x in random_inputs(model.backbone, LENGTH)]
    eager, expected = gradients(model, model, inputs)
    graphs: list[fx.GraphModule] = []

    def compile_graph(graph: fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        # the partitioner that looks for a minimal cut saves memory, of which a test has no need, and takes long
        return torch._dynamo.lookup_backend("aot_eager_default_partitioner")(graph, examples)

    with traced():
        hidden, found = gradients(model, torch.compile(model, fullgraph=True, backend=compile_graph), inputs)
        # what follows the graph's capture is tested with gradients, and takes the longest
        plain = hidden
        if depends_on_gradients(model, inputs, graphs[0]):
            with torch.no_grad():
                plain = torch.compile(model, fullgraph=True, backend="eager")(*inputs, mask=MASK)
    expect.close(hidden, eager, expect.EQUIVALENT, "compiled: outputs")
    expect.close(plain, eager, expect.EQUIVALENT, "compiled, without gradients: outputs")
    equal_gradients(found, expected, "compiled")


@check(scopes.EVERY_MODE, slow=True)
def exports(subject: ArchitectureSubject) -> None:
    """torch.export makes a program, with gradients on, that gives eager's values for other inputs and masks, too."""
    model = Hidden(subject.build_float64(n_layers=1))
    inputs = random_inputs(model.backbone, LENGTH)
    with traced(), _use_lazy_graph_module(True):  # code for the graphs between its passes is made where it is called
        program = torch.export.export(model, tuple(inputs), {"mask": MASK}, strict=False).module()
    others = [x + 0.1 for x in inputs]
    for arguments, mask in ((inputs, MASK), (others, right_padded(LENGTH, (31, 3)))):
        hidden = program(*arguments, mask=mask)
        expect.close(hidden, model(*arguments, mask=mask), expect.EQUIVALENT, "exported: outputs")


@check(scopes.EVERY_MODE)
def functional_gradients_equal_autograd(subject: ArchitectureSubject) -> None:
    """torch.func.grad of a functional call gives the parameters' gradients."""
    model = Hidden(subject.build_float64(n_layers=1))
    inputs = random_inputs(model.backbone, LENGTH)
    buffers, parameters = dict(model.named_buffers()), dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return weighted_sum(functional_call(model, (parameters, buffers), tuple(inputs), {"mask": MASK}))

    with traced():
        found = grad(loss)({name: p.detach() for name, p in parameters.items()})
    _, expected = gradients(model, model, [x.requires_grad_() for x in inputs])
    equal_gradients(found, {name: expected[name] for name in parameters}, "torch.func.grad")


@check(scopes.EVERY_MODE)
def vmap_equals_a_loop(subject: ArchitectureSubject) -> None:
    """torch.func.vmap over inputs gives the hidden vectors of one call for each."""
    model = Hidden(subject.build_float64(n_layers=1))
    inputs = [torch.stack([x, x + 0.1]) for x in random_inputs(model.backbone, LENGTH)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*batching rule.*")  # it is slower, not wrong
        try:
            hidden = vmap(lambda *inputs: model(*inputs, mask=MASK))(*inputs)
        except RuntimeError as error:
            if "Batching rule not implemented" not in str(error):
                raise
            raise NotDeclared(f"PyTorch has no vmap of it: {error}") from error
    expected = torch.stack([model(*each, mask=MASK) for each in zip(*inputs, strict=True)])
    expect.close(hidden, expected, expect.EQUIVALENT, "vmap: outputs")


@check(scopes.EVERY_MODE)
def builds_on_the_meta_device(subject: ArchitectureSubject) -> None:
    """A backbone can be built and called on the meta device and under FakeTensorMode, and then be filled from a state
    dict; no fake tensor outlives the mode."""
    backbone = subject.build(n_layers=1)
    inputs = random_inputs(backbone, LENGTH)
    with torch.device("meta"):
        empty = subject.architecture.build(subject.config(), backbone.dims)
    for name, tensor in (*empty.named_parameters(), *empty.named_buffers()):
        assert tensor.is_meta, f"{name} is on {tensor.device}"
    with traced():
        shape = run(empty, *(x.to("meta") for x in inputs), mask=MASK.to("meta")).hidden.shape
    expected = run(backbone, *inputs, mask=MASK).hidden
    assert shape == expected.shape, f"hidden vectors of {tuple(shape)} on meta, {tuple(expected.shape)} on the CPU"
    filled = empty.to_empty(device="cpu").eval()
    filled.load_state_dict(backbone.state_dict())
    expect.close(run(filled, *inputs, mask=MASK).hidden, expected, 0.0, "outputs after to_empty and load_state_dict")
    with traced(), FakeTensorMode(allow_non_fake_inputs=True):
        fake = subject.architecture.build(subject.config(), backbone.dims)
        hidden = run(fake, *inputs, mask=MASK).hidden
        hidden.sum().backward()
    assert hidden.shape == expected.shape, f"hidden vectors of {tuple(hidden.shape)} under FakeTensorMode"
    expect.close(run(filled, *inputs, mask=MASK).hidden, expected, 0.0, "outputs after a call under FakeTensorMode")
