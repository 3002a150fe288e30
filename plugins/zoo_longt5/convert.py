"""Conversion of transformers' LongT5: LongT5Model, LongT5EncoderModel and LongT5ForConditionalGeneration.

In transformers the first layer of a stack owns the bias tables that all its layers read; here the stack owns them.
"""

from __future__ import annotations

from typing import Any

from zoo import ModelDims
from zoo.convert import Conversion, HFConfig, Key, language_model
from zoo_longt5.config import LongT5Config

ATTENTION = {"transient-global": "transient_global", "local": "local"}
FFN = {"gated-gelu": "gated_gelu", "relu": "relu"}
ENCODER_ONLY = "LongT5EncoderModel"
SHARED = {"encoder.embed_tokens.weight": "shared.weight", "decoder.embed_tokens.weight": "shared.weight"}
"""Encoder and decoder share the embedding."""


def key_map(config: LongT5Config) -> dict[str, str]:
    """Make the backbone's key map; the name of the encoder's attention depends on its kind."""
    name = {"transient_global": "TransientGlobalSelfAttention", "local": "LocalSelfAttention"}[config.attention]
    encoder, decoder = "encoder.block.{layer}.layer", "decoder.block.{layer}.layer"
    first, bias = f"encoder.block.0.layer.0.{name}", "relative_attention_bias.weight"
    return {
        "encoder.bias.table": f"{first}.{bias}",
        "encoder.global_bias.table": f"{first}.global_{bias}",
        "encoder.layers.{layer}.norm1": f"{encoder}.0.layer_norm",
        "encoder.layers.{layer}.attention": f"{encoder}.0.{name}",
        "encoder.layers.{layer}.attention.out": f"{encoder}.0.{name}.o",
        "encoder.layers.{layer}.attention.global_norm": f"{encoder}.0.{name}.global_input_layer_norm",
        "encoder.layers.{layer}.norm2": f"{encoder}.1.layer_norm",
        "encoder.layers.{layer}.ffn": f"{encoder}.1.DenseReluDense",
        "encoder.final_norm": "encoder.final_layer_norm",
        "decoder.bias.table": f"decoder.block.0.layer.0.SelfAttention.{bias}",
        "decoder.layers.{layer}.norm1": f"{decoder}.0.layer_norm",
        "decoder.layers.{layer}.self_attention": f"{decoder}.0.SelfAttention",
        "decoder.layers.{layer}.self_attention.out": f"{decoder}.0.SelfAttention.o",
        "decoder.layers.{layer}.norm2": f"{decoder}.1.layer_norm",
        "decoder.layers.{layer}.cross_attention": f"{decoder}.1.EncDecAttention",
        "decoder.layers.{layer}.cross_attention.out": f"{decoder}.1.EncDecAttention.o",
        "decoder.layers.{layer}.norm3": f"{decoder}.2.layer_norm",
        "decoder.layers.{layer}.ffn": f"{decoder}.2.DenseReluDense",
        "decoder.final_norm": "decoder.final_layer_norm",
    }


def import_decoder(hf_config: HFConfig) -> dict[str, Any]:
    """Read whether there is a decoder, and its depth."""
    if hf_config.get("architectures") == [ENCODER_ONLY]:
        return {"mode": "bidirectional", "n_decoder_layers": 0}
    return {"mode": "seq2seq", "n_decoder_layers": hf_config["num_decoder_layers"] or hf_config["num_layers"]}


def export_decoder(config: LongT5Config, dims: ModelDims) -> dict[str, Any]:
    """Write the keys that `import_decoder` reads."""
    encoder_only = dims.mode != "seq2seq"
    return {
        "architectures": [ENCODER_ONLY if encoder_only else "LongT5Model"],
        "num_decoder_layers": config.n_decoder_layers or dims.n_layers,
        "is_encoder_decoder": not encoder_only,
    }


def head_scale(hf_config: HFConfig) -> float:
    """Compute the factor of the hidden vectors, d_model^-1/2 in front of a tied head."""
    scaled = hf_config.get("scale_decoder_outputs", hf_config["tie_word_embeddings"])
    return hf_config["d_model"] ** -0.5 if scaled else 1.0


CONVERSION = Conversion(
    model_type="longt5",
    prefix="",
    config={
        "d_model": Key("d_model", 512),
        "n_layers": Key("num_layers", 6),
        # n_positions of the published checkpoints; relative positions do not run out
        "max_len": Key("n_positions", 4096),
        "n_heads": Key("num_heads", 8),
        "d_kv": Key("d_kv", 64, write=lambda config, dims: config.head_width(dims.d_model)),
        "d_ff": Key("d_ff", 2048, write=lambda config, dims: config.ffn_width(dims.d_model)),
        "attention": Key("encoder_attention_type", "local", values=ATTENTION),
        "local_radius": Key("local_radius", 127),
        "global_block": Key("global_block_size", 16),
        "n_buckets": Key("relative_attention_num_buckets", 32),
        "max_distance": Key("relative_attention_max_distance", 128),
        "ffn": Key("feed_forward_proj", "relu", values=FFN),
        "norm_eps": Key("layer_norm_epsilon", 1e-6),
        "dropout": Key("dropout_rate", 0.1),
    },
    defaults={"vocab_size": 32128, "num_decoder_layers": None},
    import_extra=import_decoder,
    export_extra=export_decoder,
    weights=key_map,
    models={
        "LongT5ForConditionalGeneration": language_model(
            "shared", d_model="d_model", lm_head="lm_head", scale=head_scale, aliases=SHARED
        ),
        "LongT5Model": language_model("shared", d_model="d_model", aliases=SHARED),
        ENCODER_ONLY: language_model("shared", d_model="d_model", aliases=SHARED),
    },
)
