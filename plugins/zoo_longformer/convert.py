"""Conversion of transformers' Longformer: LongformerModel, ForMaskedLM and ForSequenceClassification.

Our backbone makes the first token global, and so does their classifier; their masked language model needs a
global_attention_mask for the same logits.
"""

from __future__ import annotations

from typing import Any

from zoo import ModelDims
from zoo.convert import BERT_FIXED, BERT_UNSUPPORTED, Conversion, HFConfig, Key, bert_config, bert_models, bert_weights
from zoo_longformer.config import LongformerConfig

PAD_TOKEN_ID = 1


def first_position(hf_config: HFConfig) -> int:
    """Compute the first token's row in the position table; the rows up to pad_token_id are reserved."""
    return int(hf_config["pad_token_id"]) + 1


def import_max_len(hf_config: HFConfig) -> dict[str, Any]:
    """Read the longest input for which there are positions."""
    return {"n_global": 1, "max_len": hf_config["max_position_embeddings"] - first_position(hf_config)}


def export_max_len(config: LongformerConfig, dims: ModelDims) -> dict[str, Any]:
    """Write the size of the position table."""
    return {"pad_token_id": PAD_TOKEN_ID, "max_position_embeddings": dims.max_len + PAD_TOKEN_ID + 1}


CONVERSION = Conversion(
    model_type="longformer",
    prefix="longformer.",
    config=bert_config(hidden_act="gelu", layer_norm_eps=1e-12)
    | {
        "window": Key(
            "attention_window",
            512,
            read=lambda window: [window] if isinstance(window, int) else list(window),
            write=lambda config, dims: config.window if len(config.window) > 1 else config.window * dims.n_layers,
        ),
        "attn_dropout": Key("attention_probs_dropout_prob", 0.1),
    },
    fixed=BERT_FIXED | {"counts_self": False},
    unsupported=BERT_UNSUPPORTED
    | {
        "dilation": (lambda config, dims: max(config.dilation) > 1, "its windows are not dilated"),
        "n_global": (lambda config, dims: not config.globals_in(dims.mode), "it has projections for global tokens"),
    },
    defaults={"vocab_size": 30522, "max_position_embeddings": 512, "pad_token_id": PAD_TOKEN_ID},
    import_extra=import_max_len,
    export_extra=export_max_len,
    weights=bert_weights(
        "longformer.",
        layer={
            "mixer.q_global": "attention.self.query_global",
            "mixer.k_global": "attention.self.key_global",
            "mixer.v_global": "attention.self.value_global",
        },
    ),
    models=bert_models(
        "Longformer",
        "longformer.",
        embedding=lambda hf: {"first_position": first_position(hf)},
        lm="lm_head",
        lm_dense="lm_head.dense",
        lm_norm="lm_head.layer_norm",
        lm_activation="gelu",
        classifier_activation="tanh",
    ),
)
