"""Weights of transformers' Perceiver (PerceiverModel, ForMaskedLM, ForSequenceClassification). No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import (
    ConfigError,
    Conversion,
    Embedding,
    Head,
    HeadLayer,
    HeadModule,
    ModelDims,
    Outside,
    Reading,
    Weight,
    model_class,
)
from zoo_perceiver.config import PerceiverConfig

ATTENTION = {"W_q": "query", "W_k": "key", "W_v": "value", "norm_q": "layernorm1"}
LAYER = {f"attention.{ours}": f"attention.self.{theirs}" for ours, theirs in ATTENTION.items()} | {
    "W_o": "attention.output.dense",
    "norm_mlp": "layernorm",
    "mlp.linear1": "mlp.dense1",
    "mlp.linear2": "mlp.dense2",
}
"""Our names within a self-attention layer -> theirs."""
CROSS = LAYER | {"attention.norm_kv": "attention.self.layernorm2"}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
READOUT = ("final_norm", "to_output")
"""Our backbone's end, in whose place Perceiver IO has a decoder; a bare model gives its latents."""
MLM_HEADS, MLM_QK_CHANNELS = 8, 256
"""Of the decoder of PerceiverForMaskedLM, whatever its configuration says."""


def layer(ours: str, theirs: str, names: Mapping[str, str]) -> list[Weight]:
    """The tensors of one layer."""
    return [
        Weight(ours=f"{ours}.{o}.{kind}", theirs=f"{theirs}.{t}.{kind}")
        for o, t in names.items()
        for kind in ("weight", "bias")
    ]


def weights(config: PerceiverConfig, dims: ModelDims) -> tuple[Weight, ...]:
    """Every parameter of the backbone but its readout's."""
    found = [Weight(ours="core.latents", theirs="embeddings.latents")]
    found += layer("core.cross", "encoder.cross_attention", CROSS)
    for n in range(dims.n_layers):
        found += layer(f"core.layers.{n}", f"encoder.self_attends.{n}", LAYER)
    return tuple(found)


def _widths(theirs: Mapping[str, Any]) -> tuple[int, int]:
    return theirs.get("d_model", 768), theirs.get("d_latents", 1280)


def _activation(theirs: Mapping[str, Any]) -> str:
    name = theirs.get("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise ConfigError("hidden_act", f"{name!r}: the Perceiver is offered with {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' PerceiverConfig."""
    d_model, d_latents = _widths(theirs)
    qk_channels = theirs.get("qk_channels")
    # where nothing else is said, they make keys as wide as the keys' source ("kv", as here) or the queries' ("q")
    basis = theirs.get("cross_attention_shape_for_attention", "kv")
    if basis not in ("kv", "q"):
        raise ConfigError("cross_attention_shape_for_attention", f"{basis!r}: expected 'kv' or 'q'")
    if qk_channels is None and basis == "q":
        qk_channels = d_latents
    return Reading(
        arch={
            "n_latents": theirs.get("num_latents", 256),
            "n_heads": theirs.get("num_self_attention_heads", 8),
            "n_cross_heads": theirs.get("num_cross_attention_heads", 8),
            "n_blocks": theirs.get("num_blocks", 1),
            "widening": theirs.get("self_attention_widening_factor", 1),
            "cross_widening": theirs.get("cross_attention_widening_factor", 1),
            "d_latents": d_latents,
            "qk_channels": qk_channels,
            "v_channels": theirs.get("v_channels"),
            "query_residual": theirs.get("use_query_residual", True),
            "activation": _activation(theirs),
        },
        dims=ModelDims(
            d_model=d_model,
            n_layers=theirs.get("num_self_attends_per_block", 26),
            mode="bidirectional",
            max_len=theirs.get("max_position_embeddings", 2048),
        ),
    )


def write(config: PerceiverConfig, dims: ModelDims) -> dict[str, Any]:
    """The keys that `read` reads."""
    d_latents = config.latent_width(dims)
    activation = config.activation or "gelu"
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    if dims.mode != "bidirectional":
        raise ConfigError("mode", f"{dims.mode!r}: transformers' Perceiver is bidirectional")
    if activation not in theirs:
        raise ConfigError("activation", f"{activation!r}: transformers' Perceiver has {', '.join(theirs)}")
    values = config.v_channels or config.qk_channels or d_latents
    if values != d_latents:
        raise ConfigError("v_channels", f"{values}: transformers' values are as wide as the latents, {d_latents}")
    return {
        "d_model": dims.d_model,
        "d_latents": d_latents,
        "num_latents": config.n_latents,
        "num_blocks": config.n_blocks,
        "num_self_attends_per_block": dims.n_layers,
        "num_self_attention_heads": config.n_heads,
        "num_cross_attention_heads": config.n_cross_heads,
        "qk_channels": config.qk_channels,
        "v_channels": config.v_channels,
        "cross_attention_shape_for_attention": "kv",
        "self_attention_widening_factor": config.widening,
        "cross_attention_widening_factor": config.cross_widening,
        "use_query_residual": config.query_residual,
        "hidden_act": theirs[activation],
        "max_position_embeddings": dims.max_len,
    }


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The text embedding, and Perceiver IO's decoder as the class of model has it. A bare model takes vectors."""
    kind = model_class(theirs, ("PerceiverForMaskedLM", "PerceiverForSequenceClassification", "PerceiverModel"))
    if kind == "PerceiverModel":
        return Outside(bare=True, without=READOUT)
    (d_model, d_latents), vocab_size = _widths(theirs), theirs.get("vocab_size", 262)
    n_positions = theirs.get("max_position_embeddings", 2048)
    embedding = Embedding(
        vocab_size=vocab_size,
        tokens="input_preprocessor.embeddings.weight",
        positions="input_preprocessor.position_embeddings.weight",
        n_positions=n_positions,
    )
    if kind == "PerceiverForMaskedLM":
        settings = {
            "n_queries": n_positions,
            "d_query": d_model,
            "n_heads": MLM_HEADS,
            "qk_channels": MLM_QK_CHANNELS,
            "v_channels": d_model,
            "query_residual": False,
        }
        where = "perceiver.decoder"
        last = HeadLayer(kind="linear", bias="embedding_decoder.bias", d_out=vocab_size)
    else:
        settings = {
            "n_queries": 1,
            "d_query": d_latents,
            "n_heads": 1,
            "qk_channels": d_latents,
            "v_channels": d_latents,
            "query_residual": True,
        }
        where = "perceiver.decoder.decoder"
        final = f"{where}.final_layer"
        n_labels = len(theirs.get("id2label", "01"))
        last = HeadLayer(kind="linear", weight=f"{final}.weight", bias=f"{final}.bias", d_out=n_labels)
    queries = Weight(ours="queries", theirs=f"{where}.output_position_encodings.position_embeddings")
    module = HeadModule(
        settings=settings | {"d_latents": d_latents, "activation": _activation(theirs)},
        d_out=settings["d_query"],
        weights=(queries, *layer("layer", f"{where}.decoding_cross_attention", CROSS)),
    )
    head = Head(layers=(last,), first=kind == "PerceiverForSequenceClassification", module=module)
    return Outside(embedding=embedding, head=head, without=READOUT)


CONVERSION = Conversion(
    model_type="perceiver",
    prefix="perceiver.",
    read=read,
    write=write,
    weights=weights,
    outside=outside,
    head_module="zoo_perceiver.decoder:Decoder",
)
