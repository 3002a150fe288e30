"""Reference vectors: what a case is, how an adapter runs one, how results are compared.

A case is `ARCH/CASE.json` + `ARCH/CASE.safetensors` (see cases/README.md). `tests/parity/adapters/ARCH.py` has
`run(case) -> Result`: it builds our op, layer or stack from the plugin's own parts, maps the reference's weights
onto ours, and returns every tensor that the file holds besides `in.*` and `param.*`, under the file's names.
"""

from __future__ import annotations

import importlib
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo import ModelDims
from zoo.nn import StackBackbone

HERE = Path(__file__).parent
DEFAULT_CASES = HERE / "cases"


def only_block(
    backbone: type[StackBackbone], config: Any, d_model: int, *, causal: bool = False, max_len: int = 1
) -> nn.Module:
    """Build a stack of one layer and return its block."""
    mode = "causal" if causal else "bidirectional"
    return backbone(config, ModelDims(d_model=d_model, n_layers=1, mode=mode, max_len=max_len)).stack.blocks[0]


class Unmapped(Exception):
    """The adapter does not know how to run this case. A failure, never a skip."""


@dataclass
class Case:
    """One reference case. Floating inputs and parameters are leaves that require a gradient."""

    arch: str
    name: str
    path: Path
    meta: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)

    @property
    def config(self) -> dict[str, Any]:
        return self.meta["config"]

    @property
    def level(self) -> str:
        return self.meta["level"]

    @property
    def optional(self) -> bool:
        return bool(self.meta.get("optional", False))

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.meta.get("dtype", "float64"))

    @property
    def inputs(self) -> dict[str, Tensor]:
        """`in.*` without the prefix."""
        return self._under("in.")

    @property
    def params(self) -> dict[str, Tensor]:
        """`param.*` without the prefix."""
        return self._under("param.")

    @property
    def wanted(self) -> list[str]:
        """Names of the tensors that a Result must hold: all but inputs, parameters and the informative `extra.*`."""
        return sorted(k for k in self.tensors if not k.startswith(("in.", "param.", "extra.")))

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def leaves(self) -> dict[str, Tensor]:
        """Every leaf that a gradient may be asked for, under its full name."""
        return {k: v for k, v in self.tensors.items() if k.startswith(("in.", "param.")) and v.requires_grad}

    def gradients(self, loss: Tensor, prefix: str = "grad.", *, retain: bool = False) -> dict[str, Tensor]:
        """Gradients of `loss` for every `<prefix>NAME` tensor of the file, NAME a leaf's full name."""
        names = [k.removeprefix(prefix) for k in self.tensors if k.startswith(prefix)]
        leaves = self.leaves()
        missing = [n for n in names if n not in leaves]
        if missing:
            raise Unmapped(f"{self.arch}/{self.name}: no leaf for {prefix}{missing[0]}")
        found = torch.autograd.grad(loss, [leaves[n] for n in names], allow_unused=True, retain_graph=retain)
        return {prefix + n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(names, found, strict=True)}


@dataclass
class Result:
    """What an adapter returns.

    values          full tensor name -> ours
    not_comparable  fnmatch pattern over tensor names -> why our parameterisation cannot have that number at all;
                    allowed only where the case itself offers another tensor for the same quantity
    """

    values: dict[str, Tensor]
    not_comparable: dict[str, str] = field(default_factory=dict)


def cases_root() -> Path:
    """`ZOO_PARITY_DIR`, else the cases that travel with the repository."""
    return Path(os.environ.get("ZOO_PARITY_DIR") or DEFAULT_CASES)


def find_cases(root: Path | None = None) -> list[tuple[str, Path]]:
    """(arch, json path) of every case."""
    root = root or cases_root()
    return [(path.parent.name, path) for path in sorted(root.glob("*/*.json"))]


def load_case(path: Path) -> Case:
    meta = json.loads(path.read_text())
    # copies: what is loaded lies in the file's own bytes, aligned to 8; complex kernels may crash on less than 16
    tensors = {name: tensor.clone() for name, tensor in load_file(path.with_suffix(".safetensors")).items()}
    for name, tensor in tensors.items():
        if name.startswith(("in.", "param.")) and (tensor.is_floating_point() or tensor.is_complex()):
            tensor.requires_grad_(True)
    return Case(meta.get("arch", path.parent.name), path.stem, path, meta, tensors)


def adapter(arch: str) -> Callable[[Case], Result]:
    try:
        module = importlib.import_module(f"tests.parity.adapters.{arch}")
    except ModuleNotFoundError as error:
        raise Unmapped(f"no adapter tests/parity/adapters/{arch}.py for {arch}") from error
    return module.run


def not_offered() -> list[dict[str, str]]:
    """Entries of not_offered.toml: arch, case (a pattern), reason."""
    with (HERE / "not_offered.toml").open("rb") as f:
        return tomllib.load(f).get("not_offered", [])


def is_not_offered(arch: str, name: str) -> bool:
    return any(e["arch"] == arch and fnmatch(name, e["case"]) for e in not_offered())


def compare(case: Case, result: Result) -> list[str]:
    """Every way in which the result departs from the case; empty when it matches."""
    faults: list[str] = []
    tolerance = case.meta["tolerance"]
    for name in case.wanted:
        if any(fnmatch(name, pattern) for pattern in result.not_comparable):
            continue
        if name not in result.values:
            faults.append(f"{name}: the adapter returned nothing for it")
            continue
        ours, theirs = result.values[name].detach(), case.tensors[name]
        if tuple(ours.shape) != tuple(theirs.shape):
            faults.append(f"{name}: shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}")
            continue
        if theirs.is_complex():
            ours = ours.to(theirs.dtype)
        elif theirs.is_floating_point():
            if ours.dtype != theirs.dtype:
                faults.append(f"{name}: dtype {ours.dtype}, expected {theirs.dtype}")
                continue
        else:
            ours = ours.to(theirs.dtype)
        try:
            torch.testing.assert_close(ours, theirs, rtol=tolerance["rtol"], atol=tolerance["atol"], equal_nan=False)
        except AssertionError as error:
            faults.append(f"{name}: " + " ".join(str(error).split()))
    if set(result.not_comparable) and not any(n not in result.not_comparable for n in case.wanted):
        faults.append("nothing was compared")
    return faults


def sum_of_products(outputs: Mapping[str, Tensor] | Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """sum(y * cotangent) over pairs (y, cotangent)."""
    pairs = outputs.values() if isinstance(outputs, Mapping) else outputs
    return sum((y * c.detach()).sum() for y, c in pairs)  # type: ignore[misc,return-value]
