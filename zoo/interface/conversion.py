"""How an architecture's Hugging Face checkpoints are read and written. Names and numbers only: no torch here.

A plugin that can exchange weights has `convert.py` with `CONVERSION`, and names it in its Architecture record
(`conversion="zoo_mamba.convert:CONVERSION"`). What is said once here serves both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.interface.architecture import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """One tensor of our backbone and where the Hugging Face base model keeps it.

    ours       key in the backbone's state dict
    theirs     key in the base model's state dict (without the prefix that models with heads put before it), or
               several keys whose tensors, joined along the first dimension, are ours
    transpose  theirs is ours with its two dimensions exchanged
    shape      ours has this shape, where theirs differs by dimensions of size one only; () = the same
    """

    ours: str
    theirs: str | tuple[str, ...]
    transpose: bool = False
    shape: tuple[int, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """`theirs`, always as a tuple."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a Hugging Face configuration says, in our words.

    arch   values of the plugin's configuration fields
    shape  what the backbone is built with
    """

    arch: Mapping[str, Any]
    shape: Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """Both directions of one architecture.

    model_type  `model_type` of config.json
    prefix      what models with heads put before the base model's keys ("longformer.")
    read        config.json as a mapping -> Reading; raises `zoo.ConfigError` or `zoo.UserError` for a variant that the
                plugin does not offer (an activation, a form of attention), naming the key and its value
    write       (our configuration, Shape) -> the config.json keys that `read` reads
    weights     (our configuration, Shape) -> every parameter and persistent buffer of the backbone, each exactly once
    """

    model_type: str
    prefix: str
    read: Callable[[Mapping[str, Any]], Reading]
    write: Callable[[Any, Shape], dict[str, Any]]
    weights: Callable[[Any, Shape], tuple[Weight, ...]]
