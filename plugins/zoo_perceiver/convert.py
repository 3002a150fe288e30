"""Conversion of transformers' Perceiver: PerceiverModel, ForMaskedLM and ForSequenceClassification."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from zoo import ModelDims
from zoo.convert import Conversion, HFConfig, Key, ModelParts, TokenEmbedding
from zoo_perceiver.config import PerceiverConfig
from zoo_perceiver.decoder import Decoder

ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
CROSS_SHAPE = Key("cross_attention_shape_for_attention", "kv", values={"kv": "kv", "q": "q"})
LAYER = {
    "attention.W_q": "attention.self.query",
    "attention.W_k": "attention.self.key",
    "attention.W_v": "attention.self.value",
    "attention.norm_q": "attention.self.layernorm1",
    "attention.norm_kv": "attention.self.layernorm2",
    "W_o": "attention.output.dense",
    "norm_mlp": "layernorm",
    "mlp.linear1": "mlp.dense1",
    "mlp.linear2": "mlp.dense2",
}
READOUT = ("final_norm", "to_output")
"""The end of our backbone, in place of which Perceiver IO has a decoder; their bare model returns its latents."""


def layer_weights(ours: str, theirs: str) -> dict[str, str]:
    """Make the key map of one attention layer."""
    return {f"{ours}.{name}": f"{theirs}.{key}" for name, key in LAYER.items()}


def import_channels(hf_config: HFConfig) -> dict[str, Any]:
    """Compute the width of the keys: by default that of their source ("kv", as here) or that of the queries ("q")."""
    default = hf_config["d_latents"] if CROSS_SHAPE.import_value(hf_config) == "q" else None
    return {"qk_channels": default if hf_config["qk_channels"] is None else hf_config["qk_channels"]}


def values_differ_from_latents(config: PerceiverConfig, dims: ModelDims) -> bool:
    """Return whether the values have another width than the latents."""
    d_latents = config.latent_width(dims)
    return (config.v_channels or config.qk_channels or d_latents) != d_latents


def text_model(
    hf_config: HFConfig, n_labels: int, weights: dict[str, str], *, tied: bool, theirs: str, width: int, **decoder: Any
) -> ModelParts:
    """Make the parts of a text model: an embedding, and as head a decoder of `width` and a linear map.

    theirs, weights  key of the decoder, and key map of the linear map
    tied             the linear map has the embedding's weight
    decoder          further arguments of Decoder
    """
    d_latents, n_positions = hf_config["d_latents"], hf_config["max_position_embeddings"]
    activation = ACTIVATIONS[hf_config["hidden_act"]]
    embedding = TokenEmbedding(hf_config["vocab_size"], hf_config["d_model"], n_positions=n_positions)
    head = OrderedDict(
        decoder=Decoder(d_query=width, v_channels=width, d_latents=d_latents, activation=activation, **decoder),
        linear=(linear := nn.Linear(width, n_labels)),
    )
    if tied:
        linear.weight = embedding.tokens.weight
    if decoder["n_queries"] == 1:
        head["flatten"] = nn.Flatten(0, 1)  # (B, 1, n_labels) -> (B, n_labels)
    weights |= layer_weights("head.decoder.layer", f"{theirs}.decoding_cross_attention") | {
        "embed.tokens": "perceiver.input_preprocessor.embeddings",
        "embed.positions": "perceiver.input_preprocessor.position_embeddings",
        "head.decoder.queries": f"{theirs}.output_position_encodings.position_embeddings",
    }
    return ModelParts(embedding=embedding, head=nn.Sequential(head), weights=weights, removed=READOUT)


def masked_lm(hf_config: HFConfig) -> ModelParts:
    """Make PerceiverForMaskedLM: one query per position. Its heads and qk_channels do not depend on config.json."""
    return text_model(
        hf_config,
        hf_config["vocab_size"],
        {"head.linear": "embedding_decoder"},
        tied=True,
        theirs="perceiver.decoder",
        width=hf_config["d_model"],
        n_queries=hf_config["max_position_embeddings"],
        n_heads=8,
        qk_channels=256,
        query_residual=False,
    )


def classifier(hf_config: HFConfig) -> ModelParts:
    """Make PerceiverForSequenceClassification: one query."""
    return text_model(
        hf_config,
        len(hf_config["id2label"]),
        {"head.linear": "perceiver.decoder.decoder.final_layer"},
        tied=False,
        theirs="perceiver.decoder.decoder",
        width=hf_config["d_latents"],
        n_queries=1,
        n_heads=1,
        qk_channels=hf_config["d_latents"],
        query_residual=True,
    )


CONVERSION = Conversion(
    model_type="perceiver",
    prefix="perceiver.",
    config={
        "d_model": Key("d_model", 768),
        "n_layers": Key("num_self_attends_per_block", 26),
        "max_len": Key("max_position_embeddings", 2048),
        "n_latents": Key("num_latents", 256),
        "n_heads": Key("num_self_attention_heads", 8),
        "n_cross_heads": Key("num_cross_attention_heads", 8),
        "n_blocks": Key("num_blocks", 1),
        "widening": Key("self_attention_widening_factor", 1),
        "cross_widening": Key("cross_attention_widening_factor", 1),
        "d_latents": Key("d_latents", 1280, write=lambda config, dims: config.latent_width(dims)),
        "qk_channels": Key("qk_channels"),
        "v_channels": Key("v_channels"),
        "query_residual": Key("use_query_residual", True),
        "activation": Key(
            "hidden_act", "gelu", values=ACTIVATIONS, write=lambda config, _: config.activation or "gelu"
        ),
    },
    fixed={"mode": "bidirectional"},
    unsupported={"v_channels": (values_differ_from_latents, "its values are as wide as the latents")},
    defaults={"vocab_size": 262},
    import_extra=import_channels,
    export_extra=lambda config, dims: {CROSS_SHAPE.name: "kv"},
    weights={
        "core.latents": "perceiver.embeddings.latents",
        **layer_weights("core.cross", "perceiver.encoder.cross_attention"),
        **layer_weights("core.layers.{layer}", "perceiver.encoder.self_attends.{layer}"),
    },
    models={
        "PerceiverForMaskedLM": masked_lm,
        "PerceiverForSequenceClassification": classifier,
        "PerceiverModel": lambda hf_config: ModelParts(removed=READOUT),
    },
)
