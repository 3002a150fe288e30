"""What a person writes: `--set KEY=VALUE` and configuration files. No torch here.

A value stays the text that was written until its field says what it is (`validate_value`): a path or a name is taken
as it stands, numbers are decimal. No other parser touches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.spec.config import flatten
from zoo.spec.constraints import Written
from zoo.spec.errors import UserError


def user_layers(file: str, overrides: Mapping[str, Any], origin: str = "--set") -> list[tuple[str, Mapping[str, Any]]]:
    """The layers of a configuration file ("" = none) and of overrides, for `compose`.

    origin  what the overrides were given with, for messages
    """
    from_file = [(f"file {file}", flatten(read_yaml("--config", Path(file))))] if file else []
    return [*from_file, (origin, flatten(overrides))]


def parse_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """`["model.d_model=64"]` -> {"model.d_model": Written("64")}; mappings (nested or dotted) pass through."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    parsed: dict[str, Any] = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {item!r}: expected key=value, such as model.d_model=128")
        parsed[key.strip()] = Written(value)
    return parsed


def read_yaml(option: str, path: Path) -> dict[str, Any]:
    """Read a YAML file of keys, nested or dotted; its scalars are `Written`.

    option  what the file was given with, for messages

    Raises UserError.
    """
    import yaml

    class Loader(yaml.BaseLoader):  # which leaves scalars as they are written
        """Marks scalars, and refuses a key that is there twice."""

        def construct_scalar(self, node: yaml.ScalarNode) -> Written:
            return Written(super().construct_scalar(node))

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            for (key, _), name in zip(node.value, keys, strict=True):
                if keys.count(name) > 1:
                    raise yaml.MarkedYAMLError(problem=f"{name!r} is there twice", problem_mark=key.start_mark)
            return super().construct_mapping(node, deep=True)

    try:
        with path.open("rb") as file:  # yaml knows UTF-8 and UTF-16, whatever the locale
            loaded = yaml.load(file, Loader) or {}
    except FileNotFoundError:
        raise UserError(f"{option} {path}: no such file") from None
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise UserError(f"{option} {path}: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{option} {path}: expected a mapping of keys")
    return loaded
