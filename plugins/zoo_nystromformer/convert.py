"""Weights of transformers' NystromformerModel. No torch here. Embeddings (with their norm) and heads stay outside.

transformers has landmarks at one length only, segment_means_seq_len, and exact attention at every length where that
equals num_landmarks (its default): here n_landmarks = 0.
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
from zoo_nystromformer.config import NystromformerConfig

TITLE = "Nyströmformer"


def layer_weights(config: NystromformerConfig, ours: str = "", theirs: str = "") -> tuple[Weight, ...]:
    """One block; the prefixes stand before our and their names."""
    if not config.conv_kernel:
        return bert_layer(ours, theirs)
    name = f"{theirs}attention.self.conv.weight"  # (H, 1, c, 1)
    heads, kernel = config.n_heads, config.conv_kernel
    conv = Weight(ours=f"{ours}mixer.conv", theirs=name, shape=(heads, kernel), their_shape=(heads, 1, kernel, 1))
    return (*bert_layer(ours, theirs), conv)


def weights(config: NystromformerConfig, dims: ModelDims) -> tuple[Weight, ...]:
    """Every parameter of the backbone."""
    return tuple(
        weight
        for n in range(dims.n_layers)
        for weight in layer_weights(config, f"stack.blocks.{n}.", f"encoder.layer.{n}.")
    )


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' NystromformerConfig."""
    if theirs.get("inv_coeff_init_option", False):
        raise ConfigError("inv_coeff_init_option", "true: transformers itself cannot build this model; expected false")
    landmarks = theirs.get("num_landmarks", 64)
    seq_len = theirs.get("segment_means_seq_len", 64)
    exact = landmarks == seq_len
    return Reading(
        arch={
            "n_landmarks": 0 if exact else landmarks,
            # null: an older one without the convolution
            "conv_kernel": theirs.get("conv_kernel_size", 65) or 0,
            "pinv_init": "original",
            "padding": "blind",
        }
        | bert_arch(theirs, title=TITLE, activation="gelu_new", norm_eps=1e-5),
        dims=bert_shape(theirs, max_len=theirs.get("max_position_embeddings", 510) if exact else seq_len),
    )


def write(config: NystromformerConfig, dims: ModelDims) -> dict[str, Any]:
    """What `read` reads. ConfigError for what transformers' model cannot be told."""
    wrong = {
        "padding": (config.padding != "blind", "it has 'blind' only"),
        "pinv_init": (config.pinv_init != "original", "it has 'original' only"),
        "pinv_iterations": (config.pinv_iterations != 6, "it always takes 6"),
        "conv_kernel": (not config.conv_kernel, "it always has the convolution"),
    }
    bert_check(config, dims, title=TITLE, wrong=wrong)
    if config.n_landmarks and dims.max_len % config.n_landmarks:
        message = f"{config.n_landmarks} does not divide max_len {dims.max_len}, as transformers' segments need"
        raise ConfigError("n_landmarks", message)
    return bert_keys(config, dims) | {
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": dims.max_len,
        "num_landmarks": config.n_landmarks or 64,
        "segment_means_seq_len": dims.max_len if config.n_landmarks else 64,
        "conv_kernel_size": config.conv_kernel,
        "inv_coeff_init_option": False,
    }


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The embedding, whose positions begin at row 2, and the head of the class that config.json names."""
    return bert_outside(
        theirs,
        model="Nystromformer",
        base="nystromformer.",
        vocab_size=30000,
        n_positions=510,
        norm_eps=1e-5,
        activation=bert_activation(theirs, title=TITLE, default="gelu_new"),
        first_position=2,
        extra_positions=2,
    )


CONVERSION = Conversion(
    model_type="nystromformer", prefix="nystromformer.", read=read, write=write, weights=weights, outside=outside
)
