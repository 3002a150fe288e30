"""Compiled generators: numba, whose result is kept on the disk where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from zoo.data.paths import cache_dir, data_dir
from zoo.spec.errors import UserError

config: Any = numba.config


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, without the interpreter's lock.

    The result is kept beside the source or in the user's home, as numba does; where neither may be written, below
    `ZOO_CACHE_DIR` or the data directory; else nowhere, and every process compiles anew, which takes seconds.
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no place
        before = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(cache_dir(data_dir()) / "numba")
        return numba.njit(nogil=True, cache=True)(function)
    except (RuntimeError, UserError):
        return numba.njit(nogil=True)(function)
    finally:
        config.CACHE_DIR = before
