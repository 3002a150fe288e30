"""Maps the reference vectors of state-spaces/mamba onto `zoo.ops` and the `zoo_mamba` plugin.

Reference ops are channel-first, (B, D, L) and (B, N, L); ours are (B, L, D) and (B, L, N). Every tensor of the file
stays the leaf: our modules run through `functional_call` on transposed and squeezed views of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo.ops.conv import causal_conv1d
from zoo.ops.selective_scan import selective_scan
from zoo_mamba.backbone import MambaBackbone, MambaMixer, a_log, dt_bias
from zoo_mamba.config import MambaConfig


def run(case: Case) -> Result:
    symbol, inputs, params = case.meta["reference"]["symbol"], case.inputs, case.params
    if case.level == "op":
        if "uniform" in inputs:
            return init_op(case)
        if "weight" in params and set(params) <= {"weight", "bias"}:
            return conv_op(case)
        if {"u", "delta", "A", "B", "C"} <= set(inputs):
            return scan_op(case)
    elif "ids" in inputs and any(name.endswith("embedding.weight") for name in params):
        return language_model(case)
    elif "in_proj.weight" in params:
        return mixer(case)
    raise Unmapped(f"mamba/{case.name}: level {case.level}, {symbol}")


# -- ops ---------------------------------------------------------------------------------------------------------------


def init_op(case: Case) -> Result:
    known(case, "d_model d_state dt_rank dt_min dt_max dt_init_floor dt_init dt_scale expand d_conv")
    c = case.config
    if c.get("dt_init", "random") not in get_args(get_type_hints(MambaConfig)["dt_init"]):
        raise Unmapped(f"dt_init {c['dt_init']!r}")
    uniform = case.inputs["uniform"].detach()
    bias = dt_bias(uniform, c["dt_min"], c["dt_max"], c["dt_init_floor"])
    config = MambaConfig(
        expand=uniform.shape[0] // c["d_model"],
        **{k: c[k] for k in ("d_state", "dt_rank", "dt_init", "dt_scale") if c.get(k) not in (None, "auto")},
    )
    built = MambaMixer(config, c["d_model"], 1)
    assert torch.equal(built.A_log, a_log(uniform.shape[0], c["d_state"]))
    values = {"y": bias, "dt": F.softplus(bias), "A_log": built.A_log.detach(), "D": built.D.detach()}
    return Result({f"out.{name}": value for name, value in values.items()})


def conv_op(case: Case) -> Result:
    known(case, "dim d_conv L L1 L2 bias activation batch")
    c, params = case.config, case.params
    if bool(c.get("bias", True)) != ("bias" in params):
        raise Unmapped(f"bias {c['bias']!r}, parameters {sorted(params)}")
    activation = c.get("activation", "silu")
    if activation not in ("silu", "swish", None, "none", "identity"):
        raise Unmapped(f"activation {activation!r}")
    x = case.inputs["x"].transpose(1, 2)  # (B, L, D)
    weight, bias = params["weight"].squeeze(1), params.get("bias")
    cut = c.get("L1", x.shape[1])
    first, state = causal_conv1d(x[:, :cut], weight, bias)
    pieces = [first]
    if cut < x.shape[1]:
        pieces.append(causal_conv1d(x[:, cut:], weight, bias, state=state)[0])
    y = torch.cat(pieces, 1)
    torch.testing.assert_close(causal_conv1d(x, weight, bias)[0], y, rtol=1e-12, atol=1e-12)
    y = (F.silu(y) if activation in ("silu", "swish") else y).transpose(1, 2)
    values = {"out.y": y, "out.conv_state_after_first": state}
    return Result(values | gradients(case, y))


def scan_op(case: Case) -> Result:
    known(case, "batch dim dstate L L1 L2 delta_softplus D z delta_bias")
    c, inputs = case.config, case.inputs
    for name in ("D", "z", "delta_bias"):
        if name in c and bool(c[name]) != (name in inputs):
            raise Unmapped(f"{name}={c[name]!r}, inputs {sorted(inputs)}")
    y, last = selective_scan(
        inputs["u"].transpose(1, 2),
        inputs["delta"].transpose(1, 2),
        inputs["A"],
        inputs["B"].transpose(1, 2),
        inputs["C"].transpose(1, 2),
        D=inputs.get("D"),
        z=inputs["z"].transpose(1, 2) if "z" in inputs else None,
        delta_bias=inputs.get("delta_bias"),
        delta_softplus=bool(c["delta_softplus"]),
        h0=inputs.get("state0"),
    )
    y = y.transpose(1, 2)
    return Result({"out.y": y, "out.last_state": last} | gradients(case, y))


# -- layer -------------------------------------------------------------------------------------------------------------


def our_names(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reference's mixer parameters under our names and in our shapes."""
    ours = {}
    for name, value in params.items():
        if name == "conv1d.weight":
            ours["conv.weight"] = value.squeeze(1)
        elif name == "conv1d.bias":
            ours["conv.bias"] = value
        else:
            ours[name] = value
    return ours


def mixer_config(case: Case, params: Mapping[str, Tensor], **more: Any) -> tuple[MambaConfig, int]:
    """Configuration from `case.config`, which must agree with the tensors."""
    c = case.config
    E, _, d_conv = params["conv1d.weight"].shape
    d_model = params["in_proj.weight"].shape[1]
    found = {
        "d_model": d_model,
        "d_state": params["A_log"].shape[1],
        "d_conv": d_conv,
        "expand": E // d_model,
        "dt_rank": params["dt_proj.weight"].shape[1],
        "bias": "in_proj.bias" in params,
        "conv_bias": "conv1d.bias" in params,
    }
    for name, value in found.items():
        if name in c and c[name] not in (value, "auto"):
            raise Unmapped(f"{name}: configuration says {c[name]!r}, tensors {value!r}")
    return MambaConfig(**{k: v for k, v in found.items() if k != "d_model"}, **more), d_model


def mixer(case: Case) -> Result:
    known(case, "d_model d_state d_conv expand dt_rank bias conv_bias L segments batch")
    config, d_model = mixer_config(case, case.params)
    ours = our_names(case.params)
    layer = MambaMixer(config, d_model, 1).to(case.dtype)
    unmapped = set(ours) ^ set(dict(layer.named_parameters()))
    if unmapped:
        raise Unmapped(f"parameters {sorted(unmapped)}")

    def call(*args: Any, **kwargs: Any) -> Any:
        return functional_call(layer, ours, args, kwargs)

    x, values = case.inputs["x"], {}
    if "segments" in case.config:
        if sum(case.config["segments"]) != x.shape[1]:
            raise Unmapped(f"segments {case.config['segments']} of a sequence of {x.shape[1]}")
        ys, state = [], None
        for i, piece in enumerate(x.split(case.config["segments"], 1), 1):
            y, state = call(piece, state=state)
            ys.append(y)
            values |= {f"out.conv_state_{i}": state["conv"], f"out.ssm_state_{i}": state["ssm"]}
        y = torch.cat(ys, 1)
    else:
        y, state = call(x)
    values |= {"out.y": y, "out.conv_state_final": state["conv"], "out.ssm_state_final": state["ssm"]}
    values |= gradients(case, y)
    if "out.y_step" in case.tensors:
        with torch.no_grad():
            stepped = MambaMixer(config, d_model, 1).to(case.dtype)
            stepped.load_state_dict({name: value.detach() for name, value in ours.items()})
            state, ys = stepped.init_state(x.shape[0], device=x.device, dtype=x.dtype), []
            for x_t in x.unbind(1):
                y_t, state = stepped.step(x_t, state)
                ys.append(y_t)
        values["out.y_step"] = torch.stack(ys, 1)
        for name in ("conv", "ssm"):
            torch.testing.assert_close(state[name], values[f"out.{name}_state_final"], rtol=1e-9, atol=1e-11)
    return Result(values)


# -- language model ----------------------------------------------------------------------------------------------------


def language_model(case: Case) -> Result:
    known(
        case,
        "d_model d_state d_conv expand dt_rank bias conv_bias n_layer vocab_size rms_norm norm_eps norm_epsilon "
        "tie_embeddings residual_in_fp32 fused_add_norm L batch segments pad_vocab_size_multiple",
    )
    c, params = case.config, case.params
    body = {name.removeprefix("backbone."): value for name, value in params.items() if name.startswith("backbone.")}
    embedding = body.pop("embedding.weight")
    head = params.get("lm_head.weight", embedding)
    if c.get("tie_embeddings", True) != (head is embedding):
        raise Unmapped(f"tie_embeddings={c['tie_embeddings']!r}, parameters {sorted(params)}")
    if bool(c["rms_norm"]) == ("norm_f.bias" in body):
        raise Unmapped(f"rms_norm={c['rms_norm']!r}, but norm_f has {'a' if 'norm_f.bias' in body else 'no'} bias")

    n_layers, ours, first = c["n_layer"], {}, {}
    for name, value in body.items():
        if name.startswith("norm_f."):
            ours["stack.final_norm." + name.removeprefix("norm_f.")] = value
            continue
        _, i, part, rest = name.split(".", 3)
        if part == "norm":
            ours[f"stack.blocks.{i}.norm1.{rest}"] = value
        elif part == "mixer":
            ours |= {f"stack.blocks.{i}.mixer.{n}": v for n, v in our_names({rest: value}).items()}
            if i == "0":
                first[rest] = value
        else:
            raise Unmapped(f"parameter backbone.{name}")
    config, d_model = mixer_config(
        case, first, norm="rms" if c["rms_norm"] else "layer", norm_eps=c.get("norm_eps", c.get("norm_epsilon", 1e-5))
    )
    ids = case.inputs["ids"]
    dims = ModelDims(d_model=d_model, n_layers=n_layers, mode="causal", max_len=ids.shape[1])
    backbone = MambaBackbone(config, dims).to(case.dtype)
    unmapped = set(ours) ^ set(dict(backbone.named_parameters()))
    if unmapped:
        raise Unmapped(f"parameters {sorted(unmapped)}")
    hidden = functional_call(backbone, ours, (F.embedding(ids, embedding),)).hidden
    y = hidden @ head.T
    return Result({"out.y": y, "out.hidden": hidden} | gradients(case, y))


# -- shared ------------------------------------------------------------------------------------------------------------


def known(case: Case, names: str) -> None:
    """A configuration key that nobody looks at may mean something: refuse it."""
    unknown = set(case.config) - set(names.split()) - {"note"}
    if unknown:
        raise Unmapped(f"mamba/{case.name}: configuration {sorted(unknown)}")


def gradients(case: Case, y: Tensor) -> dict[str, Tensor]:
    """`grad.*` and, where the initial state is a leaf, `altgrad.*` of sum(y · cotangent)."""
    loss = (y * case.inputs["cotangent"].detach()).sum()
    found: dict[str, Tensor] = {}
    for prefix in ("grad.", "altgrad."):
        if any(name.startswith(prefix) for name in case.tensors):
            found |= case.gradients(loss, prefix, retain=True)
    return found
