"""Weights of transformers' Mamba (MambaModel, MambaForCausalLM). No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import ConfigError, Conversion, Embedding, Head, HeadLayer, ModelDims, Outside, Reading, Weight, model_class
from zoo_mamba.config import MambaConfig

MIXER = {
    "A_log": "A_log",
    "D": "D",
    "in_proj.weight": "in_proj.weight",
    "x_proj.weight": "x_proj.weight",
    "dt_proj.weight": "dt_proj.weight",
    "dt_proj.bias": "dt_proj.bias",
    "out_proj.weight": "out_proj.weight",
}
"""Our names within a mixer -> theirs."""
LONGEST = 2**20
"""Mamba has no longest sequence; a ModelDims names one."""


def weights(config: MambaConfig, dims: ModelDims) -> tuple[Weight, ...]:
    """Every parameter of the backbone."""
    found = [Weight(ours="stack.final_norm.weight", theirs="norm_f.weight")]
    for n in range(dims.n_layers):
        ours, theirs = f"stack.blocks.{n}", f"layers.{n}"
        found.append(Weight(ours=f"{ours}.norm1.weight", theirs=f"{theirs}.norm.weight"))
        names = dict(MIXER)
        if config.bias:
            names |= {f"{name}.bias": f"{name}.bias" for name in ("in_proj", "out_proj")}
        if config.conv_bias:
            names["conv.bias"] = "conv1d.bias"
        found += [Weight(ours=f"{ours}.mixer.{o}", theirs=f"{theirs}.mixer.{t}") for o, t in names.items()]
        d_inner, taps = config.expand * dims.d_model, config.d_conv
        found.append(
            Weight(
                ours=f"{ours}.mixer.conv.weight",
                theirs=f"{theirs}.mixer.conv1d.weight",
                shape=(d_inner, taps),
                their_shape=(d_inner, 1, taps),
            )
        )
    return tuple(found)


def read(theirs: Mapping[str, Any]) -> Reading:
    """config.json. Keys that it leaves out have the defaults of transformers' MambaConfig."""
    if theirs.get("hidden_act", "silu") != "silu":
        raise ConfigError("hidden_act", f"{theirs['hidden_act']!r}: Mamba is offered with 'silu'")
    d_model = theirs.get("hidden_size", 768)
    expand = theirs.get("expand", 2)
    if theirs.get("intermediate_size", expand * d_model) != expand * d_model:
        raise ConfigError("intermediate_size", f"{theirs['intermediate_size']}: expected expand * hidden_size")
    rank = theirs.get("time_step_rank", "auto")
    return Reading(
        arch={
            "d_state": theirs.get("state_size", 16),
            "d_conv": theirs.get("conv_kernel", 4),
            "expand": expand,
            "dt_rank": None if rank == "auto" else rank,
            "dt_scale": theirs.get("time_step_scale", 1.0),
            "dt_min": theirs.get("time_step_min", 0.001),
            "dt_max": theirs.get("time_step_max", 0.1),
            "dt_init": theirs.get("time_step_init_scheme", "random"),
            "dt_init_floor": theirs.get("time_step_floor", 1e-4),
            "bias": theirs.get("use_bias", False),
            "conv_bias": theirs.get("use_conv_bias", True),
            "norm": "rms",
            "norm_eps": theirs.get("layer_norm_epsilon", 1e-5),
        },
        dims=ModelDims(d_model=d_model, n_layers=theirs.get("num_hidden_layers", 32), mode="causal", max_len=LONGEST),
    )


def write(config: MambaConfig, dims: ModelDims) -> dict[str, Any]:
    """The keys that `read` reads."""
    if config.norm != "rms":
        raise ConfigError("norm", f"{config.norm!r}: transformers' Mamba has 'rms' only")
    return {
        "hidden_size": dims.d_model,
        "num_hidden_layers": dims.n_layers,
        "state_size": config.d_state,
        "conv_kernel": config.d_conv,
        "expand": config.expand,
        "intermediate_size": config.expand * dims.d_model,
        "time_step_rank": config.resolved_dt_rank(dims.d_model),
        "time_step_scale": config.dt_scale,
        "time_step_min": config.dt_min,
        "time_step_max": config.dt_max,
        "time_step_init_scheme": config.dt_init,
        "time_step_floor": config.dt_init_floor,
        "use_bias": config.bias,
        "use_conv_bias": config.conv_bias,
        "hidden_act": "silu",
        "layer_norm_epsilon": config.norm_eps,
    }


def outside(theirs: Mapping[str, Any]) -> Outside:
    """The embedding, and the language model's head with or without weights of its own."""
    kind = model_class(theirs, ("MambaForCausalLM", "MambaModel"))
    vocab_size = theirs.get("vocab_size", 50280)
    embedding = Embedding(vocab_size=vocab_size, tokens="embeddings.weight")
    if kind == "MambaModel":
        return Outside(embedding=embedding, bare=True)
    tied = theirs.get("tie_word_embeddings", True)
    head = Head(layers=(HeadLayer(kind="linear", weight="" if tied else "lm_head.weight", d_out=vocab_size),))
    # checkpoints that keep tied weights twice
    return Outside(
        embedding=embedding, head=head, aliases={"lm_head.weight": "backbone.embeddings.weight"} if tied else {}
    )


CONVERSION = Conversion(
    model_type="mamba", prefix="backbone.", read=read, write=write, weights=weights, outside=outside
)
