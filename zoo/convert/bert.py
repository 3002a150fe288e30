"""What stands around the backbone in transformers' descendants of BERT: an embedding and two heads. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.convert.conversion import Embedding, Head, HeadLayer, Outside, model_class


def bert_outside(
    theirs: Mapping[str, Any],
    *,
    model: str,
    base: str,
    vocab_size: int,
    n_positions: int,
    norm_eps: float,
    activation: str,
    first_position: int = 0,
    extra_positions: int = 0,
    scale: float = 1.0,
    classifier_activation: str = "",
    pretraining: bool = False,
    lm_dense: str = "cls.predictions.transform.dense",
    lm_norm: str = "cls.predictions.transform.LayerNorm",
    lm: str = "cls.predictions",
) -> Outside:
    """The embedding, and the head of the class that config.json names: MODELModel, MODELForMaskedLM or
    MODELForSequenceClassification.

    base                             prefix of models with heads ("bert.")
    vocab_size, n_positions, norm_eps transformers' defaults, for what config.json leaves out
    extra_positions                  rows of the table of positions beyond max_position_embeddings
    activation                       ours, of the heads' hidden layer
    classifier_activation            of the classifier's, where that is another
    pretraining                      there is a MODELForPreTraining too: the language model, and a second head that only
                                     travels along
    lm_dense, lm_norm, lm            keys of the language model's head
    """
    kinds = ("Model", "ForMaskedLM", "ForSequenceClassification", *(["ForPreTraining"] if pretraining else []))
    kind = model_class(theirs, tuple(f"{model}{suffix}" for suffix in kinds))
    width, eps = theirs.get("hidden_size", 768), theirs.get("layer_norm_eps", norm_eps)
    vocab, words = theirs.get("vocab_size", vocab_size), "embeddings.word_embeddings.weight"
    embedding = Embedding(
        vocab_size=vocab,
        tokens=words,
        scale=scale,
        positions="embeddings.position_embeddings.weight",
        n_positions=theirs.get("max_position_embeddings", n_positions) + extra_positions,
        first_position=first_position,
        types="embeddings.token_type_embeddings.weight",
        n_types=theirs.get("type_vocab_size", 2),
        norm="embeddings.LayerNorm",
        norm_eps=eps,
    )
    if kind == f"{model}Model":
        return Outside(embedding=embedding, bare=True, carried=("pooler.*",))
    if kind == f"{model}ForSequenceClassification":
        classes = len(theirs.get("id2label", "01"))
        classifier = (
            _linear("classifier.dense", width),
            HeadLayer(kind=classifier_activation or activation),
            _linear("classifier.out_proj", classes),
        )
        return Outside(embedding=embedding, head=Head(layers=classifier, first=True), carried=(f"{base}pooler.*",))
    tied = theirs.get("tie_word_embeddings", True)
    weight, bias = f"{lm}.decoder.weight", f"{lm}.decoder.bias"
    layers = (
        _linear(lm_dense, width),
        HeadLayer(kind=activation),
        HeadLayer(kind="norm", weight=f"{lm_norm}.weight", bias=f"{lm_norm}.bias", eps=eps),
        # tied, the bias goes by the head's name; untied the head's is never used
        HeadLayer(kind="linear", bias=f"{lm}.bias", d_out=vocab) if tied else _linear(f"{lm}.decoder", vocab),
    )
    return Outside(
        embedding=embedding,
        head=Head(layers=layers),
        aliases={weight: base + words, bias: f"{lm}.bias"} if tied else {},
        carried=(f"{base}pooler.*", "cls.seq_relationship.*", *([] if tied else [f"{lm}.bias"])),
    )


def _linear(key: str, d_out: int) -> HeadLayer:
    return HeadLayer(kind="linear", weight=f"{key}.weight", bias=f"{key}.bias", d_out=d_out)
