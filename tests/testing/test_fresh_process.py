"""The first call of a process under FakeTensorMode leaves nothing behind that a later call would use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from tests.conftest import ROOT
from tests.processes import CALLS
from zoo.spec.registry import registry
from zoo.testing.architectures.subject import ArchitectureSubject, random_inputs, run


def subjects() -> dict[str, ArchitectureSubject]:
    """Every architecture in every mode."""
    found = [ArchitectureSubject.find(name) for name in registry().architectures]
    return {f"{case.name} {case.label}": case for subject in found for case in subject.cases()}


def call(subject: ArchitectureSubject) -> torch.Tensor:
    backbone = subject.build(n_layers=1)
    return run(backbone, *random_inputs(backbone, 33)).hidden.detach()


def test_eager_calls_after_a_first_call_without_values_equal_those_of_a_process_that_had_none(tmp_path: Path) -> None:
    done = subprocess.run([*CALLS, str(tmp_path / "outputs.pt")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(tmp_path / "outputs.pt", weights_only=True)
    here = subjects()
    assert len(here) > len(registry().architectures)
    for name, subject in here.items():
        assert torch.equal(outputs[name], call(subject)), f"{name}: other outputs"
