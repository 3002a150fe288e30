"""Linformer vectors: fairseq, LRA's flax code, lucidrains and mlpen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.parity.harness import Case, Result, Unmapped, only_block
from zoo_linformer.backbone import LinformerAttention, LinformerBackbone
from zoo_linformer.config import LinformerConfig
from zoo_linformer.op import linformer_attention

COMMON = {"batch", "length", "heads", "head_dim", "d_model", "n_heads", "k", "max_len", "dropout"}
SHARING = {"share_kv_projection", "per_head_projection"}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu (tanh)": "gelu_tanh"}


def run(case: Case) -> Result:
    params = case.params
    if case.config.get("dropout", 0.0):
        raise Unmapped(f"dropout {case.config['dropout']}: a reference vector must be deterministic")
    if case.level == "op":
        y = op(case)
    elif "lr_kernel" in params:
        y = flax_attention(case)
    elif "LinformerAttention_1.lr_kernel" in params:
        y = flax_block(case)
    elif "compress_k.weight" in params:
        y = fairseq(case)
    elif "to_q.weight" in params:
        y = lucidrains(case)
    else:
        raise Unmapped(f"{case.name}: parameters {sorted(params)}")
    values = {"out.y": y}
    return Result(values | case.gradients((y * case.inputs["cotangent"].detach()).sum()))


def known(case: Case, *names: str) -> None:
    """A configuration field that this adapter does not read may change the numbers: refuse it."""
    unknown = set(case.config) - COMMON - set(names)
    if unknown:
        raise Unmapped(f"{case.name}: configuration {sorted(unknown)}")


def call(module: nn.Module, weights: dict[str, Tensor], case: Case) -> Any:
    """Run our module with their weights, all of them."""
    module = module.to(case.dtype)
    ours = dict(module.named_parameters())
    if set(ours) != set(weights):
        raise Unmapped(f"weights {sorted(set(ours) ^ set(weights))} have no counterpart")
    for name, weight in weights.items():
        if ours[name].shape != weight.shape:
            raise Unmapped(f"{name}: ours {tuple(ours[name].shape)}, theirs {tuple(weight.shape)}")
    return functional_call(module, weights, (case.inputs["x"],), {"mask": case.inputs.get("mask")})


def op(case: Case) -> Tensor:
    """mlpen: E per head (H, k, L) or one (k, L); one for keys and values, or E and F."""
    known(case, *SHARING)
    E, mask = case.params["E"], case.inputs.get("mask")
    if case.config.get("per_head_projection", E.ndim == 3) != (E.ndim == 3):
        raise Unmapped(f"per_head_projection with E of shape {tuple(E.shape)}")
    share = case.config.get("share_kv_projection", True)
    if not share and "F" not in case.params:
        raise Unmapped("share_kv_projection is false, but there is no F")
    q, k, v = (case.inputs[n] for n in "qkv")
    return linformer_attention(q, k, v, E, E if share else case.params["F"], mask=mask)


def fairseq(case: Case) -> Tensor:
    config, params = case.config, case.params
    known(case, *SHARING, "compress_ratio", "project_before_qkv", "bias")
    if not config["project_before_qkv"] or config["per_head_projection"]:
        raise Unmapped("fairseq compresses the input of all heads at once")
    share = config["share_kv_projection"]
    weights = {"E": params["compress_k.weight"]}
    if not share:
        weights["F"] = params["compress_v.weight"]
    for mine, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("out", "out_proj")):
        weights[f"{mine}.weight"] = params[f"{name}.weight"]
        if f"{name}.bias" in params:
            weights[f"{mine}.bias"] = params[f"{name}.bias"]
    bias = all_or_no_biases(weights)
    ours = LinformerConfig(n_heads=config["n_heads"], k=config["k"], share_kv=share, compress="before", bias=bias)
    return call(LinformerAttention(ours, config["d_model"], config["max_len"]), weights, case)[0]


def all_or_no_biases(weights: dict[str, Tensor], prefix: str = "") -> bool:
    """Our four projections have biases together: where theirs has some, the others get zeros."""
    names = [f"{prefix}{name}" for name in ("q", "k", "v", "out")]
    if not any(f"{name}.bias" in weights for name in names):
        return False
    for name in names:
        weight = weights[f"{name}.weight"]
        weights.setdefault(f"{name}.bias", torch.zeros(weight.shape[0], dtype=weight.dtype))
    return True


def lucidrains(case: Case) -> Tensor:
    """`share_kv` there also makes the values the keys, `one_kv_head` repeats one head's keys and values for all:
    both are our layer with repeated weights, to whose gradients every repetition adds."""
    config, params = case.config, case.params
    known(case, "share_kv", "one_kv_head", "dim_head")
    heads, share = config["n_heads"], config["share_kv"]
    per_head = params["to_q.weight"].shape[0] // heads
    weights = {
        "E": params["proj_k"].T,
        "F": params["proj_k" if share else "proj_v"].T,
        "q.weight": params["to_q.weight"],
        "k.weight": params["to_k.weight"],
        "v.weight": params["to_k.weight" if share else "to_v.weight"],
        "out.weight": params["to_out.weight"],
    }
    if config["one_kv_head"]:
        for name in ("k.weight", "v.weight"):
            if weights[name].shape[0] != per_head:
                raise Unmapped(f"one_kv_head with {name} of shape {tuple(weights[name].shape)}")
            weights[name] = weights[name].repeat(heads, 1)
    if "to_out.bias" in params:
        weights["out.bias"] = params["to_out.bias"]
    bias = all_or_no_biases(weights)
    ours = LinformerConfig(n_heads=heads, k=config["k"], d_qkv=per_head * heads, share_kv=False, bias=bias)
    return call(LinformerAttention(ours, config["d_model"], config["max_len"]), weights, case)[0]


def flax_weights(params: dict[str, Tensor], theirs: str = "", ours: str = "") -> dict[str, Tensor]:
    """Kernels (D, H, d) and (H, d, D), E as (n, k)."""
    weights = {
        name: params[f"{theirs}{long}.kernel"].flatten(1).T
        for name, long in zip("qkv", ("query", "key", "value"), strict=True)
    }
    weights = {f"{ours}{name}.weight": weight for name, weight in weights.items()}
    weights[f"{ours}out.weight"] = params[theirs + "out.kernel"].flatten(0, 1).T
    weights[f"{ours}E"] = params[theirs + "lr_kernel"].T
    for name, long in (("q", "query"), ("k", "key"), ("v", "value")):
        if f"{theirs}{long}.bias" in params:
            weights[f"{ours}{name}.bias"] = params[f"{theirs}{long}.bias"].flatten()
    if f"{theirs}out.bias" in params:
        weights[f"{ours}out.bias"] = params[theirs + "out.bias"]
    return weights


def flax_attention(case: Case) -> Tensor:
    config = case.config
    known(case, *SHARING, "bias", "qkv_dim")
    if not config["share_kv_projection"] or config["per_head_projection"]:
        raise Unmapped("LRA has one projection for keys, values and heads")
    weights = flax_weights(case.params)
    bias = all_or_no_biases(weights)
    ours = LinformerConfig(n_heads=config["n_heads"], k=config["k"], d_qkv=config.get("qkv_dim", 0), bias=bias)
    return call(LinformerAttention(ours, config["d_model"], config["max_len"]), weights, case)[0]


def flax_block(case: Case) -> Tensor:
    config, params = case.config, case.params
    known(case, "qkv_dim", "d_ff", "layer_norm_eps", "activation", "qkv_bias", *SHARING)
    if config["activation"] not in ACTIVATIONS:
        raise Unmapped(f"activation {config['activation']!r}")
    weights = flax_weights(params, "LinformerAttention_1.", "mixer.")
    for mine, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
        weights |= {f"{mine}.weight": params[f"{name}.scale"], f"{mine}.bias": params[f"{name}.bias"]}
    for mine, name in (("linear1", "Dense_0"), ("linear2", "Dense_1")):
        weights[f"mlp.{mine}.weight"] = params[f"MlpBlock_3.{name}.kernel"].T
        weights[f"mlp.{mine}.bias"] = params[f"MlpBlock_3.{name}.bias"]
    ours = LinformerConfig(
        n_heads=config["n_heads"],
        k=config["k"],
        d_qkv=config["qkv_dim"],
        d_ff=config["d_ff"],
        bias=all_or_no_biases(weights, "mixer."),
        activation=ACTIVATIONS[config["activation"]],
        norm_eps=config["layer_norm_eps"],
    )
    return call(only_block(LinformerBackbone, ours, config["d_model"], max_len=config["max_len"]), weights, case)[0]
