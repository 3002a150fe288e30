"""Layers of dotted keys, such as `task.seq_len=256`, on a structured configuration tree. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.spec.constraints import field_types, mismatch
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
    """Set the keys of `layer`, nested or dotted, in a structured tree, and return the dotted keys that were set.

    origin  where the layer comes from, for error messages
    Raises ConfigError for a key that the tree does not have, and for a value of another type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

    known = flatten(OmegaConf.to_container(tree, resolve=True))  # type: ignore[arg-type]
    given = flatten(layer)
    for key, value in given.items():
        if key not in known:
            raise ConfigError(key, f"unknown key{did_you_mean(key, known)}", origin=origin)
        if isinstance(value, str) and "${" in value:
            raise ConfigError(key, f"{value!r}: references to other keys are not supported", origin=origin)
        try:
            OmegaConf.update(tree, key, value)
        except (ValidationError, ConfigKeyError) as error:
            node, _, name = key.rpartition(".")
            cls: Any = OmegaConf.get_type(tree, node)
            raise ConfigError(key, mismatch(value, field_types(cls)[name]), origin=origin) from error
        except OmegaConfBaseException as error:
            raise ConfigError(key, " ".join(str(error).split()), origin=origin) from error
    return list(given)
