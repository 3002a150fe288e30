"""Our model with the weights of a live model of transformers: what `zoo convert` makes, without the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from zoo import Backbone, registry
from zoo.convert import Conversion, KeyMap, PretrainedModel, match_keys


def hf_config(model: Any) -> dict[str, Any]:
    """The config.json of a model."""
    return {**model.config.to_dict(), "architectures": [type(model).__name__]}


def build_ours(architecture: str, conversion: Conversion, model: Any) -> PretrainedModel:
    """Build our model for theirs, without its weights."""
    return PretrainedModel(registry().architecture(architecture).record, conversion, hf_config(model))


def copy_model(architecture: str, conversion: Conversion, model: Any) -> PretrainedModel:
    """Copy their model into ours in double precision, each tensor used exactly once; check that the export is exact."""
    ours = build_ours(architecture, conversion, model)
    theirs = model.state_dict()
    sources = sorted(key for source in ours.sources.values() for key in source.sources)
    assert sources == sorted(set(theirs) - set(ours.aliases))
    ours.import_tensors(theirs, where="live")
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.export_tensors().items())
    return ours.double().eval()


def copy_backbone(architecture: str, conversion: Conversion, model: Any, **changes: Any) -> Backbone:
    """Copy the backbone of their base model into ours in double precision. changes: values of our configuration."""
    values, dims = conversion.import_config(hf_config(model))
    record = registry().architecture(architecture).record
    config = record.load_config()(**values | changes)
    backbone = record.build(config, dims).double().eval()
    tensors = mapped_tensors(conversion.key_map(config), backbone.state_dict(), model.state_dict(), conversion.prefix)
    backbone.load_state_dict(tensors, strict=True)
    return backbone


def mapped_tensors(
    key_map: KeyMap, names: Iterable[str], theirs: Mapping[str, Tensor], prefix: str, *, module: str = ""
) -> dict[str, Tensor]:
    """Take our tensors from theirs by the key map of a backbone.

    names    our keys, within `module` of the backbone ("stack.blocks.0.")
    prefix   what the keys of `theirs` lack ("bert.encoder.layer.0.")
    """
    sources = match_keys(key_map, [module + name for name in names], strip_prefix=prefix)
    return {
        name.removeprefix(module): source.to_ours(theirs[key] for key in source.sources)
        for name, source in sources.items()
    }
