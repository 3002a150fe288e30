"""Exceptions with messages for the person at the terminal, and suggestions of the nearest valid names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """A failure that is not a mistake of the user; the command line exits with 1."""

    exit_code = 1


class UserError(ZooError):
    """A mistake of the user; the command line prints one line and exits with 2."""

    exit_code = 2


NODES = ("model", "segments", "optim", "train", "arch", "task")
"""The top-level nodes of a configuration."""


class ConfigError(UserError, ValueError):
    """A configuration key that is unknown, or a value of the wrong type or impossible together with others.

    key     the dotted key; plugins raise with a field name such as `n_heads`, and zoo adds `arch.` or `task.`
    origin  where the value came from, once known
    """

    def __init__(self, key: str, message: str, *, origin: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.message = message
        self.origin = origin

    def under(self, node: str) -> ConfigError:
        """The same error about `node.key`; a key that begins with a node stays."""
        key = self.key if self.key.partition(".")[0] in NODES else f"{node}.{self.key}"
        return ConfigError(key, self.message, origin=self.origin)

    def __str__(self) -> str:
        where = f" (from {self.origin})" if self.origin else ""
        return f"{self.key}: {self.message}{where}"


class UnknownName(UserError, LookupError):
    """A name that is not registered; the message suggests the nearest valid ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, detail: str = "") -> None:
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)}{'; ' + detail if detail else ''}")


class DataError(UserError):
    """Data files that are missing, damaged or in another layout than documented. The message names the file."""


class MissingFiles(DataError):
    """A task's published files are not on this machine. The message says which are needed and where to put them."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The at most `n` names in `known` that are most similar to `name`, best first."""
    names = {str(k).lower(): str(k) for k in known}
    close = difflib.get_close_matches(name.lower(), names, n=n, cutoff=0.6)
    part = [k for k in names if k not in close and len(name) > 2 and (name.lower() in k or k in name.lower())]
    return [names[k] for k in [*close, *part][:n]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?`, or the list of valid names when none is similar."""
    known = [str(k) for k in known]
    near = nearest(name, known)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    more = f" … ({len(known)} in all)" if len(known) > 20 else ""
    return f"; valid: {', '.join(known[:20])}{more}" if known else ""
