"""Weights of transformers' Longformer (LongformerModel). No torch here.

Embeddings and heads stand around the backbone (`outside`); the pooler belongs to no head that is offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import (
    Conversion,
    ModelDims,
    Outside,
    Reading,
    Weight,
    bert_arch,
    bert_check,
    bert_keys,
    bert_layer,
    bert_outside,
    bert_shape,
)
from zoo_longformer.config import LongformerConfig

TITLE = "Longformer"


def layer_weights(ours: str = "", theirs: str = "") -> tuple[Weight, ...]:
    """One block; the prefixes stand before our and their names."""
    return bert_layer(ours, theirs, suffixes=("", "_global"))


def weights(config: LongformerConfig, dims: ModelDims) -> tuple[Weight, ...]:
    """Every parameter of the backbone."""
    _check(config, dims)
    return tuple(
        weight for n in range(dims.n_layers) for weight in layer_weights(f"stack.blocks.{n}.", f"encoder.layer.{n}.")
    )


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' LongformerConfig."""
    window = theirs.get("attention_window", 512)
    return Reading(
        arch={
            "window": [window] if isinstance(window, int) else list(window),
            "n_global": 1,
            "attn_dropout": theirs.get("attention_probs_dropout_prob", 0.1),
        }
        | bert_arch(theirs, title=TITLE, activation="gelu", norm_eps=1e-12),
        dims=bert_shape(theirs, max_len=theirs.get("max_position_embeddings", 512) - _reserved(theirs)),
    )


def _reserved(theirs: Mapping[str, Any]) -> int:
    """Rows of the table of positions before that of the first token: that of pads, and those below it."""
    return int(theirs.get("pad_token_id", 1)) + 1


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The embedding, and the head of the class that config.json names. Their masked language model has no global
    token of its own: give it a global_attention_mask of the first token to see the same numbers."""
    return bert_outside(
        theirs,
        model=TITLE,
        base="longformer.",
        vocab_size=30522,
        n_positions=512,
        norm_eps=1e-12,
        activation="gelu",
        first_position=_reserved(theirs),
        classifier_activation="tanh",
        lm_dense="lm_head.dense",
        lm_norm="lm_head.layer_norm",
        lm="lm_head",
    )


def write(config: LongformerConfig, dims: ModelDims) -> dict[str, Any]:
    """The keys that `read` reads."""
    _check(config, dims)
    windows = config.window if len(config.window) > 1 else config.window * dims.n_layers
    return bert_keys(config, dims) | {
        "attention_window": list(windows),
        "attention_probs_dropout_prob": config.attn_dropout,
        "pad_token_id": 1,
        "max_position_embeddings": dims.max_len + 2,
    }


def _check(config: LongformerConfig, dims: ModelDims) -> None:
    """ConfigError for what transformers' Longformer is not."""
    wrong = {
        "counts_self": (config.counts_self, "its window has as many keys on both sides"),
        "dilation": (max(config.dilation) > 1, "it has no dilation"),
        "n_global": (not config.globals_in(dims.mode), "it has global projections"),
    }
    bert_check(config, dims, title=TITLE, wrong=wrong)


CONVERSION = Conversion(
    model_type="longformer",
    prefix="longformer.",
    read=read,
    write=write,
    weights=weights,
    outside=outside,
)
