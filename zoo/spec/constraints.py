"""Types of configuration fields, and the validation of a configuration by them. No torch here.

A configuration is a dataclass whose annotations say which values a field may have, `n_heads: PositiveInt = 4` or
`norm: Literal["layer", "rms"] = "layer"`; pydantic checks them. Its method `check` is for relations: between fields, or
with the ModelDims.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, cast, get_type_hints

from annotated_types import Ge, Gt, Lt

from zoo.spec.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from zoo.spec.architecture import ModelDims

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
"""Activations of the channel MLP; "gelu" is the exact one."""


@dataclasses.dataclass
class BlockConfig:
    """The fields that configurations of a Transformer block share; `zoo.nn.transformer_block` reads them."""

    n_heads: PositiveInt = 4
    """Attention heads; must divide d_qkv."""
    d_qkv: NonNegativeInt = 0
    """Width of all heads together; 0 = d_model."""
    d_ff: NonNegativeInt = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    activation: Activation = "gelu"
    """Activation of the channel MLP; gelu is exact, gelu_tanh its tanh approximation."""
    bias: bool = True
    """Biases in the attention's projections (the MLP always has them)."""
    norm_eps: PositiveFloat = 1e-5
    """Epsilon of the layer norms."""
    dropout: Fraction = 0.0
    """Dropout on the output of each sublayer, and inside the MLP."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError unless the heads divide d_qkv (or d_model)."""
        d_qkv = self.d_qkv or dims.d_model
        if d_qkv % self.n_heads:
            width = f"d_qkv {d_qkv}" if self.d_qkv else f"d_model {d_qkv}"
            raise ConfigError("n_heads", f"{self.n_heads} does not divide {width}")


def validate_config(config: Any, *context: Any) -> None:
    """Check a configuration's fields, then their relations by its `check(*context)`, if any. Raises ConfigError."""
    validate_fields(config)
    if hasattr(config, "check"):
        config.check(*context)


def validate_fields(config: Any) -> None:
    """Check every field of a configuration dataclass against its annotation. Raises ConfigError."""
    cls: Any = type(config)
    for name, hint in field_types(cls).items():
        validate_value(name, operator.attrgetter(name)(config), hint)


class Written(str):
    """A value as a person wrote it, on the command line or in a file; its field says what it is."""


def validate_value(key: str, value: Any, hint: Any, *, origin: str | None = None) -> Any:
    """Return `value` as the type of the annotation `hint`, an integer as a float. Raises ConfigError.

    What is `Written` is its text where the annotation allows text, else the first of `_meanings` that it allows.
    """
    from pydantic import ValidationError

    meanings = list(_meanings(value)) if _is_written(value) else [value]
    for meaning in meanings:
        with contextlib.suppress(ValidationError):
            return _validator(hint).validate_python(meaning)
    scalars = [meaning for meaning in meanings if not isinstance(meaning, list)]
    message = mismatch(scalars[min(1, len(scalars) - 1)] if scalars else value, hint)
    if isinstance(value, str) and "," in value and not describe(hint).startswith("["):
        message += f"; --sweep {key}={value} tries each of them"
    raise ConfigError(key, message, origin=origin)


def _is_written(value: Any) -> bool:
    return all(isinstance(item, Written) for item in (value if isinstance(value, list) and value else [value]))


_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "null": None, "none": None}


def _meanings(written: str | list[str]) -> Iterator[Any]:
    """What a text, or a list of texts, may stand for: text, number, truth value, nothing, a list in brackets or not."""
    for read in (str, int, float, lambda text: _WORDS[text.strip().lower()]):
        with contextlib.suppress(ValueError, KeyError):
            yield read(written) if isinstance(written, str) else [read(item) for item in written]
    if isinstance(written, str):
        inner = written.strip().removeprefix("[").removesuffix("]").strip()
        yield from _meanings([item.strip().strip("\"'") for item in inner.split(",")] if inner else [])


@functools.cache
def _validator(hint: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))


@functools.cache
def field_types(cls: type) -> Mapping[str, Any]:
    """Annotation of each field of a dataclass, with its constraints; fields of a nested dataclass by dotted names."""
    hints = get_type_hints(cls, include_extras=True)
    types: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            types |= {f"{field.name}.{name}": inner for name, inner in field_types(cast("type", hint)).items()}
        else:
            types[field.name] = hint
    return types


T = TypeVar("T")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """Annotations of a dataclass, which take longer to read than a configuration to make."""
    return get_type_hints(cls)


def build_config(cls: type[T], values: Mapping[str, Any]) -> T:
    """Create a configuration dataclass from its fields, those of nested dataclasses as mappings."""
    hints = _hints(cast("Any", cls))
    return cls(
        **{
            name: build_config(hints[name], value) if isinstance(value, Mapping) and name in hints else value
            for name, value in values.items()
        }
    )


def mismatch(value: Any, hint: Any) -> str:
    """Say why `value` is not allowed by the annotation `hint`, and what is."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"expected a finite number, got {value}"
    allowed = describe(hint)
    near = nearest(str(value), allowed.split(" | "), n=1) if " | " in allowed else []
    return f"expected {allowed}, got {value!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def describe(hint: Any) -> str:
    """The values that an annotation allows, in words: "integer > 0", "layer | rms", "number in [0, 1) or null"."""
    from pydantic import TypeAdapter

    # not from the cache of `_validator`: literals of another order are equal to it
    return _describe_schema(TypeAdapter(hint).json_schema())


def _describe_schema(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_describe_schema(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " | ".join(map(str, schema.get("enum") or [schema["const"]]))
    if schema["type"] == "array":
        return f"[{_describe_schema(schema['items'])}, …]"
    name = {"boolean": "true | false", "string": "text"}.get(schema["type"], schema["type"])
    if "multipleOf" in schema:
        name = f"even {name}" if schema["multipleOf"] == 2 else f"{name}, a multiple of {schema['multipleOf']},"
    symbols = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [(symbol, schema[key]) for key, symbol in symbols.items() if key in schema]
    if len(bounds) == 2:
        (low, a), (high, b) = bounds
        return f"{name} in {'[' if low == '>=' else '('}{a}, {b}{']' if high == '<=' else ')'}"
    return " ".join([name, *(f"{symbol} {bound}" for symbol, bound in bounds)])


class FieldHelp(NamedTuple):
    """Documentation of one field: its name, the values it may have in words, its default, its help text."""

    name: str
    allowed: str
    default: Any
    help: str


def describe_fields(cls: type) -> list[FieldHelp]:
    """Documentation of every field of a configuration dataclass; the docstring under a field is its help."""
    import docstring_parser

    hints = _hints(cls)
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__[:-1]):
        parsed = docstring_parser.parse_from_object(owner)
        docs |= {param.arg_name: " ".join((param.description or "").split()) for param in parsed.params}
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            docs |= {f"{name}.{field.name}": field.help for field in describe_fields(cast("type", hint))}
    defaults = cls()
    return [
        FieldHelp(name, describe(hint), operator.attrgetter(name)(defaults), docs.get(name, ""))
        for name, hint in field_types(cls).items()
    ]
