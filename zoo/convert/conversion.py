"""How an architecture's Hugging Face checkpoints are read and written. Names and numbers only: no torch here.

A plugin that can exchange weights has `convert.py` with `CONVERSION`, and names it in its Architecture record
(`conversion="zoo_mamba.convert:CONVERSION"`). What is said once here serves both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.spec.architecture import ModelDims
from zoo.spec.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """One tensor of our backbone and where the Hugging Face base model keeps it.

    ours       key in the backbone's state dict
    theirs     key in the base model's state dict (without the prefix that models with heads put before it), or
               several keys whose tensors, joined along the first dimension, are ours
    transpose  theirs is ours with its two dimensions exchanged
    shape      ours has this dims, where theirs differs by dimensions of size one only; () = the same
    their_shape theirs, in that case
    """

    ours: str
    theirs: str | tuple[str, ...]
    transpose: bool = False
    shape: tuple[int, ...] = ()
    their_shape: tuple[int, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """`theirs`, always as a tuple."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """What makes vectors of ids, before the backbone; a Hugging Face model's own, not the frame's.

    tokens, positions, types, norm   their keys in the base model (of the norm without .weight and .bias); "" = none
    n_positions, first_position      rows of the table of positions, and the row of the first token
    n_types                          rows of the table of token types, of which every token has the first
    scale                            what the tokens' vectors are multiplied by
    """

    vocab_size: int
    tokens: str
    scale: float = 1.0
    positions: str = ""
    n_positions: int = 0
    first_position: int = 0
    types: str = ""
    n_types: int = 0
    norm: str = ""
    norm_eps: float = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLayer:
    """One layer of a head, by its keys in the whole checkpoint (prefix included).

    kind     "linear" | "norm" | an activation of zoo.nn.ACTIVATIONS, or tanh
    weight   key of the weight; "" of a linear layer = the embedding's own, tied
    bias     key of the bias; "" = none
    d_out    of a linear layer
    eps      of a norm
    """

    kind: str
    weight: str = ""
    bias: str = ""
    d_out: int = 0
    eps: float = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadModule:
    """The plugin's own part of a head, in front of its layers: built from plain settings, hidden vectors in and out.

    settings  keyword arguments of the class that `Conversion.head_module` names (a checkpoint of ours keeps them, and
              names no code)
    d_out     width of what it gives
    weights   every tensor of the module, and its key in the whole checkpoint (prefix included)
    """

    settings: Mapping[str, Any]
    d_out: int
    weights: tuple[Weight, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What makes logits of hidden vectors.

    first   it reads the first token only, else each token
    scale   what the hidden vectors are multiplied by
    module  what comes before that, where a plugin has more than layers
    """

    layers: tuple[HeadLayer, ...]
    first: bool = False
    scale: float = 1.0
    module: HeadModule | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """What stands around the backbone in a checkpoint. Without a head the model gives hidden vectors.

    bare      the checkpoint's keys carry no prefix
    without   modules of our backbone that the checkpoint does not have ("final_norm"): what they get, they pass on
    aliases   keys that some checkpoints hold besides: another name of a tensor, which must then be equal
    carried   patterns of keys whose weights the class never uses (a pooler without a head): kept, and written back
    """

    embedding: Embedding | None = None
    head: Head | None = None
    bare: bool = False
    without: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    carried: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a Hugging Face configuration says, in our words.

    arch   values of the plugin's configuration fields
    shape  what the backbone is built with
    """

    arch: Mapping[str, Any]
    dims: ModelDims


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """Both directions of one architecture.

    model_type  `model_type` of config.json
    prefix      what models with heads put before the base model's keys ("bert.")
    read        config.json as a mapping -> Reading; raises `zoo.ConfigError` or `zoo.UserError` for a variant that the
                plugin does not offer (an activation, a form of attention), naming the key and its value
    write       (our configuration, ModelDims) -> the config.json keys that `read` reads
    weights     (our configuration, ModelDims) -> every parameter and persistent buffer of the backbone, each once,
                save those of `Outside.without`
    outside     config.json as a mapping -> what stands around the backbone; ConfigError for a class of model
                (`architectures`) whose head is not offered
    head_module "package.module:Class" of the heads' `HeadModule`; empty where layers are enough
    ignored     patterns of keys that hold no weights (tables that old checkpoints saved)
    """

    model_type: str
    prefix: str
    read: Callable[[Mapping[str, Any]], Reading]
    write: Callable[[Any, ModelDims], dict[str, Any]]
    weights: Callable[[Any, ModelDims], tuple[Weight, ...]]
    outside: Callable[[Mapping[str, Any]], Outside]
    head_module: str = ""
    ignored: tuple[str, ...] = ("*position_ids", "*token_type_ids")


def model_class(theirs: Mapping[str, Any], offered: tuple[str, ...]) -> str:
    """The class that a config.json names (`architectures`), the first offered one where it names none. ConfigError for
    another."""
    named = theirs.get("architectures") or [offered[0]]
    if named[0] not in offered:
        raise ConfigError("architectures", f"{named[0]!r}; offered are {', '.join(offered)}")
    return str(named[0])
