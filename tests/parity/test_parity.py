"""Every reference vector: outputs, final states and gradients, at the tolerance that the vector itself gives."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.parity.harness import (
    DEFAULT_CASES,
    adapter,
    cases_root,
    compare,
    find_cases,
    is_not_offered,
    load_case,
    not_offered,
)

CASES = find_cases()
RUN = [(arch, path) for arch, path in CASES if not is_not_offered(arch, path.stem)]


def test_there_are_cases() -> None:
    assert CASES, f"no ARCH/CASE.json under {cases_root()}"


@pytest.mark.parametrize(("arch", "path"), RUN, ids=[f"{arch}/{path.stem}" for arch, path in RUN])
def test_case(arch: str, path: Path) -> None:
    torch.manual_seed(0)
    case = load_case(path)
    faults = compare(case, adapter(arch)(case))
    assert not faults, "\n".join([f"{arch}/{case.name}:", *faults])


def test_not_offered_is_short_and_argued() -> None:
    """A declined variant has a reason, is never an op-level gate, and at most a third of an architecture's gates."""
    gates: Counter[str] = Counter()
    declined: Counter[str] = Counter()
    for arch, path in CASES:
        case = load_case(path)
        off = is_not_offered(arch, path.stem)
        assert not (off and case.level == "op" and not case.optional), f"{arch}/{path.stem} is an op-level gate"
        if not case.optional:
            gates[arch] += 1
            declined[arch] += off
    for arch, n in declined.items():
        assert n * 3 <= gates[arch], f"{arch}: {n} of {gates[arch]} gates declined"
    for entry in not_offered():
        assert len(entry["reason"].split()) >= 8, f"{entry}: say why"
        if cases_root().resolve() == DEFAULT_CASES.resolve():
            assert any(a == entry["arch"] and fnmatch(p.stem, entry["case"]) for a, p in CASES), f"stale: {entry}"


def test_loaded_tensors_are_aligned(tmp_path: Path) -> None:
    """Complex kernels need 16 bytes; what lies in a safetensors file is aligned to 8."""
    for i in range(1, 4):
        path = tmp_path / f"case{i}.json"
        path.write_text('{"config": {}}')
        save_file(
            {"in." + "a" * i: torch.zeros(i, dtype=torch.float64), "in.z": torch.ones(4, 2)},
            path.with_suffix(".safetensors"),
        )
        assert all(t.data_ptr() % 16 == 0 for t in load_case(path).tensors.values())
