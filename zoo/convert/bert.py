"""What transformers' descendants of BERT share: config.json keys, keys of a layer, embedding and heads.

Their layers are the post-norm blocks of `zoo.nn`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from zoo.convert.conversion import HFConfig, Key, ModelParts
from zoo.convert.keymap import HFTensor, KeyMap
from zoo.convert.modules import TokenEmbedding
from zoo.nn import LayerNorm

BERT_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
"""transformers' hidden_act -> ours."""
ACTIVATION_MODULES: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
BERT_FIXED: dict[str, Any] = {"mode": "bidirectional", "prenorm": False, "bias": True}
BERT_UNSUPPORTED: dict[str, tuple[Callable[..., bool], str]] = {
    "d_qkv": (lambda config, dims: config.d_qkv not in (0, dims.d_model), "the heads together are as wide as d_model")
}
BERT_LAYER: KeyMap = {
    "mixer.q": "attention.self.query",
    "mixer.k": "attention.self.key",
    "mixer.v": "attention.self.value",
    "mixer.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.linear1": "intermediate.dense",
    "mlp.linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


def bert_config(*, hidden_act: str, layer_norm_eps: float) -> dict[str, Key]:
    """Make the config.json table of the shared fields; arguments are transformers' defaults."""
    return {
        "d_model": Key("hidden_size", 768),
        "n_layers": Key("num_hidden_layers", 12),
        "n_heads": Key("num_attention_heads", 12),
        "d_ff": Key("intermediate_size", 3072, write=lambda config, dims: config.d_ff or 4 * dims.d_model),
        "activation": Key("hidden_act", hidden_act, values=BERT_ACTIVATIONS),
        "norm_eps": Key("layer_norm_eps", layer_norm_eps),
        "dropout": Key("hidden_dropout_prob", 0.1),
    }


def bert_weights(prefix: str, layer: KeyMap = MappingProxyType({})) -> KeyMap:
    """Make the backbone's key map. layer: keys within a layer besides those of BERT_LAYER."""
    theirs = f"{prefix}encoder.layer.{{layer}}."
    tensors = {ours: HFTensor(t) if isinstance(t, str) else t for ours, t in {**BERT_LAYER, **layer}.items()}
    return {
        f"stack.blocks.{{layer}}.{ours}": replace(tensor, keys=tuple(theirs + key for key in tensor.sources))
        for ours, tensor in tensors.items()
    }


def bert_models(
    name: str,
    prefix: str,
    *,
    embedding: Callable[[HFConfig], Mapping[str, Any]] = lambda hf_config: {},
    lm: str = "cls.predictions",
    lm_dense: str = "cls.predictions.transform.dense",
    lm_norm: str = "cls.predictions.transform.LayerNorm",
    lm_activation: str = "",
    classifier_activation: str = "",
    pretraining: bool = False,
) -> dict[str, Callable[[HFConfig], ModelParts]]:
    """Make the parts of NAMEModel, NAMEForMaskedLM and NAMEForSequenceClassification.

    embedding              config.json -> arguments of TokenEmbedding where the model differs from BERT
    lm, lm_dense, lm_norm  keys of the language model's head
    lm_activation, classifier_activation  of the heads' hidden layers; "" = hidden_act
    pretraining            there is a NAMEForPreTraining too, of which the second head is unused
    """

    def base_model(hf_config: HFConfig) -> ModelParts:
        arguments = {
            "n_positions": hf_config["max_position_embeddings"],
            "n_types": hf_config.get("type_vocab_size", 2),
            "norm_eps": hf_config["layer_norm_eps"],
        }
        arguments |= embedding(hf_config)
        weights = {
            "embed.tokens": f"{prefix}embeddings.word_embeddings",
            "embed.positions": f"{prefix}embeddings.position_embeddings",
            "embed.types": f"{prefix}embeddings.token_type_embeddings",
            "embed.norm": f"{prefix}embeddings.LayerNorm",
        }
        tokens = TokenEmbedding(hf_config["vocab_size"], hf_config["hidden_size"], **arguments)
        return ModelParts(embedding=tokens, weights=weights, unused=("pooler.*", f"{prefix}pooler.*"))

    def masked_lm(hf_config: HFConfig) -> ModelParts:
        base, d_model, tied = base_model(hf_config), hf_config["hidden_size"], hf_config["tie_word_embeddings"]
        head = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(d_model, d_model),
                activation=_activation(lm_activation, hf_config),
                norm=LayerNorm(d_model, hf_config["layer_norm_eps"]),
                decoder=(decoder := nn.Linear(d_model, hf_config["vocab_size"])),
            )
        )
        weights: dict[str, Any] = {"head.dense": lm_dense, "head.norm": lm_norm, "head.decoder": f"{lm}.decoder"}
        weights |= base.weights
        unused = (*base.unused, "cls.seq_relationship.*")
        if not tied:  # transformers saves the head's bias, but computes with the decoder's
            return replace(base, head=head, weights=weights, unused=(*unused, f"{lm}.bias"))
        assert isinstance(base.embedding, TokenEmbedding)
        decoder.weight = base.embedding.tokens.weight
        weights["head.decoder.bias"] = f"{lm}.bias"
        return replace(base, head=head, weights=weights, aliases={f"{lm}.decoder.bias": f"{lm}.bias"}, unused=unused)

    def classifier(hf_config: HFConfig) -> ModelParts:
        base, d_model = base_model(hf_config), hf_config["hidden_size"]
        head = nn.Sequential(
            OrderedDict(
                first_token=FirstToken(),
                dense=nn.Linear(d_model, d_model),
                activation=_activation(classifier_activation, hf_config),
                out_proj=nn.Linear(d_model, len(hf_config["id2label"])),
            )
        )
        return replace(base, head=head, weights={**base.weights, "head": "classifier"})

    models = {"Model": base_model, "ForMaskedLM": masked_lm, "ForSequenceClassification": classifier}
    models |= {"ForPreTraining": masked_lm} if pretraining else {}
    return {name + suffix: build for suffix, build in models.items()}


def _activation(name: str, hf_config: HFConfig) -> nn.Module:
    return ACTIVATION_MODULES[name or BERT_ACTIVATIONS[hf_config["hidden_act"]]]()


class FirstToken(nn.Module):
    """Select the first token: (batch, seq_len, d_model) -> (batch, d_model)."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, 0]
