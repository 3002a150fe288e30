"""Functions that numba compiles, whose result is kept on the disk where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from zoo.spec.errors import UserError
from zoo.spec.files import cache_dir, data_dir

config: Any = numba.config


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function at its first call, without the interpreter's lock; `options` are those of `numba.njit`.

    The result is kept beside the source or in the user's home, as numba does; where neither may be written, below
    `ZOO_CACHE_DIR` or the data directory; else nowhere, and every process compiles anew, which takes seconds.
    """
    if function is None:
        return lambda function: compiled(function, **options)
    options |= {"nogil": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place
        before = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(cache_dir(data_dir()) / "numba")
        return numba.njit(cache=True, **options)(function)
    except (RuntimeError, UserError):
        return numba.njit(**options)(function)
    finally:
        config.CACHE_DIR = before
