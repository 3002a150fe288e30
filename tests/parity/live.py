"""Ours with the weights of a live model of transformers: what `zoo convert` makes, without the files."""

from __future__ import annotations

from typing import Any

import torch

from zoo import Conversion, registry
from zoo.convert import Converted
from zoo.convert.tensors import to_ours, to_theirs


def told(model: Any) -> dict[str, Any]:
    """What the model's config.json would say."""
    return {**model.config.to_dict(), "architectures": [type(model).__name__]}


def built(architecture: str, conversion: Conversion, model: Any) -> Converted:
    """Ours for their model, not yet with its weights."""
    reading, outside = conversion.read(told(model)), conversion.outside(told(model))
    return Converted(registry().architecture(architecture).record, dict(reading.arch), reading.dims, outside)


def copied(architecture: str, conversion: Conversion, model: Any) -> Converted:
    """Ours with their weights in double precision, each taken exactly once and none left; the way back is exact."""
    ours = built(architecture, conversion, model)
    theirs, aliases = model.state_dict(), ours.outside.aliases
    weights = ours.weights(conversion)
    assert sorted(source for w in weights for source in w.sources) == sorted(set(theirs) - set(aliases))
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    tensors = to_ours(theirs, weights, shapes, aliases=aliases, ignored=(), where="live")
    back = to_theirs(tensors, weights)
    assert all(torch.equal(value, theirs[key]) for key, value in back.items())
    ours.double().load_state_dict(tensors, strict=True)
    return ours.eval()
