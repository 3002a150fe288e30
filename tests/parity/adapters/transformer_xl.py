"""Transformer-XL against kimiyoung/transformer-xl. Their names on the left of MAP, ours on the right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo.nn import LayerNorm, RelativeAttention, RelativeLayer, RelativePositions
from zoo.ops.relative import distances, rel_shift, relative_attention, sinusoids, visible_keys
from zoo_transformer_xl.backbone import TransformerXLBackbone
from zoo_transformer_xl.config import TransformerXLConfig

MAP = {
    "dec_attn.r_net.weight": "attention.W_kR.weight",
    "dec_attn.o_net.weight": "attention.W_o.weight",
    "dec_attn.layer_norm.weight": "norm_attn.weight",
    "dec_attn.layer_norm.bias": "norm_attn.bias",
    "pos_ff.CoreNet.0.weight": "ff.linear1.weight",
    "pos_ff.CoreNet.0.bias": "ff.linear1.bias",
    "pos_ff.CoreNet.3.weight": "ff.linear2.weight",
    "pos_ff.CoreNet.3.bias": "ff.linear2.bias",
    "pos_ff.layer_norm.weight": "norm_ff.weight",
    "pos_ff.layer_norm.bias": "norm_ff.bias",
}


def run(case: Case) -> Result:
    for key, only in (("attn_type", 0), ("ext_len", 0), ("dropout", 0.0), ("dropatt", 0.0)):
        if case.config.get(key, only) != only:
            raise Unmapped(f"{key}={case.config[key]!r}")
    if case.level == "stack":
        return run_stack(case)
    if case.level == "layer":
        return run_layer(case)
    if case.level == "op":
        return run_attention(case) if "q" in case.inputs else run_shift(case)
    raise Unmapped(f"level {case.level!r}")


def finish(case: Case, y: Tensor) -> Result:
    loss = (y * case.inputs["cotangent"].detach()).sum()
    return Result({"out.y": y, **case.gradients(loss)})


def window_of(case: Case) -> int | None:
    kind = case.config.get("mask", "causal")
    if kind == "causal":
        return None
    if kind == "same":
        return case.config["window"] if case.config.get("window") is not None else case.config["mem_len"]
    raise Unmapped(f"mask {kind!r}")


def run_shift(case: Case) -> Result:
    x = case.inputs["x"]
    T, K = x.shape[-2:]
    return finish(case, rel_shift(x, K).masked_fill(~visible_keys(T, K, device=x.device), 0.0))


def run_attention(case: Case) -> Result:
    i, p = case.inputs, case.params
    visible = visible_keys(i["q"].shape[1], i["k"].shape[1], window=window_of(case), device=i["q"].device)
    # the file orders positions by rising distance
    y = relative_attention(i["q"], i["k"], i["v"], i["r_k"].flip(0), p["r_w_bias"], p["r_r_bias"], visible)
    return finish(case, y)


def config_of(case: Case, params: dict[str, Tensor], prefix: str = "") -> TransformerXLConfig:
    c = case.config
    H, E = params["r_w_bias"].shape
    clamp = c.get("clamp_len", -1)
    return TransformerXLConfig(
        n_heads=H,
        d_head=E,
        d_ff=params[prefix + "pos_ff.CoreNet.0.weight"].shape[0],
        mem_len=c["mem_len"],
        pre_lnorm=c["pre_lnorm"],
        same_length=c.get("same_length", False),
        clamp_len=clamp if clamp > 0 else None,
    )


def layer_parameters(theirs: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Our parameters of one layer as functions of theirs."""
    q, k, v = theirs[prefix + "dec_attn.qkv_net.weight"].chunk(3)
    ours = {"attention.W_q.weight": q, "attention.W_kE.weight": k, "attention.W_v.weight": v}
    return ours | {o: theirs[prefix + t] for t, o in MAP.items()}


def set_eps(module: torch.nn.Module, case: Case) -> None:
    for part in module.modules():
        if isinstance(part, LayerNorm):
            part.eps = case.config.get("ln_eps", 1e-5)


def run_layer(case: Case) -> Result:
    x, p = case.inputs["x"], case.params
    B, T, D = x.shape
    mems = case.inputs.get("mems", x.new_zeros(B, 0, D))
    config = config_of(case, p)
    attention = RelativeAttention(D, config.n_heads, p["r_w_bias"].shape[1])
    layer = RelativeLayer(attention, D, config.d_ff or 4 * D, pre_lnorm=config.pre_lnorm).to(case.dtype)
    set_eps(layer, case)
    K = mems.shape[1] + T
    distance = distances(T, K, two_sided=False, device=x.device)
    R = sinusoids(distance, D, config.clamp_len).to(x.dtype)
    visible = visible_keys(T, K, window=window_of(case), device=x.device)
    places = RelativePositions(R, p["r_w_bias"], p["r_r_bias"])
    y = functional_call(layer, layer_parameters(p), (torch.cat([mems, x], dim=1), T, places, visible), strict=True)
    return finish(case, y)


def run_stack(case: Case) -> Result:
    c, p = case.config, case.params
    tokens, E = case.inputs["tokens"], p["word_emb.emb_layers.0.weight"]
    D = E.shape[1]
    dims = ModelDims(d_model=D, n_layers=c["n_layer"], mode="causal", max_len=tokens.shape[1])
    backbone = TransformerXLBackbone(config_of(case, p, "layers.0."), dims).to(case.dtype)
    set_eps(backbone, case)
    ours = {"u": p["r_w_bias"], "v": p["r_r_bias"]}
    for n in range(c["n_layer"]):
        ours |= {f"layers.{n}.{name}": value for name, value in layer_parameters(p, f"layers.{n}.").items()}

    def drive(lengths: list[int]) -> tuple[Tensor, list[Any]]:
        hidden, states, state = [], [], None
        for piece in tokens.split(lengths, dim=1):
            out = functional_call(backbone, ours, (E[piece] * D**0.5,), {"state": state}, strict=True)
            state = out.state
            hidden.append(out.hidden)
            states.append(state)
        return torch.cat(hidden, dim=1), states

    y, states = drive(c["segment_lengths"])
    values = {"out.y": y}
    loss = (y * case.inputs["cotangent"].detach()).sum()
    for name in case.wanted:
        if name.startswith("out.mems_after_seg"):
            segment, layer = map(int, name.removeprefix("out.mems_after_seg").split("."))
            values[name] = memory_of(states[segment], layer, y, sum(c["segment_lengths"][: segment + 1]))
    if "targets" in case.inputs:
        logits = F.linear(y, p.get("crit.out_layers.0.weight", E), p["crit.out_layers.0.bias"])
        values["out.nll"] = F.cross_entropy(logits.transpose(1, 2), case.inputs["targets"], reduction="none")
        loss = loss + 0.1 * values["out.nll"].sum()
    values |= case.gradients(loss, retain=True)
    if "out.y_step" in case.wanted:
        values["out.y_step"] = drive([1] * tokens.shape[1])[0]
    if "out.y_full" in case.wanted:
        full, _ = drive([tokens.shape[1]])
        values["out.y_full"] = full
        values |= case.gradients((full * case.inputs["cotangent"].detach()).sum(), "grad_full.")
    return Result(values)


def memory_of(state: Any, layer: int, y: Tensor, seen: int) -> Tensor:
    """The real rows of a memory. Nobody reads that of the top layer, so ours carries none: it is the end of y."""
    valid = state["valid"]
    rows = int(valid[0].sum())
    assert bool((valid.sum(1) == rows).all())
    assert bool(valid[:, valid.shape[1] - rows :].all())
    if layer < len(state["memory"]):
        return state["memory"][layer][:, valid.shape[1] - rows :]
    return y[:, seen - rows : seen]
