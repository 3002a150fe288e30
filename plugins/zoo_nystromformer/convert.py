"""Conversion of transformers' Nyströmformer: NystromformerModel, ForMaskedLM and ForSequenceClassification.

transformers has landmarks at one length only, segment_means_seq_len, and exact attention at every length where that
equals num_landmarks (its default): here n_landmarks = 0.
"""

from __future__ import annotations

from typing import Any

from zoo import ModelDims
from zoo.convert import (
    BERT_FIXED,
    BERT_UNSUPPORTED,
    Conversion,
    HFConfig,
    HFTensor,
    Key,
    bert_config,
    bert_models,
    bert_weights,
)
from zoo_nystromformer.config import NystromformerConfig


def import_landmarks(hf_config: HFConfig) -> dict[str, Any]:
    """Read the number of landmarks, and the length that they are defined for."""
    landmarks, seq_len = hf_config["num_landmarks"], hf_config["segment_means_seq_len"]
    exact = landmarks == seq_len
    return {
        "n_landmarks": 0 if exact else landmarks,
        "max_len": hf_config["max_position_embeddings"] if exact else seq_len,
    }


def export_landmarks(config: NystromformerConfig, dims: ModelDims) -> dict[str, Any]:
    """Write the keys that `import_landmarks` reads."""
    return {
        "num_landmarks": config.n_landmarks or 64,
        "segment_means_seq_len": dims.max_len if config.n_landmarks else 64,
        "max_position_embeddings": dims.max_len,
        "attention_probs_dropout_prob": 0.0,
    }


CONVERSION = Conversion(
    model_type="nystromformer",
    prefix="nystromformer.",
    config=bert_config(hidden_act="gelu_new", layer_norm_eps=1e-5)
    # null: an old checkpoint without the convolution
    | {"conv_kernel": Key("conv_kernel_size", 65, read=lambda kernel: kernel or 0)},
    fixed=BERT_FIXED | {"padding": "blind", "pinv_init": "original", "pinv_iterations": 6},
    # transformers itself cannot build a model with the other value
    requires={"inv_coeff_init_option": False},
    unsupported=BERT_UNSUPPORTED
    | {
        "conv_kernel": (lambda config, dims: not config.conv_kernel, "it always has the convolution"),
        "n_landmarks": (
            lambda config, dims: config.n_landmarks > 0 and dims.max_len % config.n_landmarks > 0,
            "they divide max_len into segments of equal length",
        ),
    },
    defaults={
        "vocab_size": 30000,
        "num_landmarks": 64,
        "segment_means_seq_len": 64,
        "max_position_embeddings": 510,
    },
    import_extra=import_landmarks,
    export_extra=export_landmarks,
    weights=bert_weights(
        "nystromformer.", layer={"mixer.conv": HFTensor("attention.self.conv.weight", squeeze=(1, 3))}
    ),
    models=bert_models(
        "Nystromformer",
        "nystromformer.",
        # the first two rows of the position table are reserved
        embedding=lambda hf: {"first_position": 2, "n_positions": hf["max_position_embeddings"] + 2},
    ),
)
