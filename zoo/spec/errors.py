"""Errors for the person at the terminal: what was wrong, where it came from, what is the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Something went wrong on our side; the command line exits with 1."""

    exit_code = 1


class UserError(ZooError):
    """A mistake in what was asked for; the command line prints one line and exits with 2."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A configuration value that is unknown, of the wrong type, or impossible together with others.

    `key` is the dotted key at fault (relative to the node that raised it: a plugin says `n_heads`, the frame
    prefixes `arch.`), `origin` where its value came from, once the frame knows it.
    """

    def __init__(self, key: str, message: str, *, origin: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.message = message
        self.origin = origin

    def __str__(self) -> str:
        where = f" (from {self.origin})" if self.origin else ""
        return f"{self.key}: {self.message}{where}"


class UnknownName(UserError, LookupError):
    """A name that nothing is registered under, with the nearest valid ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, detail: str = "") -> None:
        self.kind, self.name = kind, name
        self.nearest = nearest(name, known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)}{'; ' + detail if detail else ''}")


class DataError(UserError):
    """Data files that are missing, damaged or not in the layout that was promised. The message names the file."""


class MissingFiles(DataError):
    """A task's published files are not on this machine. The message says which to bring and where to put them."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """At most `n` of `known` that look like `name`, best first."""
    names = {str(k).lower(): str(k) for k in known}
    close = difflib.get_close_matches(name.lower(), names, n=n, cutoff=0.6)
    part = [k for k in names if k not in close and len(name) > 2 and (name.lower() in k or k in name.lower())]
    return [names[k] for k in [*close, *part][:n]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?`, or the list of all when nothing is near."""
    known = [str(k) for k in known]
    near = nearest(name, known)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    more = f" … ({len(known)} in all)" if len(known) > 20 else ""
    return f"; valid: {', '.join(known[:20])}{more}" if known else ""
