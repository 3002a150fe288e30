"""Transformer and position vectors: torch's own layer, LRA's flax encoder, RoPE, ALiBi and SelfExtend references."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped, only_block
from zoo import ModelDims
from zoo.ops import positions as pos
from zoo.ops.attention import (
    attention,
    reference_attention,
    self_extend_attention,
    self_extend_weights,
)
from zoo_transformer.backbone import TransformerBackbone
from zoo_transformer.config import TransformerConfig

ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu (tanh)": "gelu_tanh", "gelu_tanh": "gelu_tanh", "silu": "silu"}
COMMON = {"batch", "length", "heads", "head_dim", "causal", "dropout"}


def run(case: Case) -> Result:
    config = case.config
    if config.get("dropout", 0.0):
        raise Unmapped(f"dropout {config['dropout']}: a reference vector must be deterministic")
    if case.level == "op":
        if "group_size" in config:
            values = self_extend(case)
        elif "rope_type" in config:
            values = rotary(case)
        elif str(config.get("positions", "")).startswith("alibi"):
            values = alibi(case)
        elif "positions" not in config:
            values = plain(case)
        else:
            raise Unmapped(f"positions {config['positions']!r}")
    elif case.level == "layer":
        values = layer(case)
    elif "Embed_0.embedding" in case.params:
        values = lra_encoder(case)
    else:
        values = language_model(case)
    return Result(values | case.gradients((values["out.y"] * case.inputs["cotangent"].detach()).sum()))


def known(case: Case, *names: str) -> None:
    """A configuration field that this adapter does not read may change the numbers: refuse it."""
    unknown = set(case.config) - set(names)
    if unknown:
        raise Unmapped(f"{case.name}: configuration {sorted(unknown)}")


def call(module: nn.Module, weights: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Run our module with their weights, all of them."""
    ours = dict(module.named_parameters())
    if set(ours) != set(weights):
        raise Unmapped(f"weights {sorted(set(ours) ^ set(weights))} have no counterpart")
    for name, weight in weights.items():
        if ours[name].shape != weight.shape:
            raise Unmapped(f"{name}: ours {tuple(ours[name].shape)}, theirs {tuple(weight.shape)}")
    return functional_call(module, weights, args, kwargs)


# -- ops -----------------------------------------------------------------------------------------------------------


def plain(case: Case) -> dict[str, Tensor]:
    known(case, *COMMON, "scale")
    q, k, v = (case.inputs[n] for n in "qkv")
    # ours scales by 1/sqrt(d); another scale is the same attention over longer or shorter queries
    stretch = case.config.get("scale", q.shape[-1] ** -0.5) * math.sqrt(q.shape[-1])
    y = attention(q * stretch, k, v, mask=case.inputs.get("mask"), causal=case.config["causal"])
    return {"out.y": y}


def alibi(case: Case) -> dict[str, Tensor]:
    known(case, *COMMON, "positions", "alibi_bias_max")
    q, k, v = (case.inputs[n] for n in "qkv")
    mask, seq_len = case.inputs.get("mask"), q.shape[-2]
    slopes = pos.alibi_slopes(q.shape[1], bias_max=float(case.config.get("alibi_bias_max", 8)))
    if not case.config["causal"]:
        bias = pos.alibi_symmetric(slopes, seq_len).flip(-1)
        y = attention(q, k, v, mask=mask, symmetric_slopes=slopes)
        return {"out.y": y, "out.bias": bias, "out.slopes": slopes}
    if case.config["positions"] != "alibi":
        raise Unmapped(f"positions {case.config['positions']!r} with causal attention")
    if mask is not None:
        positions = pos.real_positions(mask)
    else:
        # MPT counts from the end, BLOOM from the start: a constant that the softmax does not see
        offset = seq_len - 1 if "alibi_bias_max" in case.config else 0
        positions = torch.arange(seq_len) - offset
    bias = pos.alibi_key_bias(slopes, positions)
    y = attention(q, k, v, mask=mask, causal=True, key_bias=bias)
    if mask is not None:
        # the reference lets a padded query see itself; ours leaves padded queries undefined
        eye = torch.eye(seq_len, dtype=torch.bool)
        visible = (mask[:, None, None, :] & torch.ones_like(eye).tril()) | eye
        y = torch.where(mask[:, None, :, None], y, reference_attention(q, k, v, visible=visible, bias=bias))
    batched = bias.expand(case.tensors["out.bias"].shape) if "out.bias" in case.tensors else bias
    return {"out.y": y, "out.bias": batched, "out.slopes": slopes}


def rotary(case: Case) -> dict[str, Tensor]:
    config = case.config
    known(
        case,
        *COMMON,
        "layout",
        "rope_type",
        "rope_theta",
        "max_position_embeddings",
        "original_max_position_embeddings",
        "factor",
        "alpha",
        "beta_fast",
        "beta_slow",
        "truncate",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
    )
    q, k, v = (case.inputs[n] for n in "qkv")
    positions = case.inputs.get("position_ids", torch.arange(q.shape[-2]))
    d_head, theta, kind = q.shape[-1], float(config["rope_theta"]), config["rope_type"]
    if kind == "default":
        speeds = pos.rope(d_head, theta=theta)
    elif kind == "linear":
        speeds = pos.rope_linear(d_head, theta=theta, factor=config["factor"])
    elif kind == "ntk":
        speeds = pos.rope_ntk(d_head, theta=theta, alpha=config["alpha"])
    elif kind == "dynamic":
        speeds = pos.rope_dynamic_ntk(
            d_head,
            theta=theta,
            factor=config["factor"],
            trained_len=config["max_position_embeddings"],
            seq_len=int(positions.max()) + 1,
        )
    elif kind == "yarn":
        optional = ("beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim")
        speeds = pos.rope_yarn(
            d_head,
            theta=theta,
            factor=config["factor"],
            trained_len=config.get("original_max_position_embeddings") or config["max_position_embeddings"],
            **{name: config[name] for name in optional if config.get(name) is not None},
        )
    else:
        raise Unmapped(f"rope_type {kind!r}")
    layout = config["layout"]
    cos, sin = pos.rope_tables(positions, speeds)
    across = (cos[:, None], sin[:, None]) if cos.ndim == 3 else (cos, sin)
    q_rot, k_rot = pos.rotate(q, *across, layout=layout), pos.rotate(k, *across, layout=layout)
    both = (lambda x: torch.cat([x, x], -1)) if layout == "half-split" else (lambda x: x.repeat_interleave(2, -1))
    return {
        "out.y": attention(q_rot, k_rot, v, mask=case.inputs.get("mask"), causal=config["causal"]),
        "out.q_rot": q_rot,
        "out.k_rot": k_rot,
        "out.cos": both(cos),
        "out.sin": both(sin),
        "out.inv_freq": speeds.inv_freq,
        "out.attention_factor": torch.tensor([speeds.factor], dtype=q.dtype),
    }


def self_extend(case: Case) -> dict[str, Tensor]:
    config = case.config
    known(case, *COMMON, "group_size", "neighbor_window", "rope_theta", "layout")
    if config["layout"] != "half-split" or not config["causal"]:
        raise Unmapped(f"layout {config['layout']!r}, causal {config['causal']}")
    q, k, v = (case.inputs[n].unflatten(-1, (config["heads"], -1)).transpose(1, 2) for n in "qkv")
    G, W, theta = config["group_size"], config["neighbor_window"], float(config["rope_theta"])
    # a block that does not divide L, so that the seam is tried too
    y = self_extend_attention(q, k, v, group_size=G, window=W, theta=theta, block=16)
    return {
        "out.y": y.transpose(1, 2).flatten(2),
        "out.attn": self_extend_weights(q, k, group_size=G, window=W, theta=theta),
    }


# -- layers and stacks ---------------------------------------------------------------------------------------------


def torch_weights(params: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """torch.nn.TransformerEncoderLayer -> our block."""
    names = {
        "self_attn.in_proj_weight": "mixer.qkv.weight",
        "self_attn.in_proj_bias": "mixer.qkv.bias",
        "self_attn.out_proj.weight": "mixer.out.weight",
        "self_attn.out_proj.bias": "mixer.out.bias",
        "linear1.weight": "mlp.linear1.weight",
        "linear1.bias": "mlp.linear1.bias",
        "linear2.weight": "mlp.linear2.weight",
        "linear2.bias": "mlp.linear2.bias",
    } | {f"{norm}.{kind}": f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    return {ours + mine: params[theirs + name] for name, mine in names.items() if theirs + name in params}


def block_config(case: Case, **extra: Any) -> TransformerConfig:
    config = case.config
    if config["activation"] not in ACTIVATIONS:
        raise Unmapped(f"activation {config['activation']!r}")
    return TransformerConfig(
        n_heads=config["n_heads"],
        d_ff=config["d_ff"],
        activation=ACTIVATIONS[config["activation"]],
        norm_eps=config["layer_norm_eps"],
        **extra,
    )


def layer(case: Case) -> dict[str, Tensor]:
    config = case.config
    known(case, *COMMON, "d_model", "n_heads", "d_ff", "activation", "layer_norm_eps", "norm_first")
    # no positions in this layer: sinusoids are added outside the blocks
    ours = block_config(case, positions="sinusoidal", bias="self_attn.in_proj_bias" in case.params)
    block = only_block(TransformerBackbone, ours, config["d_model"], causal=config["causal"]).to(case.dtype)
    block.prenorm = config["norm_first"]
    y, _ = call(block, torch_weights(case.params, "", ""), case.inputs["x"], mask=case.inputs.get("mask"))
    return {"out.y": y}


def language_model(case: Case) -> dict[str, Tensor]:
    config, params, tokens = case.config, case.params, case.inputs["tokens"]
    known(
        case,
        *COMMON,
        "d_model",
        "n_heads",
        "d_ff",
        "n_layers",
        "vocab",
        "max_len",
        "activation",
        "layer_norm_eps",
        "positions",
        "tied_head",
        "norm_first",
    )
    if config.get("norm_first") is False:
        raise Unmapped("post-norm: the plugin is the pre-norm Transformer")
    if config["positions"] not in ("learned", "sinusoidal"):
        raise Unmapped(f"positions {config['positions']!r} in a stack")
    backbone = TransformerBackbone(
        block_config(case, positions=config["positions"], bias="layers.0.self_attn.in_proj_bias" in params),
        ModelDims(
            d_model=config["d_model"],
            n_layers=config["n_layers"],
            mode="causal" if config["causal"] else "bidirectional",
            max_len=config["max_len"],
        ),
    ).to(case.dtype)
    weights = {"stack.final_norm.weight": params["norm.weight"], "stack.final_norm.bias": params["norm.bias"]}
    if config["positions"] == "learned":
        weights["table"] = params["pos.weight"]
    for i in range(config["n_layers"]):
        weights |= torch_weights(params, f"layers.{i}.", f"stack.blocks.{i}.")
    x = F.embedding(tokens, params["tok.weight"])
    hidden = call(backbone, weights, x, mask=case.inputs.get("mask")).hidden
    if config.get("tied_head", True):
        return {"out.y": hidden @ params["tok.weight"].T}
    if "head.weight" not in params:
        raise Unmapped("an untied head without head.weight")
    return {"out.y": F.linear(hidden, params["head.weight"], params.get("head.bias"))}


def lra_encoder(case: Case) -> dict[str, Tensor]:
    """LRA's flax encoder with its classifier. Kernels are (in, out), those of attention (D, H, d) or (H, d, D)."""
    config, params, tokens = case.config, case.params, case.inputs["tokens"]
    known(
        case,
        *COMMON,
        "vocab",
        "d_model",
        "qkv_dim",
        "d_ff",
        "n_heads",
        "n_layers",
        "max_len",
        "learn_pos_emb",
        "classifier_pool",
        "num_classes",
        "layer_norm_eps",
        "activation",
    )
    mask, x = tokens > 0, F.embedding(tokens, params["Embed_0.embedding"])
    cls = config["classifier_pool"] == "CLS"
    if config["classifier_pool"] not in ("CLS", "MEAN"):
        raise Unmapped(f"classifier_pool {config['classifier_pool']!r}")
    if not (mask[:, 0].all() if cls else mask.all()):
        raise Unmapped("the reference pools a padded row, whose attention it leaves to rounding at 1e10")
    if cls:
        x = torch.cat([params["cls"].expand(x.shape[0], 1, -1)[..., : x.shape[-1]], x], dim=1)
        mask = torch.cat([mask[:, :1], mask], dim=1)
    learned, longest = config["learn_pos_emb"], config["max_len"] + cls
    tables = [v for k, v in params.items() if "pos_embedding" in k]
    if learned:
        if len(tables) != 1:
            raise Unmapped("learned positions without one pos_embedding")
        longest = tables[0].shape[-2]
    backbone = TransformerBackbone(
        block_config(case, positions="learned" if learned else "sinusoidal", d_qkv=config["qkv_dim"], bias=False),
        ModelDims(
            d_model=config["d_model"],
            n_layers=config["n_layers"],
            mode="bidirectional",
            max_len=longest,
        ),
    ).to(case.dtype)
    weights = {
        "stack.final_norm.weight": params["encoder_norm.scale"],
        "stack.final_norm.bias": params["encoder_norm.bias"],
    }
    if learned:
        weights["table"] = tables[0].squeeze(0)
    for i in range(config["n_layers"]):
        weights |= flax_weights(params, f"encoderblock_{i}.", f"stack.blocks.{i}.")
    hidden = call(backbone, weights, x, mask=mask).hidden
    pooled = hidden[:, 0] if cls else hidden.mean(1)
    inner = torch.relu(pooled @ params["mlp.kernel"] + params["mlp.bias"])
    return {"out.y": inner @ params["logits.kernel"] + params["logits.bias"]}


def flax_weights(params: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    heads = theirs + "MultiHeadDotProductAttention_1."
    qkv = [params[f"{heads}{name}.kernel"].flatten(1).T for name in ("query", "key", "value")]
    weights = {
        "mixer.qkv.weight": torch.cat(qkv),
        "mixer.out.weight": params[heads + "out.kernel"].flatten(0, 1).T,
    }
    for mine, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
        weights[f"{mine}.weight"] = params[f"{theirs}{name}.scale"]
        weights[f"{mine}.bias"] = params[f"{theirs}{name}.bias"]
    for mine, name in (("linear1", "Dense_0"), ("linear2", "Dense_1")):
        weights[f"mlp.{mine}.weight"] = params[f"{theirs}MlpBlock_3.{name}.kernel"].T
        weights[f"mlp.{mine}.bias"] = params[f"{theirs}MlpBlock_3.{name}.bias"]
    return {ours + name: weight for name, weight in weights.items()}
