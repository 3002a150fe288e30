"""Layers of dotted keys on a structured configuration tree: `task.seq_len=256` and the like. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.spec.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> {dotted key: value}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        full = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, full + "."))
        else:
            flat[full] = value
    return flat


def lay_over(tree: DictConfig, layer: Mapping[str, Any], origin: str) -> list[str]:
    """Set the keys of `layer`, nested or dotted, in the tree; the dotted keys that were set.

    Raises ConfigError, which names the origin, for a key that the tree has not, and for a value of another type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

    known = flatten(OmegaConf.to_container(tree, resolve=True))  # type: ignore[arg-type]
    given = flatten(layer)
    for key, value in given.items():
        if key not in known:
            raise ConfigError(key, f"unknown key{did_you_mean(key, known)}", origin=origin)
        if isinstance(value, str) and "${" in value:
            raise ConfigError(key, f"{value!r}: references to other keys are not offered", origin=origin)
        try:
            OmegaConf.update(tree, key, value)
        except (ValidationError, ConfigKeyError) as error:
            kind = type(known[key]).__name__ if known[key] is not None else "another type"
            raise ConfigError(key, f"{value!r} does not fit, expected {kind}", origin=origin) from error
        except OmegaConfBaseException as error:
            raise ConfigError(key, " ".join(str(error).split()), origin=origin) from error
    return list(given)
