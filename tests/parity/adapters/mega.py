"""Mega against facebookresearch/mega: averages, biases, gated attention, layers and encoders.

The reference is time-first (L, B, D), keeps the two directions of the average as 2 D rows, and has the names of
alpha and delta the other way round than the paper, which the plugin follows.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.func import functional_call

import zoo_mega.op
from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo.nn import BatchNorm
from zoo_mega.backbone import MegaBackbone, MovingAverage
from zoo_mega.config import MegaConfig
from zoo_mega.op import relative_bias

NORMS = {"layernorm": "layer", "rmsnorm": "rms", "scalenorm": "scale", "batchnorm": "batch", "syncbatchnorm": "batch"}


def run(case: Case) -> Result:
    runners: tuple[tuple[str, Callable[[Case], Result]], ...] = (
        ("delta", run_average),
        ("rel_pos_bias", run_bias),
        ("alpha", run_bias),
        ("layers.0.mega_layer.gamma", run_encoder),
        ("mega_layer.gamma", run_layer),
        ("mx_proj.weight", run_layer),
    )
    for name, runner in runners:
        if name in case.params:
            return runner(case)
    raise Unmapped(f"{case.name}: neither average, bias, gated attention, layer nor encoder")


# -- parameters --------------------------------------------------------------------------------------------------------


def average(p: dict[str, Tensor], prefix: str, directions: int) -> dict[str, Tensor]:
    """Theirs (R D, N, 1) -> ours (R, D, N)."""
    names = {"alpha": "delta", "delta": "alpha", "beta": "beta", "eta": "gamma"}
    named = {
        ours: p[prefix + theirs].reshape(directions, -1, p[prefix + "gamma"].shape[1]) for ours, theirs in names.items()
    }
    return named | {"omega": p[prefix + "omega"]}


def norm(p: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """weight, bias, running statistics: named alike, but for the scale norm's one weight."""
    named = {k.removeprefix(prefix).replace("scalar", "weight"): v for k, v in p.items() if k.startswith(prefix)}
    if "running_mean" in named:
        # the buffers are updated in place, and a leaf that requires a gradient cannot be
        named |= {k: named[k].detach().clone() for k in ("running_mean", "running_var")}
        named["num_batches_tracked"] = torch.tensor(0)
    return named


def bias(p: dict[str, Tensor], prefix: str = "") -> list[Tensor]:
    if prefix + "rel_pos_bias" in p:
        return [p[prefix + "rel_pos_bias"]]
    return [p[prefix + "alpha"].flatten(), p[prefix + "beta"].flatten()]


def gated_attention(p: dict[str, Tensor], prefix: str, directions: int) -> dict[str, Tensor]:
    named = {f"ema.{k}": v for k, v in average(p, prefix + "move.", directions).items()}
    for ours, theirs in {"W_v": "v_proj", "W": "mx_proj", "U_h": "h_proj"}.items():
        named |= {f"{ours}.{part}": p[f"{prefix}{theirs}.{part}"] for part in ("weight", "bias")}
    named |= {f"bias.{i}": w for i, w in enumerate(bias(p, prefix + "rel_pos_bias."))}
    return named | {"kappa": p[prefix + "gamma"], "mu": p[prefix + "beta"]}


def block(p: dict[str, Tensor], prefix: str, directions: int) -> dict[str, Tensor]:
    """A whole layer; without "mega_layer." among the names the gated attention and its norm alone."""
    attention = prefix + ("mega_layer." if f"{prefix}mega_layer.gamma" in p else "")
    named = {f"mixer.{k}": v for k, v in gated_attention(p, attention, directions).items()}
    named |= {f"norm1.{k}": v for k, v in norm(p, f"{attention}norm.norm.").items()}
    if f"{prefix}nffn.fc1.weight" in p:
        for ours, theirs in {"linear1": "fc1", "linear2": "fc2"}.items():
            named |= {f"mlp.{ours}.{part}": p[f"{prefix}nffn.{theirs}.{part}"] for part in ("weight", "bias")}
        named |= {f"norm2.{k}": v for k, v in norm(p, f"{prefix}nffn.norm.norm.").items()}
    return named


# -- configuration -----------------------------------------------------------------------------------------------------


def our_config(case: Case) -> tuple[MegaConfig, ModelDims]:
    c = case.config
    bidirectional = c["bidirectional"]
    if c["activation"] != "silu":
        raise Unmapped(f"{case.name}: activation {c['activation']!r}")
    if c["norm_type"] not in NORMS:
        raise Unmapped(f"{case.name}: norm {c['norm_type']!r}")
    if bidirectional == c.get("causal", not bidirectional):
        raise Unmapped(f"{case.name}: bidirectional={bidirectional} with causal={c['causal']}")
    config = MegaConfig(
        d_attn=c["zdim"],
        d_value=c["hdim"],
        d_ff=c.get("ffn_dim", 1),
        d_ema=c["ndim"],
        attention=c["attention_activation"],
        bias=c["rel_pos_bias"],
        chunk_size=c["chunk_size"],
        max_positions=c["max_positions"],
        truncation=c["truncation"],
        norm=NORMS[c["norm_type"]],
        prenorm=c["prenorm"],
    )
    dims = ModelDims(
        d_model=c["d_model"],
        n_layers=c.get("n_layers", 1),
        mode="bidirectional" if bidirectional else "causal",
        max_len=c["length"],
    )
    if config.truncation is None or bidirectional:  # a causal truncated average exists without its continuation
        config.check(dims)
    return config, dims


def prepared(module: nn.Module, case: Case) -> nn.Module:
    """float64, train or eval as the case says; batch norm counts pads in its statistics as the reference's does."""
    for name, part in list(module.named_modules()):
        if isinstance(part, BatchNorm):
            module.get_submodule(name).__class__ = PadsCount
    return module.to(case.dtype).train(case.config.get("training", True))


class PadsCount(BatchNorm):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Method(nn.Module):
    """One method of a module as a module's forward, for functional_call."""

    def __init__(self, inner: nn.Module, method: str) -> None:
        super().__init__()
        self.inner, self.method = inner, method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.inner, self.method)(*args, **kwargs)


def call(module: nn.Module, parameters: dict[str, Tensor], method: str, *args: Any, **kwargs: Any) -> Any:
    named = {f"inner.{k}": v for k, v in parameters.items()}
    return functional_call(Method(module, method), named, args, kwargs)


# -- runners -----------------------------------------------------------------------------------------------------------


def finish(case: Case, values: dict[str, Tensor], y: Tensor) -> Result:
    values["out.y"] = y
    loss = (y * case.inputs["cotangent"].detach()).sum()
    return Result(values | case.gradients(loss))


def real(case: Case) -> Tensor | None:
    padding = case.inputs.get("padding_mask")
    return None if padding is None else ~padding.bool()


def run_bias(case: Case) -> Result:
    L = case.config["length"]
    return finish(case, {}, relative_bias(bias(case.params), torch.arange(L), L))


def run_average(case: Case) -> Result:
    c, wanted = case.config, case.wanted
    module = MovingAverage(c["d_model"], c["ndim"], bidirectional=c["bidirectional"], truncation=c["truncation"]).to(
        case.dtype
    )
    theirs = average(case.params, "", 2 if c["bidirectional"] else 1)
    x = case.inputs["x"].transpose(0, 1)
    y, state = call(module, theirs, "forward", x, mask=real(case))
    values = {}
    if "out.kernel" in wanted:
        values["out.kernel"] = call(module, theirs, "kernel", x.shape[1], case.dtype).flatten(0, 1)
    if "out.state" in wanted:
        values["out.state"] = state
    if "out.y_step" in wanted:
        values["out.y_step"] = stepped(module, theirs, x, torch.zeros_like(state))
    if "out.y_segments" in wanted:
        pieces, carried = [], None
        for piece in x.split(c["segment"], 1):
            y_piece, carried = call(module, theirs, "forward", piece, state=carried)
            pieces.append(y_piece)
        values["out.y_segments"] = torch.cat(pieces, 1).transpose(0, 1)
        tolerance = case.meta["tolerance"]
        torch.testing.assert_close(carried, state, rtol=tolerance["rtol"], atol=tolerance["atol"])
    return finish(case, values, y.transpose(0, 1))


def stepped(module: nn.Module, parameters: dict[str, Tensor], x: Tensor, state: Any) -> Tensor:
    """x (B, L, D) token by token from `state`: (L, B, D)."""
    ys = []
    for x_t in x.unbind(1):
        y_t, state = call(module, parameters, "step", x_t, state)
        ys.append(y_t)
    return torch.stack(ys)


def run_layer(case: Case) -> Result:
    """The gated attention with its norm and residual, or a layer with its MLP."""
    config, dims = our_config(case)
    module = MegaBackbone(config, dims).build_block(0)
    if "nffn.fc1.weight" not in case.params:
        module.mlp = module.norm2 = None
    module = prepared(module, case)
    theirs = block(case.params, "", 2 if case.config["bidirectional"] else 1)
    x = case.inputs["x"].transpose(0, 1)
    seen: list[Tensor] = []
    compute = zoo_mega.op.attention_weights

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(compute(*args, **kwargs))
        return seen[-1]

    with patch.object(zoo_mega.op, "attention_weights", watched):
        y, _ = call(module, theirs, "forward", x, mask=real(case))
    values = {}
    if "out.attn" in case.wanted:
        (weights,) = seen
        values["out.attn"] = weights if weights.ndim == 4 else weights.unsqueeze(1)
    if "out.y_step" in case.wanted:
        start = module.mixer.init_state(x.shape[0], device="cpu", dtype=x.dtype)
        values["out.y_step"] = stepped(module, theirs, x, start)
    for name in case.wanted:
        if name.endswith((".running_mean", ".running_var")):
            *path, statistic = name.removeprefix("out.").split(".")
            ours = {"mega_layer.norm.norm": "norm1", "norm.norm": "norm1", "nffn.norm.norm": "norm2"}[".".join(path)]
            values[name] = theirs[f"{ours}.{statistic}"]
    return finish(case, values, y.transpose(0, 1))


def run_encoder(case: Case) -> Result:
    """Embedding, layers and mean over the real tokens, as the reference's encoder for the Long Range Arena."""
    config, dims = our_config(case)
    c, p = case.config, case.params
    if c["pooling"] != "mean":
        raise Unmapped(f"{case.name}: pooling {c['pooling']!r}")
    if "tokens" in case.inputs:
        tokens = case.inputs["tokens"]
        x, mask = p["embed_tokens.embed.weight"][tokens], tokens != c["pad_id"]
        x = x.masked_fill(~mask[..., None], 0.0)
        short = case.tensors["out.last"].shape[0] - x.shape[1]  # the reference pads to whole chunks, and shows it
        x, mask = nn.functional.pad(x, (0, 0, 0, short)), nn.functional.pad(mask, (0, short))
    else:
        x, mask = case.inputs["pixels"][..., None] * p["embed_tokens.weight"] + p["embed_tokens.bias"], None
    backbone = MegaBackbone(config, dims)
    blocks = list(backbone.stack.blocks)
    backbone = prepared(backbone, case)
    theirs: dict[str, Tensor] = {}
    for i in range(len(blocks)):
        named = block(p, f"layers.{i}.", 2 if c["bidirectional"] else 1)
        theirs |= {f"stack.blocks.{i}.{k}": v for k, v in named.items()}
    theirs |= {f"stack.final_norm.{k}": v for k, v in norm(p, "final_norm.norm.").items()}
    last = SimpleNamespace(hidden=None)
    blocks[-1].register_forward_hook(lambda _, args, out: setattr(last, "hidden", out[0]))
    hidden = functional_call(backbone, theirs, (x,), {"mask": mask}).hidden
    if mask is not None:
        hidden = hidden.masked_fill(~mask[..., None], 0.0)
    pooled = hidden.sum(1) / case.inputs["lengths"].to(hidden.dtype)[:, None]
    return finish(case, {"out.last": last.hidden.transpose(0, 1)}, pooled)
