"""A user's own data as a task: read, checked, prepared and registered before anything is planned. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.spec.config import validate_layer
from zoo.spec.files import user_path
from zoo.spec.registry import Registry

Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""(origin, dotted keys) of the user, later wins."""


def declare_data(place: str, layers: Layers, known: Registry) -> tuple[Layers, dict[str, bool]]:
    """Register the task of the data in a folder or file; return the layers without the `data.*` keys, and the task as
    `zoo.run.request.task_names` does.

    Raises UserError, ConfigError or DataError that names file and row or key; then nothing is trained.
    """
    reader = known.reader.record
    cls = reader.load_settings()
    values: dict[str, Any] = {}
    rest = []
    for origin, layer in layers:
        own = {key: value for key, value in layer.items() if key.startswith("data.")}
        values |= validate_layer(own, {"data": cls}, origin)
        rest.append((origin, {key: value for key, value in layer.items() if key not in own}))
    settings = cls(**{key.removeprefix("data."): value for key, value in values.items()})
    return rest, {known.declare(reader.declare(user_path(place), settings)): True}
