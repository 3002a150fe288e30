"""Longformer vectors: transformers' layers and model, allenai's TVM kernel, LRA's flax block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from tests.parity.live import mapped_tensors
from zoo import ModelDims
from zoo.nn import Block
from zoo_longformer.backbone import LongformerAttention, LongformerBackbone
from zoo_longformer.config import LongformerConfig
from zoo_longformer.convert import CONVERSION
from zoo_longformer.op import longformer_attention

COMMON = {"batch", "length", "lengths", "global_positions", "causal", "heads", "one_sided_window", "attention_window"}
HF = {"d_model", "d_ff", "layer_norm_eps", "output_projection"}


def run(case: Case) -> Result:
    params = case.params
    if case.level == "op":
        values = op(case)
    elif "query.weight" in params:
        values = attention(case)
    elif "attention.self.query.weight" in params:
        values = layer(case)
    elif "LongformerAttention_1.out.kernel" in params:
        values = lra_block(case)
    elif "embeddings.word_embeddings.weight" in params:
        values = model(case)
    else:
        raise Unmapped(f"{case.name}: parameters {sorted(params)}")
    return Result(values | case.gradients((values["out.y"] * case.inputs["cotangent"].detach()).sum()))


def known(case: Case, *names: str) -> None:
    """A configuration field that this adapter does not read may change the numbers: refuse it."""
    unknown = set(case.config) - COMMON - set(names)
    if unknown:
        raise Unmapped(f"{case.name}: configuration {sorted(unknown)}")


def mask_of(case: Case) -> Tensor | None:
    return case.inputs.get("key_mask", case.inputs.get("valid"))


def globals_of(case: Case) -> tuple[Tensor, Tensor]:
    """Positions (B, g) of the global tokens, and which of them are real."""
    chosen = case.inputs.get("global_mask")
    if chosen is None:
        return torch.zeros(case.config["batch"], 0, dtype=torch.int64), torch.zeros(case.config["batch"], 0).bool()
    counts = chosen.sum(1)
    index = (~chosen).to(torch.int8).argsort(dim=1, stable=True)[:, : int(counts.max())]
    return index, torch.arange(index.shape[1]) < counts[:, None]


def dilations(case: Case) -> list[int]:
    """One for each head."""
    given = case.config.get("dilation_per_head", case.config.get("dilation", 1))
    return [given] * case.config["heads"] if isinstance(given, int) else given


def place_globals(mixer: nn.Module, index: Tensor, real: Tensor) -> None:
    """The reference's global tokens in place of the first ones."""
    assert isinstance(mixer, LongformerAttention)

    def forward(x: Tensor, *, mask: Tensor | None = None, state: Any = None) -> tuple[Tensor, None]:
        mask = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        return mixer.forward_whole(x, mask, index, real), None

    mixer.forward = forward


def block_of(config: LongformerConfig, case: Case) -> Block:
    """The block of the first layer, with the reference's global tokens."""
    mode = "causal" if case.config["causal"] else "bidirectional"
    dims = ModelDims(d_model=case.config["d_model"], n_layers=1, mode=mode, max_len=case.config["length"])
    block = LongformerBackbone(config, dims).build_block(0)
    place_globals(block.mixer, *globals_of(case))
    return block


def call(module: nn.Module, weights: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Run our module with their weights, all of them."""
    ours = dict(module.named_parameters())
    if set(ours) != set(weights):
        raise Unmapped(f"weights {sorted(set(ours) ^ set(weights))} have no counterpart")
    for name, weight in weights.items():
        if ours[name].shape != weight.shape:
            raise Unmapped(f"{name}: ours {tuple(ours[name].shape)}, theirs {tuple(weight.shape)}")
    return functional_call(module, weights, args, kwargs)


def at_real(case: Case, y: Tensor) -> Tensor:
    """The case says: compare at real tokens only (its cotangent is zero at pads)."""
    mask = mask_of(case)
    return y if mask is None else torch.where(mask[..., None], y, case.tensors["out.y"])


# -- ops -----------------------------------------------------------------------------------------------------------


def op(case: Case) -> dict[str, Tensor]:
    known(case, "head_dim", "dilation", "dilation_per_head")
    config, w = case.config, case.config["one_sided_window"]
    dilation = dilations(case)
    if "dilation" in case.inputs and case.inputs["dilation"].tolist() != dilation:
        raise Unmapped(f"dilation {dilation}, but the input says {case.inputs['dilation'].tolist()}")
    q, k, v = (case.inputs[n].transpose(1, 2) for n in "qkv")
    pattern = {"window": (w, w), "dilation": dilation, "causal": config["causal"], "mask": mask_of(case)}
    y = longformer_attention(q, k, v, **pattern)
    mask = mask_of(case)
    y = y if mask is None else y.masked_fill(~mask[:, None, :, None], 0)
    values = {"out.y": y.transpose(1, 2)}
    if "out.band" in case.tensors:
        # with one-hot values the output of a query is its row of weights
        length, width = q.shape[2], case.tensors["out.band"].shape[-1]
        one_hot = torch.eye(length, dtype=q.dtype).expand(q.shape[0], q.shape[1], -1, -1)
        rows = F.pad(longformer_attention(q, k, one_hot, **pattern), (0, 1))  # (B, H, L, L + 1)
        steps = torch.tensor(dilation)[:, None, None] * (torch.arange(width) - w)
        j = torch.arange(length)[:, None] + steps  # (H, L, width)
        j = torch.where((j >= 0) & (j < length), j, length).expand(q.shape[0], -1, -1, -1)
        values["out.band"] = rows.gather(-1, j).transpose(1, 2)
    return values


# -- layers --------------------------------------------------------------------------------------------------------


def attention(case: Case) -> dict[str, Tensor]:
    """LongformerSelfAttention of transformers and of allenai: six projections, nothing after the heads are joined."""
    known(case, *HF, "dilation", "dilation_per_head")
    config, params, d_model = case.config, case.params, case.config["d_model"]
    separate = "query_global.weight" in params
    if config["output_projection"]:
        raise Unmapped("an output projection without weights")
    weights = {}
    for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
        for suffix in ("", "_global") if separate else ("",):
            for kind in ("weight", "bias"):
                weights[f"{ours}{suffix}.{kind}"] = params[f"{theirs}{suffix}.{kind}"]
    weights |= {"out.weight": torch.eye(d_model, dtype=case.dtype), "out.bias": torch.zeros(d_model, dtype=case.dtype)}
    ours = LongformerConfig(
        window=[2 * config["one_sided_window"]],
        n_heads=config["heads"],
        n_global=int(separate),
    )
    mixer = LongformerAttention(ours, d_model, layer=0, causal=config["causal"])
    mixer.dilations = tuple(dilations(case))
    place_globals(mixer, *globals_of(case))
    return {"out.y": call(mixer, weights, case.inputs["x"], mask=mask_of(case))[0]}


def layer(case: Case) -> dict[str, Tensor]:
    """LongformerLayer: post-norm, exact gelu."""
    known(case, *HF, "dilation")
    config = case.config
    if not config["output_projection"]:
        raise Unmapped("a layer without output projection")
    ours = LongformerConfig(
        window=[2 * config["one_sided_window"]],
        dilation=[config.get("dilation", 1)],
        n_heads=config["heads"],
        n_global=1,
        d_ff=config["d_ff"],
        norm_eps=config["layer_norm_eps"],
        prenorm=False,
    )
    block = block_of(ours, case)
    prefix, module = "longformer.encoder.layer.0.", "stack.blocks.0."
    weights = mapped_tensors(CONVERSION.key_map(ours), block.state_dict(), case.params, prefix, module=module)
    return {"out.y": at_real(case, call(block, weights, case.inputs["x"], mask=mask_of(case))[0])}


def lra_block(case: Case) -> dict[str, Tensor]:
    """LRA's LongformerBlock: pre-norm, tanh gelu, a window that counts the token itself."""
    config, params, theirs = case.config, case.params, "LongformerAttention_1."
    known(
        case,
        "d_model",
        "qkv_dim",
        "head_dim",
        "d_mlp",
        "sliding_window_size",
        "ln_eps",
        "keys_left_including_self",
        "keys_right",
    )
    weights = {"mixer.out.weight": params[theirs + "out.kernel"].flatten(0, 1).T}
    for ours, name in (("q", "query"), ("k", "key"), ("v", "value")):
        for mine, suffix in (("", "_sliding_window"), ("_global", "_global")):
            weights[f"mixer.{ours}{mine}.weight"] = params[f"{theirs}{name}{suffix}.kernel"].flatten(1).T
    for ours, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
        weights |= {f"{ours}.weight": params[f"{name}.scale"], f"{ours}.bias": params[f"{name}.bias"]}
    for ours, name in (("linear1", "Dense_0"), ("linear2", "Dense_1")):
        weights[f"mlp.{ours}.weight"] = params[f"MlpBlock_3.{name}.kernel"].T
        weights[f"mlp.{ours}.bias"] = params[f"MlpBlock_3.{name}.bias"]
    ours_config = LongformerConfig(
        window=[config["sliding_window_size"]],
        counts_self=True,
        n_global=1,
        n_heads=config["heads"],
        d_qkv=config["qkv_dim"],
        d_ff=config["d_mlp"],
        activation="gelu_tanh",
        bias=False,
        norm_eps=config["ln_eps"],
    )
    block = block_of(ours_config, case)
    return {"out.y": at_real(case, call(block, weights, case.inputs["x"], mask=mask_of(case))[0])}


# -- stack ---------------------------------------------------------------------------------------------------------


def model(case: Case) -> dict[str, Tensor]:
    """LongformerModel without pooler: embeddings and their norm here, the layers ours."""
    known(
        case,
        "d_model",
        "d_ff",
        "layer_norm_eps",
        "vocab",
        "pad_token_id",
        "num_layers",
        "position_offset",
        "one_sided_window_per_layer",
        "attention_window_per_layer",
    )
    config, params = case.config, case.params
    ids, pad = case.inputs["input_ids"], config["pad_token_id"]
    real = ids != pad
    place = real.cumsum(1) * real + pad
    if config["position_offset"] != pad + 1:
        raise Unmapped(f"position_offset {config['position_offset']} with pad_token_id {pad}")
    tables = {"word": ids, "position": place, "token_type": case.inputs["token_type_ids"]}
    x = sum(F.embedding(where, params[f"embeddings.{name}_embeddings.weight"]) for name, where in tables.items())
    norm, eps = "embeddings.LayerNorm.", config["layer_norm_eps"]
    x = F.layer_norm(x, (config["d_model"],), params[norm + "weight"], params[norm + "bias"], eps)
    windows = [2 * w for w in config["one_sided_window_per_layer"]]
    ours = LongformerConfig(
        window=windows,
        n_heads=config["heads"],
        n_global=1,
        d_ff=config["d_ff"],
        norm_eps=eps,
        prenorm=False,
    )
    mode = "causal" if config["causal"] else "bidirectional"
    dims = ModelDims(d_model=config["d_model"], n_layers=len(windows), mode=mode, max_len=config["length"])
    backbone = LongformerBackbone(ours, dims)
    for block in backbone.stack.blocks:
        assert isinstance(block, Block)
        place_globals(block.mixer, *globals_of(case))
    weights = mapped_tensors(CONVERSION.key_map(ours), backbone.state_dict(), params, "longformer.")
    y = call(backbone, weights, x, mask=mask_of(case)).hidden
    return {"out.y": at_real(case, y)}
