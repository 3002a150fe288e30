"""Weights of transformers' BigBird (BigBirdModel, block_sparse). No torch here.

Embeddings and heads stand around the backbone (`outside`); the pooler belongs to no head that is offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import (
    ConfigError,
    Conversion,
    ModelDims,
    Outside,
    Reading,
    Weight,
    bert_activation,
    bert_arch,
    bert_check,
    bert_keys,
    bert_layer,
    bert_outside,
    bert_shape,
)
from zoo_bigbird.config import BigBirdConfig

TITLE = "BigBird"


def weights(config: BigBirdConfig, dims: ModelDims) -> tuple[Weight, ...]:
    """Every parameter of the backbone; which blocks are random is made from the seed."""
    _check(config, dims)
    return tuple(
        weight for n in range(dims.n_layers) for weight in bert_layer(f"stack.blocks.{n}.", f"encoder.layer.{n}.")
    )


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' BigBirdConfig."""
    for key, default, offered in (
        ("use_bias", True, True),  # without, they leave the biases out of three projections of four
        ("is_decoder", False, False),
        ("add_cross_attention", False, False),
    ):
        value = theirs.get(key, default)
        if value != offered:
            raise ConfigError(key, f"{value!r}: {TITLE} is offered with {offered!r}")
    kind = theirs.get("attention_type", "block_sparse")
    if kind not in ("block_sparse", "original_full"):
        raise ConfigError("attention_type", f"{kind!r}: {TITLE} is offered with 'block_sparse' and 'original_full'")
    longest = theirs.get("max_position_embeddings", 4096)
    return Reading(
        arch={
            # BERT's attention is that of a single block
            "block_size": longest if kind == "original_full" else theirs.get("block_size", 64),
            "n_random": theirs.get("num_random_blocks", 3),
            "random_blocks": "first",
            "attn_dropout": theirs.get("attention_probs_dropout_prob", 0.1),
        }
        | bert_arch(theirs, title=TITLE, activation="gelu_new", norm_eps=1e-12),
        dims=bert_shape(theirs, max_len=longest),
    )


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The embedding, and the head of the class that config.json names."""
    width = theirs.get("hidden_size", 768)
    return bert_outside(
        theirs,
        model=TITLE,
        base="bert.",
        vocab_size=50358,
        n_positions=4096,
        norm_eps=1e-12,
        activation=bert_activation(theirs, title=TITLE, default="gelu_new"),
        pretraining=True,
        scale=width**0.5 if theirs.get("rescale_embeddings", False) else 1.0,
    )


def write(config: BigBirdConfig, dims: ModelDims) -> dict[str, Any]:
    """The keys that `read` reads."""
    _check(config, dims)
    full = config.block_size >= dims.max_len
    if not full and config.random_blocks != "first":
        why = "transformers evaluates with 'first', so that longer inputs would have other logits there"
        raise ConfigError("random_blocks", f"{config.random_blocks!r}: {why}")
    return bert_keys(config, dims) | {
        "attention_type": "original_full" if full else "block_sparse",
        "use_bias": True,
        "block_size": config.block_size,
        "num_random_blocks": config.n_random,
        "attention_probs_dropout_prob": config.attn_dropout,
        "max_position_embeddings": dims.max_len,
    }


def _check(config: BigBirdConfig, dims: ModelDims) -> None:
    """ConfigError for what transformers' BigBird is not."""
    wrong = {
        "n_random": (config.n_random == 0, "it has at least one random block"),
        "mode": (dims.mode != "bidirectional", "its causal form is full attention"),
    }
    bert_check(config, dims, title=TITLE, wrong=wrong)


CONVERSION = Conversion(
    model_type="big_bird",
    prefix="bert.",
    read=read,
    write=write,
    weights=weights,
    outside=outside,
)
