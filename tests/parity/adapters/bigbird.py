"""BigBird vectors: transformers' block-sparse attention and model, DeepSpeed's causal layout, LRA's flax block."""

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
from zoo_bigbird.backbone import BigBirdAttention, BigBirdBackbone
from zoo_bigbird.config import BigBirdConfig
from zoo_bigbird.convert import CONVERSION
from zoo_bigbird.op import Pattern, bigbird_attention, build_pattern

COMMON = {"batch", "length", "lengths", "causal", "heads", "block_size", "num_random_blocks"}
HF = {"d_model", "d_ff", "layer_norm_eps", "output_projection"}


def run(case: Case) -> Result:
    params = case.params
    if case.level == "op":
        values = op(case)
    elif "query.weight" in params:
        values = attention(case)
    elif "attention.self.query.weight" in params:
        values = layer(case)
    elif "BigBirdAttention_1.out.kernel" in params:
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


def pattern_of(case: Case, chosen: Tensor) -> Pattern:
    """The reference's random blocks: (H, n - 2, r) for blocks 1 .. n - 2, causally (H, n, r).

    The reference's last block is that of the padded length, also for a shorter example.
    """
    if case.config["causal"]:
        return build_pattern(chosen[None], None)
    n = chosen.shape[1] + 2
    return build_pattern(F.pad(chosen, (0, 0, 1, 1), value=-1)[None], torch.tensor([n - 1]))


def place_pattern(mixer: nn.Module, pattern: Pattern) -> None:
    """The reference's blocks in place of ours."""
    assert isinstance(mixer, BigBirdAttention)
    mixer.pattern = lambda length, mask: pattern  # type: ignore[method-assign]


def block_of(config: BigBirdConfig, case: Case, max_len: int) -> Block:
    """The block of the first layer, with the reference's pattern."""
    mode = "causal" if case.config["causal"] else "bidirectional"
    dims = ModelDims(d_model=case.config["d_model"], n_layers=1, mode=mode, max_len=max_len)
    block = BigBirdBackbone(config, dims).build_block(0)
    place_pattern(block.mixer, pattern_of(case, case.inputs["rand_attn"]))
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
    return y if mask is None else torch.where(mask[:, :, None], y, case.tensors["out.y"])


def extended(case: Case, x: Tensor) -> tuple[Tensor, Tensor]:
    """x and its mask, longer by the pads that the reference works on."""
    more = case.config.get("padded_length", x.shape[1]) - x.shape[1]
    mask = mask_of(case)
    mask = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    return F.pad(x, (0, 0, 0, more)), F.pad(mask, (0, more))


# -- ops -----------------------------------------------------------------------------------------------------------


def op(case: Case) -> dict[str, Tensor]:
    known(case, "head_dim", "num_sliding_window_blocks", "num_global_blocks")
    config = case.config
    for name, offered in (("num_sliding_window_blocks", 3), ("num_global_blocks", 1)):
        if config.get(name, offered) != offered:
            raise Unmapped(f"{name} {config[name]}")
    q, k, v = (case.inputs[n] for n in "qkv")
    pattern, block = pattern_of(case, case.inputs["rand_attn"]), config["block_size"]
    y = bigbird_attention(q, k, v, pattern=pattern, block=block, mask=mask_of(case))
    y = y.transpose(1, 2)
    if config["causal"]:
        mask = mask_of(case)
        y = y if mask is None else torch.where(mask[..., None, None], y, case.tensors["out.y"])
    values = {"out.y": y}
    if "out.dense_mask" in case.tensors:
        # with one-hot values the output of a query is its row of weights, and a weight is zero only where none is due
        one_hot = torch.eye(q.shape[2], dtype=q.dtype).expand(q.shape[0], q.shape[1], -1, -1)
        values["out.dense_mask"] = bigbird_attention(q, k, one_hot, pattern=pattern, block=block)[0] > 0
    return values


# -- layers --------------------------------------------------------------------------------------------------------


def attention(case: Case) -> dict[str, Tensor]:
    """BigBirdBlockSparseAttention: three projections, nothing after the heads are joined."""
    known(case, *HF, "padded_length")
    config, params, d_model = case.config, case.params, case.config["d_model"]
    if config["output_projection"]:
        raise Unmapped("an output projection without weights")
    weights = {"out.weight": torch.eye(d_model, dtype=case.dtype), "out.bias": torch.zeros(d_model, dtype=case.dtype)}
    for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
        weights |= {f"{ours}.{kind}": params[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    ours = BigBirdConfig(n_heads=config["heads"], block_size=config["block_size"])
    x, mask = extended(case, case.inputs["x"])
    mixer = BigBirdAttention(ours, d_model, layer=0, causal=config["causal"], max_len=x.shape[1])
    place_pattern(mixer, pattern_of(case, case.inputs["rand_attn"]))
    return {"out.y": call(mixer, weights, x, mask=mask)[0][:, : config["length"]]}


def layer(case: Case) -> dict[str, Tensor]:
    """BigBirdLayer: post-norm, tanh gelu."""
    known(case, *HF, "padded_length")
    config = case.config
    if not config["output_projection"]:
        raise Unmapped("a layer without output projection")
    ours = BigBirdConfig(
        n_heads=config["heads"],
        block_size=config["block_size"],
        d_ff=config["d_ff"],
        norm_eps=config["layer_norm_eps"],
        prenorm=False,
    )
    x, mask = extended(case, case.inputs["x"])
    block = block_of(ours, case, x.shape[1])
    prefix, module = "bert.encoder.layer.0.", "stack.blocks.0."
    weights = mapped_tensors(CONVERSION.key_map(ours), block.state_dict(), case.params, prefix, module=module)
    y = call(block, weights, x, mask=mask)[0]
    return {"out.y": at_real(case, y[:, : config["length"]])}


def lra_block(case: Case) -> dict[str, Tensor]:
    """LRA's BigBirdBlock: pre-norm, tanh gelu, no biases in the attention."""
    config, params, theirs = case.config, case.params, "BigBirdAttention_1."
    known(case, "d_model", "qkv_dim", "head_dim", "d_mlp", "ln_eps", "padded_length")
    weights = {"mixer.out.weight": params[theirs + "out.kernel"].flatten(0, 1).T}
    for ours, name in (("q", "query"), ("k", "key"), ("v", "value")):
        weights[f"mixer.{ours}.weight"] = params[f"{theirs}{name}.kernel"].flatten(1).T
    for ours, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
        weights |= {f"{ours}.weight": params[f"{name}.scale"], f"{ours}.bias": params[f"{name}.bias"]}
    for ours, name in (("linear1", "Dense_0"), ("linear2", "Dense_1")):
        weights[f"mlp.{ours}.weight"] = params[f"MlpBlock_3.{name}.kernel"].T
        weights[f"mlp.{ours}.bias"] = params[f"MlpBlock_3.{name}.bias"]
    ours_config = BigBirdConfig(
        n_heads=config["heads"],
        block_size=config["block_size"],
        d_qkv=config["qkv_dim"],
        d_ff=config["d_mlp"],
        activation="gelu_tanh",
        bias=False,
        norm_eps=config["ln_eps"],
    )
    x, mask = extended(case, case.inputs["x"])
    block = block_of(ours_config, case, x.shape[1])
    y = call(block, weights, x, mask=mask)[0]
    return {"out.y": at_real(case, y[:, : config["length"]])}


# -- stack ---------------------------------------------------------------------------------------------------------


def model(case: Case) -> dict[str, Tensor]:
    """BigBirdModel without pooler: embeddings and their norm here, the layers ours."""
    known(case, "d_model", "d_ff", "layer_norm_eps", "vocab", "pad_token_id", "num_layers", "padded_length")
    config, params, length = case.config, case.params, case.config["length"]
    tables = {
        "word": case.inputs["input_ids"],
        "position": torch.arange(length)[None],
        "token_type": case.inputs["token_type_ids"],
    }
    x = sum(F.embedding(where, params[f"embeddings.{name}_embeddings.weight"]) for name, where in tables.items())
    norm, eps, n_layers = "embeddings.LayerNorm.", config["layer_norm_eps"], config["num_layers"]
    x = F.layer_norm(x, (config["d_model"],), params[norm + "weight"], params[norm + "bias"], eps)
    ours = BigBirdConfig(
        n_heads=config["heads"],
        block_size=config["block_size"],
        d_ff=config["d_ff"],
        norm_eps=eps,
        prenorm=False,
    )
    x, mask = extended(case, x)
    mode = "causal" if config["causal"] else "bidirectional"
    backbone = BigBirdBackbone(
        ours, ModelDims(d_model=config["d_model"], n_layers=n_layers, mode=mode, max_len=x.shape[1])
    )
    for n, block in enumerate(backbone.stack.blocks):
        assert isinstance(block, Block)
        place_pattern(block.mixer, pattern_of(case, case.inputs["rand_attn"][n]))
    weights = mapped_tensors(CONVERSION.key_map(ours), backbone.state_dict(), params, "bert.")
    y = call(backbone, weights, x, mask=mask).hidden
    return {"out.y": at_real(case, y[:, :length])}
