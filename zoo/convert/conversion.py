"""The description of one architecture's Hugging Face checkpoints: config.json keys, tensor keys, classes of models.

A plugin that can exchange weights has a `convert.py` with `CONVERSION`, and names it in its Architecture record
(`conversion="zoo_mamba.convert:CONVERSION"`). One description serves both directions: "import" is from Hugging Face to
zoo, "export" the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from zoo.convert.keymap import KeyMap
from zoo.spec.architecture import ModelDims
from zoo.spec.errors import ConfigError

HFConfig = Mapping[str, Any]
"""The content of a config.json."""
DIMS = tuple(f.name for f in fields(ModelDims))
UNLIMITED_LEN = 2**20
"""`max_len` of an architecture whose config.json has no longest input."""
DEFAULTS = {"tie_word_embeddings": True, "id2label": ("LABEL_0", "LABEL_1")}
"""transformers' defaults of keys that every model has."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of config.json, and how its value relates to the field of ours that it is listed under.

    name     the key
    default  transformers' value when config.json leaves the key out
    values   supported values -> ours, where not any value is supported as it is; of several for one of ours the first
             is exported
    read     value -> ours, for what `values` cannot express
    write    (our configuration, dims) -> value, where that is not the field's own
    """

    name: str
    default: Any = None
    values: Mapping[Any, Any] | None = None
    read: Callable[[Any], Any] | None = None
    write: Callable[[Any, ModelDims], Any] | None = None

    def import_value(self, hf_config: HFConfig) -> Any:
        """Translate the value in a config.json to ours. Raises ConfigError for an unsupported one."""
        value = hf_config.get(self.name, self.default)
        if self.values is not None:
            if value not in self.values:
                supported = ", ".join(map(str, self.values))
                raise ConfigError(self.name, f"{value!r} is not supported; supported are {supported}")
            return self.values[value]
        return value if self.read is None else self.read(value)

    def export_value(self, name: str, config: Any, dims: ModelDims) -> Any:
        """Translate our field `name` to the value in config.json. Raises ConfigError where transformers has none."""
        value = _get_field(name, config, dims) if self.write is None else self.write(config, dims)
        if self.values is None:
            return value
        for theirs, ours in self.values.items():
            if ours == value:
                return theirs
        supported = ", ".join(map(str, dict.fromkeys(self.values.values())))
        raise ConfigError(name, f"{value!r}: transformers' {self.name} supports only {supported}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelParts:
    """The modules around the backbone in one class of transformers' models, with their keys. B batch, L seq_len.

    embedding  ids (B, L) -> vectors (B, L, d_model); None: the model takes vectors
    head       hidden vectors -> logits, may share parameters with `embedding`; None: hidden vectors are the output
    weights    key map of the two modules, whose own keys start with "embed." and "head."
    aliases    keys that some checkpoints also hold -> the key of the same tensor; tied parameters need no entry
    unused     patterns of keys whose tensors this class never uses (a pooler): kept, and written back on export
    removed    modules of our backbone that the checkpoint lacks ("final_norm"); they become the identity
    """

    embedding: nn.Module | None = None
    head: nn.Module | None = None
    weights: KeyMap = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """How configurations and tensors of one architecture correspond to those of its models in transformers.

    Every function that takes a config.json gets it with transformers' defaults filled in.

    model_type    `model_type` of config.json
    prefix        prefix of the base model's keys in models with a head ("bert."); models without a head lack it
    config        our field (of the plugin's configuration or of ModelDims) -> the key of config.json
    weights       key map of the backbone, with `prefix`; a function of our configuration where the keys depend on it
    models        class in transformers -> function that makes its parts; the first is assumed where config.json names
                  none
    fixed         our field -> its only value in transformers' model: set on import, required on export
    requires      key of config.json -> the only value that the plugin supports
    unsupported   our field -> (predicate of our configuration and dims, reason): refused on export
    defaults      transformers' defaults of keys that are not listed in `config`
    import_extra  config.json -> values of further fields of ours
    export_extra  (our configuration, dims) -> values of further keys of config.json
    """

    model_type: str
    prefix: str
    config: Mapping[str, Key]
    weights: KeyMap | Callable[[Any], KeyMap]
    models: Mapping[str, Callable[[HFConfig], ModelParts]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    unsupported: Mapping[str, tuple[Callable[[Any, ModelDims], bool], str]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    import_extra: Callable[[HFConfig], Mapping[str, Any]] = lambda hf_config: {}
    export_extra: Callable[[Any, ModelDims], Mapping[str, Any]] = lambda config, dims: {}

    def fill_defaults(self, hf_config: HFConfig) -> HFConfig:
        """Add transformers' default of every key that config.json leaves out."""
        listed = {key.name: key.default for key in self.config.values()}
        return {**DEFAULTS, **listed, **self.requires, **self.defaults, **hf_config}

    def import_config(self, hf_config: HFConfig) -> tuple[dict[str, Any], ModelDims]:
        """Make the plugin's configuration values and the backbone's dimensions from config.json.

        Raises ConfigError that names the key and value of an unsupported variant.
        """
        hf_config = self.fill_defaults(hf_config)
        for key, value in self.requires.items():
            if hf_config[key] != value:
                raise ConfigError(key, f"{hf_config[key]!r} is not supported; supported is {value!r}")
        values = {name: key.import_value(hf_config) for name, key in self.config.items()}
        values = {"max_len": UNLIMITED_LEN, **values, **self.fixed, **self.import_extra(hf_config)}
        return values, ModelDims(**{name: values.pop(name) for name in DIMS})

    def export_config(self, config: Any, dims: ModelDims) -> dict[str, Any]:
        """Make the keys of config.json that `import_config` reads.

        Raises ConfigError that names the field and value of a variant that transformers lacks.
        """
        for name, value in self.fixed.items():
            if _get_field(name, config, dims) != value:
                given = f"{_get_field(name, config, dims)!r}"
                raise ConfigError(name, f"{given}: transformers' {self.model_type} supports only {name}={value!r}")
        for name, (is_unsupported, reason) in self.unsupported.items():
            if is_unsupported(config, dims):
                given = f"{_get_field(name, config, dims)!r}"
                raise ConfigError(name, f"{given} does not exist in transformers' {self.model_type}: {reason}")
        values = {key.name: key.export_value(name, config, dims) for name, key in self.config.items()}
        return {**values, **self.requires, **self.export_extra(config, dims)}

    def key_map(self, config: Any) -> KeyMap:
        """Return the backbone's key map for a configuration of ours."""
        return self.weights(config) if callable(self.weights) else self.weights

    def build_parts(self, hf_config: HFConfig) -> ModelParts:
        """Make the modules around the backbone for the class that config.json names (`architectures`).

        Raises ConfigError for a class that `models` does not list.
        """
        name = (hf_config.get("architectures") or list(self.models))[0]
        if name not in self.models:
            raise ConfigError("architectures", f"{name!r} is not supported; supported are {', '.join(self.models)}")
        return self.models[name](self.fill_defaults(hf_config))


def _get_field(name: str, config: Any, dims: ModelDims) -> Any:
    return getattr(dims if name in DIMS else config, name)
