"""Weights of transformers' BigBird (BigBirdModel, block_sparse). No torch here.

Embeddings and heads stand around the backbone (`outside`); the pooler belongs to no head that is offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import ConfigError, Conversion, Outside, Reading, Shape, Weight, bert_outside
from zoo_bigbird.config import BigBirdConfig

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}
LAYER = {
    "mixer.q": "attention.self.query",
    "mixer.k": "attention.self.key",
    "mixer.v": "attention.self.value",
    "mixer.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.linear1": "intermediate.dense",
    "mlp.linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Our names of one block -> theirs of one layer; each has a weight and a bias."""


def weights(config: BigBirdConfig, shape: Shape) -> tuple[Weight, ...]:
    """Every parameter of the backbone; which blocks are random is made from the seed."""
    _check(config, shape)
    return tuple(
        Weight(ours=f"stack.blocks.{n}.{ours}.{kind}", theirs=f"encoder.layer.{n}.{theirs}.{kind}")
        for n in range(shape.n_layers)
        for ours, theirs in LAYER.items()
        for kind in ("weight", "bias")
    )


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' BigBirdConfig."""
    for key, default, offered in (
        ("attention_type", "block_sparse", "block_sparse"),  # original_full is BERT's
        ("use_bias", True, True),  # without, they leave the biases out of three projections of four
        ("is_decoder", False, False),
        ("add_cross_attention", False, False),
    ):
        value = theirs.get(key, default)
        if value != offered:
            raise ConfigError(key, f"{value!r}: BigBird is offered with {offered!r}")
    return Reading(
        arch={
            "block_size": theirs.get("block_size", 64),
            "n_random": theirs.get("num_random_blocks", 3),
            "n_heads": theirs.get("num_attention_heads", 12),
            "d_ff": theirs.get("intermediate_size", 3072),
            "prenorm": False,
            "activation": _activation(theirs),
            "norm_eps": theirs.get("layer_norm_eps", 1e-12),
            "dropout": theirs.get("hidden_dropout_prob", 0.1),
            "attn_dropout": theirs.get("attention_probs_dropout_prob", 0.1),
        },
        shape=Shape(
            d_model=theirs.get("hidden_size", 768),
            n_layers=theirs.get("num_hidden_layers", 12),
            mode="bidirectional",
            max_len=theirs.get("max_position_embeddings", 4096),
        ),
    )


def _activation(theirs: Mapping[str, Any]) -> str:
    """Ours for their hidden_act."""
    activation = theirs.get("hidden_act", "gelu_new")
    if activation not in ACTIVATIONS:
        raise ConfigError("hidden_act", f"{activation!r}: BigBird is offered with {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation]


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The embedding, and the head of the class that config.json names."""
    width = theirs.get("hidden_size", 768)
    return bert_outside(
        theirs,
        model="BigBird",
        base="bert.",
        vocab_size=50358,
        n_positions=4096,
        norm_eps=1e-12,
        activation=_activation(theirs),
        scale=width**0.5 if theirs.get("rescale_embeddings", False) else 1.0,
    )


def write(config: BigBirdConfig, shape: Shape) -> dict[str, Any]:
    """The keys that `read` reads."""
    _check(config, shape)
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "attention_type": "block_sparse",
        "use_bias": True,
        "block_size": config.block_size,
        "num_random_blocks": config.n_random,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff or 4 * shape.d_model,
        "hidden_act": activations[config.activation],
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attn_dropout,
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.n_layers,
        "max_position_embeddings": shape.max_len,
    }


def _check(config: BigBirdConfig, shape: Shape) -> None:
    """ConfigError for what transformers' BigBird is not."""
    wrong = {
        "prenorm": (config.prenorm, "its norms stand after the residual branches"),
        "bias": (not config.bias, "its projections have biases"),
        "n_random": (config.n_random == 0, "it has at least one random block"),
        "d_qkv": (config.d_qkv not in (0, shape.d_model), "its heads together are as wide as the model"),
        "mode": (shape.mode != "bidirectional", "its causal form is full attention"),
    }
    for key, (is_wrong, why) in wrong.items():
        if is_wrong:
            raise ConfigError(key, f"transformers' BigBird has no such form: {why}")


CONVERSION = Conversion(
    model_type="big_bird",
    prefix="bert.",
    read=read,
    write=write,
    weights=weights,
    outside=outside,
)
