"""Which form of an op runs: chosen in one visible place, and told to the record.

Every op has a readable "reference" form that is its definition; some have faster ones ("torch", "triton").
`ZOO_BACKEND` or `use_backend` forces one; an op that has no such form refuses by name instead of falling back.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch

import zoo.ops
from zoo.spec.errors import ConfigError

BACKENDS = ("auto", "reference", "torch", "triton")

_wanted: ContextVar[str] = ContextVar("zoo_backend", default="auto")
_free: ContextVar[bool] = ContextVar("zoo_backend_free", default=False)
_ran: dict[str, set[str]] = {}


def choose(op: str, forms: Sequence[str]) -> str:
    """The form of `op` to run. `forms` are those that fit device, shape and dtype now, best first."""
    wanted = "auto" if _free.get() else os.environ.get("ZOO_BACKEND") or _wanted.get()
    if wanted not in BACKENDS:
        raise ConfigError("backend", f"{wanted!r}: expected one of {', '.join(BACKENDS)}")
    if wanted != "auto" and wanted not in forms:
        raise ConfigError("backend", f"{wanted!r} is not available for {op} here; it has {', '.join(forms)}")
    form = forms[0] if wanted == "auto" else wanted
    _ran.setdefault(op, set()).add(form)
    return form


@contextlib.contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Force one backend for the calls inside."""
    token = _wanted.set(backend)
    try:
        yield
    finally:
        _wanted.reset(token)


@contextlib.contextmanager
def any_backend() -> Iterator[None]:
    """Let every op choose for itself inside, whatever was forced: for a pass on another device than the run's."""
    token = _free.set(True)
    try:
        yield
    finally:
        _free.reset(token)


def forms_that_ran(*, reset: bool = False) -> dict[str, str]:
    """Per op the form(s) that ran since the last reset, for the record."""
    ran = {op: "+".join(sorted(forms)) for op, forms in sorted(_ran.items())}
    if reset:
        _ran.clear()
    return ran


def survey() -> list[dict[str, object]]:
    """Every op of `zoo.ops` with more than one form: its forms on each kind of device here, and the one that runs.

    A module of `zoo.ops` tells by `FORMS = {op: f}`, where f(device type) gives the forms there, best first.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows: list[dict[str, object]] = []
    for module in pkgutil.iter_modules(zoo.ops.__path__):
        if module.name.endswith("_triton"):
            continue  # kernels that the module of their op names; importable only where triton is installed
        found = getattr(importlib.import_module(f"zoo.ops.{module.name}"), "FORMS", {})
        for op, forms_on in sorted(found.items()):
            for device in devices:
                forms = list(forms_on(device))
                wanted = os.environ.get("ZOO_BACKEND") or "auto"
                runs = forms[0] if wanted == "auto" else wanted if wanted in forms else "refuses " + wanted
                rows.append({"op": op, "device": device, "forms": forms, "runs": runs})
    return rows
