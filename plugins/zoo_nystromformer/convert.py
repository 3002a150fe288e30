"""Weights of transformers' NystromformerModel. No torch here. Embeddings (with their norm) and heads stay outside.

transformers has landmarks at one length only, segment_means_seq_len, and exact attention at every length where that
equals num_landmarks (its default): here n_landmarks = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import ConfigError, Conversion, Outside, Reading, Shape, Weight, bert_outside
from zoo_nystromformer.config import NystromformerConfig

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu", "silu": "silu"}

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
"""Our modules of a block -> theirs of a layer; each has a weight and a bias."""


def layer_weights(config: NystromformerConfig, ours: str = "", theirs: str = "") -> tuple[Weight, ...]:
    """One block; the prefixes stand before our and their names."""
    found = [
        Weight(ours=f"{ours}{o}.{part}", theirs=f"{theirs}{t}.{part}")
        for o, t in LAYER.items()
        for part in ("weight", "bias")
    ]
    if config.conv_kernel:
        name = f"{theirs}attention.self.conv.weight"  # (H, 1, c, 1)
        heads, kernel = config.n_heads, config.conv_kernel
        found.append(
            Weight(ours=f"{ours}mixer.conv", theirs=name, shape=(heads, kernel), their_shape=(heads, 1, kernel, 1))
        )
    return tuple(found)


def weights(config: NystromformerConfig, shape: Shape) -> tuple[Weight, ...]:
    """Every parameter of the backbone."""
    return tuple(
        weight
        for n in range(shape.n_layers)
        for weight in layer_weights(config, f"stack.blocks.{n}.", f"encoder.layer.{n}.")
    )


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' NystromformerConfig."""
    activation = theirs.get("hidden_act", "gelu_new")
    if activation not in ACTIVATIONS:
        raise ConfigError("hidden_act", f"{activation!r}: Nyströmformer is offered with {', '.join(ACTIVATIONS)}")
    if theirs.get("inv_coeff_init_option", False):
        raise ConfigError("inv_coeff_init_option", "true: transformers itself cannot build this model; expected false")
    landmarks = theirs.get("num_landmarks", 64)
    seq_len = theirs.get("segment_means_seq_len", 64)
    exact = landmarks == seq_len
    return Reading(
        arch={
            "n_heads": theirs.get("num_attention_heads", 12),
            "n_landmarks": 0 if exact else landmarks,
            "d_ff": theirs.get("intermediate_size", 3072),
            # null: an older one without the convolution
            "conv_kernel": theirs.get("conv_kernel_size", 65) or 0,
            "pinv_init": "original",
            "padding": "blind",
            "prenorm": False,
            "activation": ACTIVATIONS[activation],
            "norm_eps": theirs.get("layer_norm_eps", 1e-5),
            "dropout": theirs.get("hidden_dropout_prob", 0.1),
        },
        shape=Shape(
            d_model=theirs.get("hidden_size", 768),
            n_layers=theirs.get("num_hidden_layers", 12),
            mode="bidirectional",
            max_len=theirs.get("max_position_embeddings", 510) if exact else seq_len,
        ),
    )


def write(config: NystromformerConfig, shape: Shape) -> dict[str, Any]:
    """What `read` reads. ConfigError for what transformers' model cannot be told."""
    for key, only in {"prenorm": False, "bias": True, "padding": "blind", "pinv_init": "original"}.items():
        if getattr(config, key) != only:
            raise ConfigError(key, f"{getattr(config, key)!r}: transformers' Nyströmformer has {only!r} only")
    if config.d_qkv not in (0, shape.d_model):
        raise ConfigError("d_qkv", f"{config.d_qkv}: in transformers the heads are as wide as d_model {shape.d_model}")
    if config.pinv_iterations != 6:
        raise ConfigError("pinv_iterations", f"{config.pinv_iterations}: transformers' Nyströmformer always takes 6")
    if not config.conv_kernel:
        raise ConfigError("conv_kernel", "0: transformers' Nyströmformer always has the convolution")
    if config.n_landmarks and shape.max_len % config.n_landmarks:
        message = f"{config.n_landmarks} does not divide max_len {shape.max_len}, as transformers' segments need"
        raise ConfigError("n_landmarks", message)
    return {
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff or 4 * shape.d_model,
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[config.activation],
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": shape.max_len,
        "num_landmarks": config.n_landmarks or 64,
        "segment_means_seq_len": shape.max_len if config.n_landmarks else 64,
        "conv_kernel_size": config.conv_kernel,
        "inv_coeff_init_option": False,
        "layer_norm_eps": config.norm_eps,
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
        activation=ACTIVATIONS[theirs.get("hidden_act", "gelu_new")],
        first_position=2,
        extra_positions=2,
    )


CONVERSION = Conversion(
    model_type="nystromformer", prefix="nystromformer.", read=read, write=write, weights=weights, outside=outside
)
