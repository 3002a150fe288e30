"""Which form of an op runs: chosen in one visible place, and told to the record.

Every op has a readable "reference" form that is its definition; some have faster ones ("torch", "triton").
`ZOO_BACKEND` or `use_backend` forces one; an op that has no such form refuses by name instead of falling back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from zoo.interface.errors import ConfigError

BACKENDS = ("auto", "reference", "torch", "triton")

_wanted: ContextVar[str] = ContextVar("zoo_backend", default="auto")
_ran: dict[str, set[str]] = {}


def choose(op: str, forms: Sequence[str]) -> str:
    """The form of `op` to run. `forms` are those that fit device, shape and dtype now, best first."""
    wanted = os.environ.get("ZOO_BACKEND") or _wanted.get()
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


def forms_that_ran(*, reset: bool = False) -> dict[str, str]:
    """Per op the form(s) that ran since the last reset, for the record."""
    ran = {op: "+".join(sorted(forms)) for op, forms in sorted(_ran.items())}
    if reset:
        _ran.clear()
    return ran
