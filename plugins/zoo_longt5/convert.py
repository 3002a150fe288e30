"""Weights of transformers' LongT5 (LongT5Model, LongT5EncoderModel). No torch here.

The first layers of their stacks own the bias tables that all layers read; here the stack owns them. Embeddings and
head stay outside: they belong to the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import ConfigError, Conversion, Embedding, Head, HeadLayer, ModelDims, Outside, Reading, Weight, model_class
from zoo_longt5.config import LongT5Config

ATTENTION = {"transient_global": "TransientGlobalSelfAttention", "local": "LocalSelfAttention"}
KINDS = {"transient-global": "transient_global", "local": "local"}
FFN = {"gated-gelu": "gated_gelu", "relu": "relu"}
DEFAULT_MAX_LEN = 4096
"""n_positions of the published checkpoints; relative positions do not run out."""


def encoder_layer(config: LongT5Config) -> dict[str, str]:
    """Our names of one encoder layer -> theirs."""
    attention = f"layer.0.{ATTENTION[config.attention]}"
    names = {f"attention.{w}.weight": f"{attention}.{w}.weight" for w in "qkvo"}
    if config.attention == "transient_global":
        names["attention.global_norm.weight"] = f"{attention}.global_input_layer_norm.weight"
    norms = {f"norm{i + 1}.weight": f"layer.{i}.layer_norm.weight" for i in range(2)}
    return names | norms | _ffn(config, "layer.1")


def encoder_biases(config: LongT5Config) -> dict[str, str]:
    """Our names of the encoder's bias tables -> theirs, within their first layer."""
    attention = f"layer.0.{ATTENTION[config.attention]}"
    names = {"bias.table": f"{attention}.relative_attention_bias.weight"}
    if config.attention == "transient_global":
        names["global_bias.table"] = f"{attention}.global_relative_attention_bias.weight"
    return names


def decoder_layer(config: LongT5Config) -> dict[str, str]:
    """Our names of one decoder layer -> theirs."""
    names = {f"self_attention.{w}.weight": f"layer.0.SelfAttention.{w}.weight" for w in "qkvo"}
    names |= {f"cross_attention.{w}.weight": f"layer.1.EncDecAttention.{w}.weight" for w in "qkvo"}
    norms = {f"norm{i + 1}.weight": f"layer.{i}.layer_norm.weight" for i in range(3)}
    return names | norms | _ffn(config, "layer.2")


def _ffn(config: LongT5Config, layer: str) -> dict[str, str]:
    matrices = ("wi_0", "wi_1", "wo") if config.ffn == "gated_gelu" else ("wi", "wo")
    return {f"ffn.{w}.weight": f"{layer}.DenseReluDense.{w}.weight" for w in matrices}


def weights(config: LongT5Config, dims: ModelDims) -> tuple[Weight, ...]:
    """Every parameter of the backbone."""
    stacks = [("encoder", dims.n_layers, encoder_layer(config), encoder_biases(config))]
    if dims.mode == "seq2seq":
        bias = {"bias.table": "layer.0.SelfAttention.relative_attention_bias.weight"}
        stacks.append(("decoder", config.n_decoder_layers or dims.n_layers, decoder_layer(config), bias))
    names: dict[str, str] = {}
    for stack, n_layers, layer, biases in stacks:
        names |= {f"{stack}.{ours}": f"{stack}.block.0.{theirs}" for ours, theirs in biases.items()}
        for n in range(n_layers):
            names |= {f"{stack}.layers.{n}.{o}": f"{stack}.block.{n}.{t}" for o, t in layer.items()}
        names[f"{stack}.final_norm.weight"] = f"{stack}.final_layer_norm.weight"
    return tuple(Weight(ours=ours, theirs=theirs) for ours, theirs in names.items())


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' LongT5Config."""

    def choice(key: str, default: str, allowed: Mapping[str, str]) -> str:
        value = theirs.get(key, default)
        if value not in allowed:
            raise ConfigError(key, f"{value!r}: LongT5 is offered with {', '.join(allowed)}")
        return allowed[value]

    encoder_only = theirs.get("architectures") == ["LongT5EncoderModel"]
    n_layers = theirs.get("num_layers", 6)
    return Reading(
        arch={
            "n_heads": theirs.get("num_heads", 8),
            "d_kv": theirs.get("d_kv", 64),
            "d_ff": theirs.get("d_ff", 2048),
            "attention": choice("encoder_attention_type", "local", KINDS),
            "local_radius": theirs.get("local_radius", 127),
            "global_block": theirs.get("global_block_size", 16),
            "n_buckets": theirs.get("relative_attention_num_buckets", 32),
            "max_distance": theirs.get("relative_attention_max_distance", 128),
            "ffn": choice("feed_forward_proj", "relu", FFN),
            "n_decoder_layers": 0 if encoder_only else theirs.get("num_decoder_layers") or n_layers,
            "norm_eps": theirs.get("layer_norm_epsilon", 1e-6),
            "dropout": theirs.get("dropout_rate", 0.1),
        },
        dims=ModelDims(
            d_model=theirs.get("d_model", 512),
            n_layers=n_layers,
            mode="bidirectional" if encoder_only else "seq2seq",
            max_len=theirs.get("n_positions", DEFAULT_MAX_LEN),
        ),
    )


def write(config: LongT5Config, dims: ModelDims) -> dict[str, Any]:
    """What `read` reads."""
    encoder_only = dims.mode != "seq2seq"
    return {
        "architectures": ["LongT5EncoderModel" if encoder_only else "LongT5Model"],
        "d_model": dims.d_model,
        "d_kv": config.head_width(dims.d_model),
        "d_ff": config.ffn_width(dims.d_model),
        "num_heads": config.n_heads,
        "num_layers": dims.n_layers,
        "num_decoder_layers": config.n_decoder_layers or dims.n_layers,
        "encoder_attention_type": {ours: theirs for theirs, ours in KINDS.items()}[config.attention],
        "local_radius": config.local_radius,
        "global_block_size": config.global_block,
        "relative_attention_num_buckets": config.n_buckets,
        "relative_attention_max_distance": config.max_distance,
        "feed_forward_proj": {ours: theirs for theirs, ours in FFN.items()}[config.ffn],
        "layer_norm_epsilon": config.norm_eps,
        "dropout_rate": config.dropout,
        "n_positions": dims.max_len,
        "is_encoder_decoder": not encoder_only,
    }


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The embedding that encoder and decoder share, and the language model's head."""
    kind = model_class(theirs, ("LongT5ForConditionalGeneration", "LongT5Model", "LongT5EncoderModel"))
    vocab_size, d_model = theirs.get("vocab_size", 32128), theirs.get("d_model", 512)
    embedding = Embedding(vocab_size=vocab_size, tokens="shared.weight")
    aliases = {f"{stack}.embed_tokens.weight": "shared.weight" for stack in ("encoder", "decoder")}
    if kind != "LongT5ForConditionalGeneration":
        return Outside(embedding=embedding, bare=True, aliases=aliases)
    tied = theirs.get("tie_word_embeddings", True)
    scaled = theirs.get("scale_decoder_outputs", tied)
    head = Head(
        layers=(HeadLayer(kind="linear", weight="" if tied else "lm_head.weight", d_out=vocab_size),),
        scale=d_model**-0.5 if scaled else 1.0,
    )
    return Outside(
        embedding=embedding, head=head, aliases=aliases | ({"lm_head.weight": "shared.weight"} if tied else {})
    )


CONVERSION = Conversion(model_type="longt5", prefix="", read=read, write=write, weights=weights, outside=outside)
