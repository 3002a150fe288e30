"""The Triton form of the selective scan, outputs and gradients, against the loop that defines it.

Without a GPU the kernels run under Triton's interpreter. That is decided when triton is first imported, so they run in
a process of their own, this file as a script, which prints the error of each case.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is installed on Linux x86_64 only")

NAMES = ("y", "h", "du", "ddelta", "dA", "dB", "dC", "dh0")
CORE = {
    "several tiles, odd sizes": (2, 21, 3, 3),
    "one token": (2, 1, 2, 2),
    "a whole tile": (1, 16, 4, 2),
    "a tile and a token": (1, 17, 2, 4),
    "three blocks of channels": (1, 5, 33, 1),
    "a state of 40, padded to 64": (1, 3, 2, 40),
}
WHOLE = ("all", "mask", "float32")


def core(shape: tuple[int, int, int, int]) -> dict[str, float]:
    from tests.ops.test_selective_scan import core_inputs, outputs_and_gradients
    from zoo.ops.selective_scan import scan_reference
    from zoo.ops.selective_scan.triton import triton_scan

    batch, seq_len, D, N = shape
    inputs = core_inputs(batch, seq_len, D, N)
    return distances(outputs_and_gradients(triton_scan, inputs), outputs_and_gradients(scan_reference, inputs))


def whole(kind: str) -> dict[str, float]:
    from tests.ops.test_selective_scan import full_inputs
    from zoo.ops.backend import forms_that_ran, use_backend
    from zoo.ops.selective_scan import selective_scan

    results = []
    for form in ("triton", "reference"):
        x = full_inputs(2, 18, 3, 2)
        if kind == "float32":
            x = {name: value.detach().float().requires_grad_() for name, value in x.items()}
        mask = None
        if kind == "mask":
            mask = torch.ones(2, 18, dtype=torch.bool)
            mask[0, 7:] = False
        forms_that_ran(reset=True)
        with use_backend(form):
            y, h = selective_scan(**x, delta_softplus=True, mask=mask)
        assert forms_that_ran() == {"selective_scan": form}
        results.append([y, h, *torch.autograd.grad(y.square().sum() + h.sum(), list(x.values()))])
    return distances(*results)


def distances(ours: list[Tensor], theirs: list[Tensor]) -> dict[str, float]:
    """Per tensor the largest difference, relative to 1 + the largest value."""
    names = NAMES if len(ours) == len(NAMES) else [str(i) for i in range(len(ours))]
    return {
        name: float((a - b).detach().abs().max() / (1 + b.detach().abs().max()))
        for name, a, b in zip(names, ours, theirs, strict=True)
    }


@pytest.fixture(scope="module")
def off() -> dict[str, dict[str, float]]:
    run = subprocess.run(
        [sys.executable, "-m", __name__],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CORE)
def test_the_kernels_equal_the_loop(off: dict[str, dict[str, float]], case: str) -> None:
    assert set(off[case]) == set(NAMES)
    assert max(off[case].values()) < 1e-12, off[case]


@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_op(off: dict[str, dict[str, float]], case: str) -> None:
    assert max(off[case].values()) < (1e-5 if case == "float32" else 1e-12), off[case]


def test_a_wrong_kernel_is_refused(off: dict[str, dict[str, float]]) -> None:
    """The check that runs at first use on a GPU passes as it is, and fails when a gradient is halved."""
    assert off["self check"] == {"passed": 1.0, "caught": 1.0}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compiled kernels against the loop")
@pytest.mark.parametrize("shape", [(2, 300, 70, 16), (1, 33, 5, 3)])
def test_on_a_gpu(shape: tuple[int, int, int, int]) -> None:
    from tests.ops.test_selective_scan import core_inputs
    from zoo.ops.selective_scan import scan_reference
    from zoo.ops.selective_scan.triton import triton_scan

    inputs = tuple(x.detach().cuda().requires_grad_() for x in core_inputs(*shape))

    def both(scan):
        y, h = scan(*inputs)
        return [y, h, *torch.autograd.grad(y.square().sum() + h.square().sum(), inputs)]

    assert max(distances(both(triton_scan), both(scan_reference)).values()) < 1e-10


def self_check_passes_and_catches() -> dict[str, float]:
    from zoo import ZooError
    from zoo.ops.selective_scan import triton as kernels

    cpu = torch.device("cpu")
    kernels.self_check(cpu, 2)
    right = kernels.TritonScan.backward

    def halved(ctx, dy, dh_last):
        du, ddelta, dA, dB, dC, dh0 = right(ctx, dy, dh_last)
        return du, ddelta, dA, dB / 2, dC, dh0

    kernels.TritonScan.backward = staticmethod(halved)
    kernels.self_check.cache_clear()
    try:
        kernels.self_check(cpu, 2)
    except ZooError as error:
        return {"passed": 1.0, "caught": float("dB" in str(error) and "dC" not in str(error))}
    finally:
        kernels.TritonScan.backward = staticmethod(right)
    return {"passed": 1.0, "caught": 0.0}


if __name__ == "__main__":
    results = {name: core(shape) for name, shape in CORE.items()} | {name: whole(name) for name in WHOLE}
    results["self check"] = self_check_passes_and_catches()
    print(json.dumps(results))
