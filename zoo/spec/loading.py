"""Load objects that are named by `package.module:attribute` strings."""

from __future__ import annotations

import importlib
from typing import Any

from zoo.spec.errors import ZooError


def load_object(target: str, *, what: str = "object") -> Any:
    """Import `package.module:attribute` and return the attribute.

    Raises ZooError that names the target when the module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise ZooError(f"{what} {target!r}: expected 'package.module:attribute'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ZooError(f"{what} {target!r} cannot be imported: {error}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ZooError(f"{what} {target!r}: module {module_name} has no attribute {attribute!r}") from error
