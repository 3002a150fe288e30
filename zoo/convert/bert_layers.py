"""What transformers' descendants of BERT share inside the backbone: names of a layer, keys of config.json. No torch.

Their blocks are those of `zoo.nn.transformer_block`, post-norm. What stands around them is in `zoo.convert.bert`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from zoo.convert.conversion import Weight
from zoo.spec.architecture import ModelDims
from zoo.spec.constraints import BlockConfig
from zoo.spec.errors import ConfigError

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
"""Their names -> ours; of two for one of ours the first is written."""
PROJECTIONS = {"q": "query", "k": "key", "v": "value"}
LAYER = {
    "mixer.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.linear1": "intermediate.dense",
    "mlp.linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Our modules of a block -> theirs of a layer, besides the projections; each has a weight and a bias."""


class BertConfig(BlockConfig, Protocol):
    """What `bert_keys` and `bert_check` read of a configuration."""

    prenorm: bool
    bias: bool


def bert_layer(ours: str = "", theirs: str = "", *, suffixes: tuple[str, ...] = ("",)) -> tuple[Weight, ...]:
    """Every parameter of one block. ours, theirs: prefixes; suffixes: of q, k and v, one for each set of them."""
    names = {f"mixer.{o}{s}": f"attention.self.{t}{s}" for s in suffixes for o, t in PROJECTIONS.items()} | LAYER
    return tuple(
        Weight(ours=f"{ours}{o}.{part}", theirs=f"{theirs}{t}.{part}")
        for o, t in names.items()
        for part in ("weight", "bias")
    )


def bert_activation(theirs: Mapping[str, Any], *, title: str, default: str) -> str:
    """Ours for their hidden_act."""
    activation = theirs.get("hidden_act", default)
    if activation not in ACTIVATIONS:
        raise ConfigError("hidden_act", f"{activation!r}: {title} is offered with {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation]


def bert_arch(theirs: Mapping[str, Any], *, title: str, activation: str, norm_eps: float) -> dict[str, Any]:
    """Our settings of config.json. title: the architecture's, for errors; the others are transformers' defaults."""
    return {
        "n_heads": theirs.get("num_attention_heads", 12),
        "d_ff": theirs.get("intermediate_size", 3072),
        "prenorm": False,
        "activation": bert_activation(theirs, title=title, default=activation),
        "norm_eps": theirs.get("layer_norm_eps", norm_eps),
        "dropout": theirs.get("hidden_dropout_prob", 0.1),
    }


def bert_shape(theirs: Mapping[str, Any], *, max_len: int) -> ModelDims:
    """Our shape of config.json."""
    width, depth = theirs.get("hidden_size", 768), theirs.get("num_hidden_layers", 12)
    return ModelDims(d_model=width, n_layers=depth, mode="bidirectional", max_len=max_len)


def bert_keys(config: BertConfig, dims: ModelDims) -> dict[str, Any]:
    """The keys that `bert_arch` and `bert_shape` read."""
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff or 4 * dims.d_model,
        "hidden_act": activations[config.activation],
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "hidden_size": dims.d_model,
        "num_hidden_layers": dims.n_layers,
    }


def bert_check(config: BertConfig, dims: ModelDims, *, title: str, wrong: Mapping[str, tuple[bool, str]]) -> None:
    """ConfigError for what none of these models is. wrong: what this one is not either, key -> (whether, why)."""
    common = {
        "prenorm": (config.prenorm, "its norms stand after the residual branches"),
        "bias": (not config.bias, "its projections have biases"),
        "d_qkv": (config.d_qkv not in (0, dims.d_model), f"its heads together are as wide as d_model {dims.d_model}"),
        "mode": (dims.mode != "bidirectional", "it is bidirectional"),
    }
    for key, (is_wrong, why) in {**common, **wrong}.items():
        if is_wrong:
            value = dims.mode if key == "mode" else getattr(config, key)
            raise ConfigError(key, f"{value!r}: transformers' {title} has no such form: {why}")
