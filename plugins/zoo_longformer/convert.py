"""Weights of transformers' Longformer (LongformerModel). No torch here.

Embeddings and heads stand around the backbone (`outside`); the pooler belongs to no head that is offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import ConfigError, Conversion, Outside, Reading, Shape, Weight, bert_outside
from zoo_longformer.config import LongformerConfig

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
PROJECTIONS = {"q": "query", "k": "key", "v": "value"}
LAYER = {
    **{f"mixer.{ours}": f"attention.self.{theirs}" for ours, theirs in PROJECTIONS.items()},
    **{f"mixer.{ours}_global": f"attention.self.{theirs}_global" for ours, theirs in PROJECTIONS.items()},
    "mixer.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.linear1": "intermediate.dense",
    "mlp.linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Our names of one block -> theirs of one layer; each has a weight and a bias."""


def weights(config: LongformerConfig, shape: Shape) -> tuple[Weight, ...]:
    """Every parameter of the backbone."""
    _check(config, shape)
    return tuple(
        Weight(ours=f"stack.blocks.{n}.{ours}.{kind}", theirs=f"encoder.layer.{n}.{theirs}.{kind}")
        for n in range(shape.n_layers)
        for ours, theirs in LAYER.items()
        for kind in ("weight", "bias")
    )


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' LongformerConfig."""
    activation = theirs.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ConfigError("hidden_act", f"{activation!r}: Longformer is offered with {', '.join(ACTIVATIONS)}")
    window = theirs.get("attention_window", 512)
    return Reading(
        arch={
            "window": [window] if isinstance(window, int) else list(window),
            "n_global": 1,
            "n_heads": theirs.get("num_attention_heads", 12),
            "d_ff": theirs.get("intermediate_size", 3072),
            "prenorm": False,
            "activation": ACTIVATIONS[activation],
            "norm_eps": theirs.get("layer_norm_eps", 1e-12),
            "dropout": theirs.get("hidden_dropout_prob", 0.1),
            "attn_dropout": theirs.get("attention_probs_dropout_prob", 0.1),
        },
        shape=Shape(
            d_model=theirs.get("hidden_size", 768),
            n_layers=theirs.get("num_hidden_layers", 12),
            mode="bidirectional",
            max_len=theirs.get("max_position_embeddings", 512) - _reserved(theirs),
        ),
    )


def _reserved(theirs: Mapping[str, Any]) -> int:
    """Rows of the table of positions before that of the first token: that of pads, and those below it."""
    return int(theirs.get("pad_token_id", 1)) + 1


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The embedding, and the head of the class that config.json names. Their masked language model has no global
    token of its own: give it a global_attention_mask of the first token to see the same numbers."""
    return bert_outside(
        theirs,
        model="Longformer",
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


def write(config: LongformerConfig, shape: Shape) -> dict[str, Any]:
    """The keys that `read` reads."""
    _check(config, shape)
    windows = config.window if len(config.window) > 1 else config.window * shape.n_layers
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "attention_window": list(windows),
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff or 4 * shape.d_model,
        "hidden_act": activations[config.activation],
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attn_dropout,
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.n_layers,
        "pad_token_id": 1,
        "max_position_embeddings": shape.max_len + 2,
    }


def _check(config: LongformerConfig, shape: Shape) -> None:
    """ConfigError for what transformers' Longformer is not."""
    wrong = {
        "prenorm": (config.prenorm, "its norms stand after the residual branches"),
        "counts_self": (config.counts_self, "its window has as many keys on both sides"),
        "dilation": (max(config.dilation) > 1, "it has no dilation"),
        "bias": (not config.bias, "its projections have biases"),
        "n_global": (not config.globals_in(shape.mode), "it has global projections"),
        "d_qkv": (config.d_qkv not in (0, shape.d_model), "its heads together are as wide as the model"),
        "mode": (shape.mode != "bidirectional", "it is bidirectional"),
    }
    for key, (is_wrong, why) in wrong.items():
        if is_wrong:
            raise ConfigError(key, f"transformers' Longformer has no such form: {why}")


CONVERSION = Conversion(
    model_type="longformer",
    prefix="longformer.",
    read=read,
    write=write,
    weights=weights,
    outside=outside,
)
