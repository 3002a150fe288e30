"""Conversion of transformers' BigBird: BigBirdModel, ForMaskedLM, ForPreTraining and ForSequenceClassification."""

from __future__ import annotations

from typing import Any

from zoo import ModelDims
from zoo.convert import BERT_FIXED, BERT_UNSUPPORTED, Conversion, HFConfig, Key, bert_config, bert_models, bert_weights
from zoo_bigbird.config import BigBirdConfig

ATTENTION_TYPE = Key("attention_type", "block_sparse", values={"block_sparse": "sparse", "original_full": "full"})


def import_attention(hf_config: HFConfig) -> dict[str, Any]:
    """Read the form of attention as a block size: BERT's full attention is that of a single block."""
    full = ATTENTION_TYPE.import_value(hf_config) == "full"
    block_size = hf_config["max_position_embeddings"] if full else hf_config["block_size"]
    return {"block_size": block_size, "random_blocks": "first"}


def export_attention(config: BigBirdConfig, dims: ModelDims) -> dict[str, Any]:
    """Write the form of attention that the block size gives."""
    return {"attention_type": "original_full" if is_full(config, dims) else "block_sparse"}


def is_full(config: BigBirdConfig, dims: ModelDims) -> bool:
    """Return whether one block holds every input."""
    return config.block_size >= dims.max_len


CONVERSION = Conversion(
    model_type="big_bird",
    prefix="bert.",
    config=bert_config(hidden_act="gelu_new", layer_norm_eps=1e-12)
    | {
        "max_len": Key("max_position_embeddings", 4096),
        "block_size": Key("block_size", 64),
        "n_random": Key("num_random_blocks", 3),
        "attn_dropout": Key("attention_probs_dropout_prob", 0.1),
    },
    fixed=BERT_FIXED,
    # without use_bias, they leave the biases out of three projections of four
    requires={"use_bias": True, "is_decoder": False, "add_cross_attention": False},
    unsupported=BERT_UNSUPPORTED
    | {
        "n_random": (lambda config, dims: config.n_random == 0, "it has at least one random block"),
        "random_blocks": (
            lambda config, dims: config.random_blocks != "first" and not is_full(config, dims),
            "it evaluates with 'first', so that the logits of long inputs would differ",
        ),
    },
    defaults={"vocab_size": 50358, "rescale_embeddings": False},
    import_extra=import_attention,
    export_extra=export_attention,
    weights=bert_weights("bert."),
    models=bert_models(
        "BigBird",
        "bert.",
        embedding=lambda hf: {"scale": hf["hidden_size"] ** 0.5 if hf["rescale_embeddings"] else 1.0},
        pretraining=True,
    ),
)
