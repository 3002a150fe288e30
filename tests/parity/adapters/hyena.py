"""Hyena against HazyResearch/safari: filters, long convolution, operators of any order, the language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo_hyena.backbone import HyenaBackbone, HyenaFilter, HyenaMixer
from zoo_hyena.config import HyenaConfig
from zoo_hyena.op import decay_rates, features, long_conv, times

KNOWN = {
    *("channels", "d_model", "seq_len", "l_max", "length", "batch", "order", "n_layer", "d_inner", "vocab"),
    *("emb_dim", "filter_order", "w", "num_inner_mlps", "short_filter_order", "layer_norm_eps", "normalized"),
    *("shift", "fast_decay_pct", "slow_decay_pct", "target"),
}
ONLY = {"num_heads": 1, "inner_factor": 1, "num_blocks": 1, "activation": "id", "attn_layer_idx": None}
"""Settings of the reference with one sound value; the others crash there or make blocks of the input independent."""


def run(case: Case) -> Result:
    for key, value in case.config.items():
        if key not in KNOWN and (key not in ONLY or ONLY[key] != value):
            raise Unmapped(f"hyena/{case.name}: {key}={value!r}")
    if "tokens" in case.inputs:
        return run_lm(case)
    if "u" in case.inputs:
        return run_layer(case)
    if "implicit_filter.0.weight" in case.params:
        return run_filter(case)
    raise Unmapped(f"hyena/{case.name}: level {case.level}, inputs {sorted(case.inputs)}")


def config_of(case: Case) -> HyenaConfig:
    c = case.config
    return HyenaConfig(
        order=c.get("order", 2),
        short_taps=c.get("short_filter_order", 3),
        filter_width=c["filter_order"],
        filter_layers=c["num_inner_mlps"],
        emb_dim=c["emb_dim"],
        w=c["w"],
        fast_decay_pct=c["fast_decay_pct"],
        slow_decay_pct=c["slow_decay_pct"],
        decay_target=c["target"],
        shift=c["shift"],
        normalized=c["normalized"],
        d_ff=c.get("d_inner"),
        norm_eps=c.get("layer_norm_eps", 1e-5),
        positions_lr=1e-5,
    )


def longest(case: Case) -> int:
    return case.config["seq_len"] if "seq_len" in case.config else case.config["l_max"]


def filter_names(case: Case, theirs: str, ours: str) -> dict[str, Tensor]:
    """Our HyenaFilter's parameters from theirs; checks that their features and buffers are our formulas."""
    params, M = case.params, longest(case)
    check_rates(case, params, theirs)
    z = params[f"{theirs}pos_emb.z"]
    if "formula value" in case.meta["params"][f"{theirs}pos_emb.z"]:
        torch.testing.assert_close(features(M, M, z.shape[-1]), z.detach()[0], rtol=1e-12, atol=1e-13)
    if f"{theirs}pos_emb.t" in params:
        torch.testing.assert_close(times(M, M), params[f"{theirs}pos_emb.t"].detach().flatten(), rtol=1e-12, atol=1e-14)
    named = {f"{ours}z": z[0], f"{ours}freq": params[f"{theirs}implicit_filter.1.freq"][0]}
    for name, value in params.items():
        if name.startswith(f"{theirs}implicit_filter.") and not name.endswith("freq"):
            place, kind = name.removeprefix(f"{theirs}implicit_filter.").split(".")
            named[f"{ours}forwards.layers.{int(place) // 2}.{kind}"] = value
    return named


def check_rates(case: Case, params: dict[str, Tensor], theirs: str) -> None:
    deltas = params.get(f"{theirs}modulation.deltas")
    if deltas is not None:
        c = case.config
        ours = decay_rates(deltas.numel(), c["fast_decay_pct"], c["slow_decay_pct"], c["target"])
        torch.testing.assert_close(ours, deltas.detach().abs().flatten(), rtol=1e-12, atol=1e-13)


def finish(case: Case, y: Tensor, **more: Tensor) -> Result:
    values = {f"out.{name}": value for name, value in (("y", y), *more.items())}
    return Result(values | case.gradients((y * case.inputs["cotangent"].detach()).sum()))


def run_filter(case: Case) -> Result:
    """The filter alone, or with the convolution of a signal."""
    M, C, L = longest(case), case.config["channels"], case.config["length"]
    module = HyenaFilter(config_of(case), C, M, bidirectional=False).to(case.dtype)
    k, _ = functional_call(module, filter_names(case, "", ""), (L,), strict=True)
    if "x" not in case.inputs:
        return finish(case, k.T)
    return finish(case, long_conv(case.inputs["x"], k, case.params["bias"]), filter=k.T)


def mixer_names(case: Case, theirs: str, ours: str) -> dict[str, Tensor]:
    p = case.params
    named = filter_names(case, f"{theirs}filter_fn.", f"{ours}filter.")
    named[f"{ours}bias"] = p[f"{theirs}filter_fn.bias"]
    named[f"{ours}short_filter.weight"] = p[f"{theirs}short_filter.weight"].squeeze(1)
    for name in ("in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias", "short_filter.bias"):
        named[ours + name] = p[theirs + name]
    return named


def run_layer(case: Case) -> Result:
    u = case.inputs["u"]
    mixer = HyenaMixer(config_of(case), u.shape[-1], longest(case), bidirectional=False).to(case.dtype)
    named = mixer_names(case, "", "")
    y, _ = functional_call(mixer, named, (u,), strict=True)
    own = {name.removeprefix("filter."): value for name, value in named.items() if name.startswith("filter.")}
    k, _ = functional_call(mixer.filter, own, (u.shape[1],), strict=True)
    return finish(case, y, filter=k.T)


BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.linear1.weight": "mlp.fc1.weight",
    "mlp.linear1.bias": "mlp.fc1.bias",
    "mlp.linear2.weight": "mlp.fc2.weight",
    "mlp.linear2.bias": "mlp.fc2.bias",
}


def run_lm(case: Case) -> Result:
    """Embedding, blocks, final norm; logits by the tied embedding, or by a head where the file has one."""
    c, p, tokens = case.config, case.params, case.inputs["tokens"]
    E = p["backbone.embeddings.word_embeddings.weight"]
    dims = ModelDims(d_model=E.shape[1], n_layers=c["n_layer"], mode="causal", max_len=longest(case))
    backbone: nn.Module = HyenaBackbone(config_of(case), dims).to(case.dtype)
    named: dict[str, Any] = {
        "stack.final_norm.weight": p["backbone.ln_f.weight"],
        "stack.final_norm.bias": p["backbone.ln_f.bias"],
    }
    for i in range(c["n_layer"]):
        theirs, ours = f"backbone.layers.{i}.", f"stack.blocks.{i}."
        named |= {ours + o: p[theirs + t] for o, t in BLOCK.items()}
        named |= mixer_names(case, f"{theirs}mixer.", f"{ours}mixer.")
    hidden = functional_call(backbone, named, (F.embedding(tokens, E),), strict=True).hidden
    return finish(case, F.linear(hidden, p.get("lm_head.weight", E)), hidden=hidden)
