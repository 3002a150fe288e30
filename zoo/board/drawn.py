"""Charts that a build draws once: those of its files are on its page too."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_svgs: ContextVar[dict[str, str] | None] = ContextVar("_svgs", default=None)


@contextlib.contextmanager
def drawn_once() -> Iterator[None]:
    """Within it `draw` draws equal charts once."""
    token = _svgs.set({})
    try:
        yield
    finally:
        _svgs.reset(token)


def draw(spec: dict[str, Any], to_svg: Callable[[dict[str, Any]], str]) -> str:
    """The SVG of a specification in Vega-Lite, by `to_svg` or as it was drawn before."""
    svgs = _svgs.get()
    if svgs is None:
        return to_svg(spec)
    key = json.dumps(spec)
    if key not in svgs:
        svgs[key] = to_svg(spec)
    return svgs[key]
