"""A trained model as a file for other programs: its weights, or a program of its forward pass."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.run.trained import WEIGHTS, TrainedModel
from zoo.spec.errors import UserError
from zoo.spec.files import placed_atomically

TOLERANCE = 1e-4
"""How far the outputs of an exported program may be from the model's, relative to the largest."""


class Logits(nn.Module):
    """(inputs, mask) -> outputs, as `model.logits` gives them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.model.logits(inputs, mask)


class CannotExport(UserError):
    """A format has no form for what a model computes."""


def export(trained: TrainedModel, form: str, target: Path) -> str:
    """Write the model in a format to `target`, whole or not at all; return a line about what it takes.

    safetensors  the weights, with config.json as metadata
    pt2          a program of torch.export: `torch.export.load(target).module()(inputs, mask)`
    onnx         the same for ONNX's runtimes

    A program is kept only if it gives the model's outputs on inputs that it was not made with. Raises CannotExport.
    """
    with placed_atomically(target) as partial:
        if form == "safetensors":
            save_file(load_file(trained.folder / WEIGHTS), partial, metadata={"config": json.dumps(trained.config)})
            return "weights, and the configuration as metadata 'config'"
        if form == "onnx":
            _require_onnx()
        write = _write_pt2 if form == "pt2" else _write_onnx
        return _export_program(trained, form, partial, write)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}: pip install 'seqzoo[onnx]'") from None


Call = Callable[..., Tensor]
Write = Callable[[nn.Module, tuple[Tensor, ...], Any, Path], Call]
"""Writes a module's program, made with these inputs of which some axes may vary, and returns what calls it."""


def _export_program(trained: TrainedModel, form: str, target: Path, write: Write) -> str:
    """Write a program that takes a mask, else one for inputs without pads; of any batch and length, else of one."""
    experiment = trained.experiment
    module = Logits(trained.model).eval()
    if experiment.mode == "seq2seq":
        raise CannotExport(
            f"{experiment.architecture} as an encoder-decoder generates its answers; there is no program"
        )
    reasons = []
    for with_mask, free in itertools.product((True, False), (True, False)):
        inputs = _inputs(trained, 2, experiment.seq_len, with_mask)
        try:
            with _quiet(), torch.no_grad():
                call = write(module, inputs, _axes(inputs) if free else None, target)
                if not _gives_outputs(trained, call, module, inputs):
                    raise ValueError("the program refuses inputs of the shape that it was made with")
                vary = {
                    axis: free
                    and all(
                        _gives_outputs(trained, call, module, _inputs(trained, *shape, with_mask)) for shape in shapes
                    )
                    for axis, shapes in _others(experiment.seq_len).items()
                }
        except Exception as error:  # of torch's tracing and of ONNX's exporter, whatever an operator lacks
            reasons.append(_first_line(error))
            continue
        batch = "any batch" if vary["batch"] else f"batches of {inputs[0].shape[0]}"
        length = "any length" if vary["length"] else f"length {experiment.seq_len}"
        return f"{'inputs and mask' if with_mask else 'inputs without pads'}, {batch}, {length}"
    raise CannotExport(f"{experiment.architecture} cannot be exported as {form}: {reasons[0]}")


def _others(length: int) -> dict[str, list[tuple[int, int]]]:
    """Rows and lengths on which it is tried whether an axis may vary."""
    return {"batch": [(3, length), (1, length)], "length": [(2, max(length // 2, 2)), (2, max(length // 5, 2))]}


def _first_line(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0][:300] if lines else ''}"


def _inputs(trained: TrainedModel, rows: int, length: int, with_mask: bool) -> tuple[Tensor, ...]:
    """Random inputs; with a mask, whose last row ends in pads."""
    example = trained.experiment.kind.example_batch(trained.experiment.model_spec).inputs
    generator = torch.Generator().manual_seed(length)
    shape = list(example.shape)
    shape[0], shape[_length_axis(example)] = rows, length
    if example.is_floating_point():
        inputs = torch.randn(shape, generator=generator)
    else:
        inputs = torch.randint(1, trained.experiment.vocab_size, shape, generator=generator)
    if not with_mask:
        return (inputs,)
    mask = torch.ones(shape[: _length_axis(example) + 1], dtype=torch.bool)
    mask[-1, ..., length - length // 4 :] = False
    return inputs, mask


def _length_axis(inputs: Tensor) -> int:
    """The axis of positions: the last, before the channels of real numbers."""
    return 1 if inputs.is_floating_point() else inputs.ndim - 1


def _axes(inputs: tuple[Tensor, ...]) -> Any:
    """Batch and length as dimensions that may vary where the model allows it."""
    axes = dict.fromkeys((0, _length_axis(inputs[0])), torch.export.Dim.AUTO)
    return (axes,) * len(inputs)


def _gives_outputs(trained: TrainedModel, call: Call, module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a program takes inputs of this shape. Raises ValueError where it gives other outputs than the model."""
    inputs = (inputs[0].flip(_length_axis(inputs[0])), *inputs[1:])
    expected = module(*inputs)
    try:
        found = call(*inputs)
    except Exception:  # a guard of torch.export, or ONNX's runtime
        return False
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the program's outputs for shape {list(expected.shape)} differ by {difference:.2g} (relative)"
        )
    return True


def _write_pt2(module: nn.Module, inputs: tuple[Tensor, ...], axes: Any, target: Path) -> Call:
    program = torch.export.export(module, inputs, dynamic_shapes=axes, strict=False)
    file = target.with_suffix(".pt2")  # torch.export insists on the ending
    try:
        torch.export.save(program, file)
        file.replace(target)
    finally:
        file.unlink(missing_ok=True)
    return program.module()


def _write_onnx(module: nn.Module, inputs: tuple[Tensor, ...], axes: Any, target: Path) -> Call:
    import onnxruntime

    names = ["inputs", "mask"][: len(inputs)]
    torch.onnx.export(
        module,
        inputs,
        str(target),
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=axes,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])

    def call(*arguments: Tensor) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, arguments, strict=True)}
        return torch.from_numpy(session.run(["logits"], given)[0])

    return call


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters print and log."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
