"""S5 against lindermanlab/S5: the state space model, its initial values, layers, classifier stacks.

Names of the reference: `Lambda_re`, `Lambda_im`, `log_step` (P, 1), `B` (P, H, 2), `C` (H, P, 2) or `C1`, `C2`, or one
C (H, 2P, 2) with both directions; dense kernels are (in, out); batch norm has `scale`, and `batch_stats.*` beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped, only_block
from zoo import ConfigError, ModelDims
from zoo.nn import BatchNorm
from zoo.ops.backend import use_backend
from zoo.ops.hippo import hippo_legs, legs_low_rank
from zoo.spec.constraints import validate_fields
from zoo_s5.backbone import S5Backbone
from zoo_s5.config import S5Config
from zoo_s5.ssm import S5SSM, blocks_of_hippo_n, to_eigenbasis


def run(case: Case) -> Result:
    if "B_real" in case.inputs:
        return run_init(case)
    if "u" in case.inputs:
        return run_ssm(case)
    return run_stack(case) if case.level == "stack" else run_layer(case)


# -- our parameters from theirs --------------------------------------------------------------------------------------


def our_config(case: Case) -> S5Config:
    c = case.config
    config = S5Config(
        d_state=c["ssm_size"],
        blocks=c["blocks"],
        conj_sym=c["conj_sym"],
        clip_eigs=c["clip_eigs"],
        disc=c["discretization"],
        c_init=c["C_init"],
        step_rescale=c["step_rescale"],
        gate=c.get("activation", "gelu"),
        prenorm=c.get("prenorm", True),
        norm="batch" if c.get("batchnorm") else "layer",
        bn_momentum=c.get("bn_momentum", 0.95),
    )
    if c.get("dropout", 0.0) != 0.0:
        raise Unmapped(f"{case.name}: dropout={c['dropout']}")
    try:
        validate_fields(config)
    except ConfigError as error:
        raise Unmapped(f"{case.name}: {error}") from error
    return config


def bidirectional(case: Case) -> bool:
    return bool(case.config["bidirectional"])


def ssm_parameters(case: Case, at: str = "") -> dict[str, Tensor]:
    """The reference's leaves under the names of S5SSM."""
    p = case.params
    if f"{at}C1" in p:
        C = torch.stack([p[f"{at}C1"], p[f"{at}C2"]])
    else:
        # with both directions in one C, the states stand side by side
        C = torch.stack(p[f"{at}C"].chunk(2 if bidirectional(case) else 1, 1))
    return {
        "Lambda_re": p[f"{at}Lambda_re"],
        "Lambda_im": p[f"{at}Lambda_im"],
        "B": p[f"{at}B"],
        "C": C,
        "D": p[f"{at}D"],
        "log_step": p[f"{at}log_step"][:, 0],
    }


def layer_parameters(case: Case, at: str = "") -> dict[str, Tensor]:
    """The reference's leaves of one SequenceLayer under the names of a block."""
    p, named = case.params, {}
    for name, value in ssm_parameters(case, f"{at}seq.").items():
        named[f"mixer.ssm.{name}"] = value
    for dense in ("out1", "out2"):
        if f"{at}{dense}.kernel" in p:
            named[f"mixer.{dense}.weight"] = p[f"{at}{dense}.kernel"].T
            named[f"mixer.{dense}.bias"] = p[f"{at}{dense}.bias"]
    named["norm1.weight"], named["norm1.bias"] = p[f"{at}norm.scale"], p[f"{at}norm.bias"]
    for ours, theirs in (("running_mean", "mean"), ("running_var", "var")):
        if f"batch_stats.{at}norm.{theirs}" in p:
            # a copy: train mode updates it in place
            named[f"norm1.{ours}"] = p[f"batch_stats.{at}norm.{theirs}"].detach().clone()
    return named


class Method(nn.Module):
    """One method of a module as a module's forward, for functional_call."""

    def __init__(self, module: nn.Module, call: Any) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *args: Any) -> Any:
        return self.call(self.module, *args)


def call(module: nn.Module, named: dict[str, Tensor], function: Any, *args: Any) -> Any:
    """function(module, *args) with `named` in place of the module's own parameters, which must all be there."""
    own = {k for k, _ in module.named_parameters()}
    if own != {k for k in named if "running" not in k}:
        raise Unmapped(f"parameters {sorted(own ^ {k for k in named if 'running' not in k})} have no partner")
    return functional_call(Method(module, function), {f"module.{k}": v for k, v in named.items()}, args)


def pairs(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj())


# -- cases -----------------------------------------------------------------------------------------------------------


def run_init(case: Case) -> Result:
    """HiPPO-N in blocks. Eigenvectors have a free phase each: theirs are turned onto ours after comparing the rest."""
    N, J = case.config["ssm_size"], case.config["blocks"]
    bs = N // J
    A, B_hippo = hippo_legs(bs)
    P = legs_low_rank(bs)
    Lambda, V = blocks_of_hippo_n(N, J, conj_sym=case.config["conj_sym"])
    theirs = torch.view_as_complex(case.tensors["out.Vblock_full"])
    inner = (V.conj() * theirs).sum(0)  # (P,): of modulus one where the two span the same line
    torch.testing.assert_close(inner.abs(), torch.ones_like(inner.abs()), rtol=1e-8, atol=1e-8)
    phase = inner / inner.abs()
    B_tilde = to_eigenbasis(V, case.inputs["B_real"].detach())
    C_tilde = torch.view_as_complex(case.inputs["C_complex"].detach()) @ V
    return Result(
        {
            "out.y": pairs(Lambda),
            "out.A": A,
            "out.P": P,
            "out.B_hippo": B_hippo,
            "out.normal_part": A + P[:, None] * P,
            "out.V_block": pairs((V * phase)[:bs, : V.shape[1] // J]),
            "out.Vblock_full": pairs(V * phase),
            "out.B_tilde": pairs(phase.conj()[:, None] * B_tilde),
            "out.C_tilde": pairs(C_tilde * phase),
            "out.CB_per_state": pairs(torch.einsum("hp,pk->phk", C_tilde, B_tilde)),
        }
    )


def run_ssm(case: Case) -> Result:
    """The state space model alone: whole, token by token, in segments."""
    u = case.inputs["u"]
    model = S5SSM(our_config(case), u.shape[2], bidirectional=bidirectional(case)).double()
    named = ssm_parameters(case)

    def whole(ssm: S5SSM, u: Tensor, x0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ssm.discretize(u.dtype).scan(u, x0)

    y, states = call(model, named, whole, u)
    values = {"out.y": y}
    loss = (y * case.inputs["cotangent"].detach()).sum()
    values |= case.gradients(loss, retain=True)
    with use_backend("reference"):
        slow = call(model, named, whole, u)[0]
    torch.testing.assert_close(slow, y, rtol=1e-9, atol=1e-11)
    if "out.state_final" in case.tensors:
        values["out.state_final"] = pairs(states[:, -1])
    if "out.y_step" in case.tensors:
        x, ys = torch.zeros_like(states[:, 0]), []
        for u_t in u.unbind(1):
            y_t, x = call(model, named, lambda ssm, u_t, x: ssm.discretize(u_t.dtype).step(u_t, x), u_t, x)
            ys.append(y_t)
        values["out.y_step"] = torch.stack(ys, 1)
        torch.testing.assert_close(x, states[:, -1])
    if "segments" in case.config:
        if sum(case.config["segments"]) != u.shape[1]:
            raise Unmapped(f"{case.name}: segments {case.config['segments']} of {u.shape[1]} tokens")
        carried, ys = None, []
        for i, piece in enumerate(u.split(case.config["segments"], 1), 1):
            y, x = call(model, named, whole, piece, carried)
            ys.append(y)
            carried = x[:, -1]
            values[f"out.state_{i}"] = pairs(carried)
        values["out.y"] = torch.cat(ys, 1)
        values |= case.gradients((values["out.y"] * case.inputs["cotangent"].detach()).sum())
    return Result(values)


def run_layer(case: Case) -> Result:
    x = case.inputs["x"]
    block = only_block(S5Backbone, our_config(case), x.shape[2], causal=not bidirectional(case)).double().eval()
    named = layer_parameters(case)
    y, state = call(block, named, lambda block, x: block(x), x)
    values = {"out.y": y}
    values |= case.gradients((y * case.inputs["cotangent"].detach()).sum())
    if not bidirectional(case):
        carried, ys = block.mixer.init_state(x.shape[0], device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, carried = call(block, named, lambda block, x_t, s: block.step(x_t, s), x_t, carried)
            ys.append(y_t)
        torch.testing.assert_close(torch.stack(ys, 1), y, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(carried, state, rtol=1e-9, atol=1e-10)
    return Result(values)


class Unmasked(nn.Module):
    """The reference masks nothing inside its layers; ours does, by choice. This runs ours without."""

    def __init__(self, backbone: S5Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x).hidden


def run_stack(case: Case) -> Result:
    """Encoder, layers, mean over real tokens, head, log-softmax; in eval and in training mode."""
    p, c = case.params, case.config
    config = our_config(case)
    if c.get("mode", "pool") != "pool":
        raise Unmapped(f"{case.name}: mode={c['mode']!r}")
    H = p["encoder.encoder.kernel"].shape[1]
    mode = "bidirectional" if bidirectional(case) else "causal"
    dims = ModelDims(d_model=H, n_layers=c["n_layers"], mode=mode, max_len=c["L"])
    model = Unmasked(S5Backbone(config, dims)).double()
    named = {}
    for i in range(c["n_layers"]):
        for name, value in layer_parameters(case, f"encoder.layers_{i}.").items():
            named[f"backbone.stack.blocks.{i}.{name}"] = value

    x, lengths = case.inputs["x"], case.inputs.get("lengths")

    def scores() -> Tensor:
        h = x @ p["encoder.encoder.kernel"] + p["encoder.encoder.bias"]
        hidden = call(model, named, lambda model, h: model(h), h)
        if lengths is None:
            pooled = hidden.mean(1)
        else:
            real = torch.arange(h.shape[1]) < lengths[:, None]
            pooled = (hidden * real[..., None]).sum(1) / lengths[:, None]
        if "decoder.layer1.kernel" in p:
            a, b = pooled.chunk(2)
            g = torch.cat([a, b, a - b, a * b], -1) @ p["decoder.layer1.kernel"] + p["decoder.layer1.bias"]
            logits = F.gelu(g, approximate="tanh") @ p["decoder.layer2.kernel"] + p["decoder.layer2.bias"]
        else:
            logits = pooled @ p["decoder.kernel"] + p["decoder.bias"]
        return F.log_softmax(logits, -1)

    model.eval()
    y = scores()
    values = {"out.y": y} | case.gradients((y * case.inputs["cotangent"].detach()).sum())
    if "out.y_train_mode" not in case.tensors:
        return Result(values)
    model.train()
    values["out.y_train_mode"] = scores()
    for name in case.tensors:
        if name.startswith("out.after_train."):
            values[name] = after_training(case, model, named, name.removeprefix("out.after_train."))
    return Result(values)


def after_training(case: Case, model: nn.Module, named: dict[str, Tensor], name: str) -> Tensor:
    """A running statistic after one training step. torch stores n/(n-1) times the variance that the reference does."""
    layer, statistic = name.removeprefix("encoder.layers_").split(".norm.")
    at = f"backbone.stack.blocks.{layer}.norm1"
    norm = model.get_submodule(at)
    if not isinstance(norm, BatchNorm):
        raise Unmapped(f"{case.name}: {name} of a {type(norm).__name__}")
    if statistic == "mean":
        return named[f"{at}.running_mean"]
    new, old = named[f"{at}.running_var"], case.params[f"batch_stats.{name}"].detach()
    kept = (1.0 - norm.momentum) * old
    n = case.inputs["x"].shape[:2].numel()
    return kept + (new - kept) * (n - 1) / n
