"""Choice of the form of an op that runs: "reference", "torch", "numba" or "triton".

Every op with several forms registers them, best first, and calls `choose_form`, which also notes the choice for the
record of the run. "auto" takes the best form of the device. The environment variable ZOO_BACKEND, or else the innermost
`use_backend`, forces one form for all ops; an op without it raises ConfigError("backend", …) instead of falling back.
A run enters `use_backend` with its configuration key train.op_backend, and reports such an error under that key.

Both the request and the notes are plain values of the process, not of a thread: runs are processes of their own, the
threads of a run (autograd's, a data loader's) must see its request, and torch.compile traces plain values, which it
guards, where a ContextVar would break the graph. A compiled or exported graph notes its forms when it is traced.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator

import torch

from zoo.spec.errors import ConfigError

BACKENDS = ("auto", "reference", "torch", "numba", "triton")

FormsOn = Callable[[str], tuple[str, ...]]
"""Maps a device type ("cpu", "cuda") to the forms that run there, best first."""

_forms_of: dict[str, FormsOn] = {}
_chosen: dict[str, set[str]] = {}
REFERENCE = ("reference",)
"""`among` for an op whose faster forms have a backward pass of their own, where `zoo.ops.tracing` rules that out."""

_backend: str | None = "auto"  # None: auto, whatever ZOO_BACKEND says


def register_op(op: str, forms: tuple[str, ...] | FormsOn) -> None:
    """Declare the forms of an op, best first, for all devices or as a function of the device type."""
    _forms_of[op] = forms if callable(forms) else lambda device_type: forms


def choose_form(op: str, device: torch.device, *, among: tuple[str, ...] | None = None) -> str:
    """Choose the form of an op to run on a device and note it for the record; `among` restricts the choice.

    Raises ConfigError("backend", …) when the requested backend does not exist or is not available for this op here.
    """
    forms, backend = among or _forms_of[op](device.type), _requested_backend()
    if backend not in BACKENDS:
        raise ConfigError("backend", f"{backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend != "auto" and backend not in forms:
        raise ConfigError("backend", f"{backend!r} is not available for {op} here; it has {', '.join(forms)}")
    form = forms[0] if backend == "auto" else backend
    _chosen.setdefault(op, set()).add(form)
    return form


def _requested_backend() -> str:
    return "auto" if _backend is None else os.environ.get("ZOO_BACKEND") or _backend


@contextlib.contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Request one backend for the calls inside.

    None lets every op choose, even when ZOO_BACKEND is set: for a pass on another device than the run's.
    """
    global _backend
    outer, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = outer


def forms_that_ran(*, reset: bool = False) -> dict[str, str]:
    """The form of each op that was chosen since the last reset; several are joined by "+"."""
    forms = {op: "+".join(sorted(chosen)) for op, chosen in sorted(_chosen.items())}
    if reset:
        _chosen.clear()
    return forms


def survey() -> list[dict[str, object]]:
    """List every op of `zoo.ops` with several forms, per kind of device: its forms, and the one that would run."""
    package = importlib.import_module("zoo.ops")
    for module in pkgutil.iter_modules(package.__path__, "zoo.ops."):
        importlib.import_module(module.name)
    rows: list[dict[str, object]] = []
    for op, forms_on in sorted(_forms_of.items()):
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            forms, backend = forms_on(device), _requested_backend()
            runs = forms[0] if backend == "auto" else backend if backend in forms else f"refuses {backend}"
            rows.append({"op": op, "device": device, "forms": list(forms), "runs": runs})
    return rows
