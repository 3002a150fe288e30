"""Conversion of transformers' MambaModel and MambaForCausalLM."""

from __future__ import annotations

from typing import Any

from zoo import ConfigError, ModelDims
from zoo.convert import Conversion, HFConfig, HFTensor, Key, KeyMap, language_model
from zoo_mamba.config import MambaConfig

CONFIG = {
    "d_model": Key("hidden_size", 768),
    "n_layers": Key("num_hidden_layers", 32),
    "d_state": Key("state_size", 16),
    "d_conv": Key("conv_kernel", 4),
    "expand": Key("expand", 2),
    "dt_rank": Key(
        "time_step_rank",
        "auto",
        read=lambda rank: None if rank == "auto" else rank,
        write=lambda config, dims: config.resolved_dt_rank(dims.d_model),
    ),
    "dt_scale": Key("time_step_scale", 1.0),
    "dt_min": Key("time_step_min", 0.001),
    "dt_max": Key("time_step_max", 0.1),
    "dt_init": Key("time_step_init_scheme", "random"),
    "dt_init_floor": Key("time_step_floor", 1e-4),
    "bias": Key("use_bias", False),
    "conv_bias": Key("use_conv_bias", True),
    "norm_eps": Key("layer_norm_epsilon", 1e-5),
}
WEIGHTS: KeyMap = {
    "stack.blocks.{layer}.norm1": "backbone.layers.{layer}.norm",
    "stack.blocks.{layer}.mixer": "backbone.layers.{layer}.mixer",
    "stack.blocks.{layer}.mixer.conv.weight": HFTensor("backbone.layers.{layer}.mixer.conv1d.weight", squeeze=(1,)),
    "stack.blocks.{layer}.mixer.conv.bias": "backbone.layers.{layer}.mixer.conv1d.bias",
    "stack.final_norm": "backbone.norm_f",
}


def check_inner_width(hf_config: HFConfig) -> dict[str, Any]:
    """Refuse an inner width that does not follow from `expand`."""
    given, expected = hf_config.get("intermediate_size"), hf_config["expand"] * hf_config["hidden_size"]
    if given not in (None, expected):
        raise ConfigError("intermediate_size", f"{given}: expected expand * hidden_size = {expected}")
    return {}


def export_inner_width(config: MambaConfig, dims: ModelDims) -> dict[str, Any]:
    """Write the inner width, which follows from `expand`."""
    return {"intermediate_size": config.expand * dims.d_model}


CONVERSION = Conversion(
    model_type="mamba",
    prefix="backbone.",
    config=CONFIG,
    fixed={"mode": "causal", "norm": "rms"},
    requires={"hidden_act": "silu"},
    defaults={"vocab_size": 50280},
    import_extra=check_inner_width,
    export_extra=export_inner_width,
    weights=WEIGHTS,
    models={
        "MambaForCausalLM": language_model("backbone.embeddings", d_model="hidden_size", lm_head="lm_head"),
        "MambaModel": language_model("backbone.embeddings", d_model="hidden_size"),
    },
)
