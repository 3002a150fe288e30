"""H3 against HazyResearch/safari: the op after its projections, layers with their recurrence, language models.

Names of the reference: `ssm_k_kernel.kernel.B|C` and `ssm_k_D` are the shift SSM, `kernel.kernel.*` and `D` the
diagonal one, whose `inv_A_real` is our A_real. Dense weights are (out, in) as ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo import ConfigError, ModelDims
from zoo.ops.backend import use_backend
from zoo.spec.constraints import validate_fields
from zoo_h3.backbone import H3Backbone, H3Mixer
from zoo_h3.config import H3Config


def run(case: Case) -> Result:
    if "q" in case.inputs:
        return run_op(case)
    return run_stack(case) if "tokens" in case.inputs else run_layer(case)


# -- our parameters from theirs --------------------------------------------------------------------------------------


def our_config(case: Case) -> H3Config:
    c = case.config
    config = H3Config(
        d_state=c["d_state"],
        head_dim=c["head_dim"],
        disc=c.get("disc", "bilinear"),
        d_ff=c.get("d_inner", 0),
        attn_layers=list(c.get("attn_layer_idx") or []),
        attn_heads=c.get("attn_heads") or 1,
    )
    try:
        validate_fields(config)
    except ConfigError as error:
        raise Unmapped(f"{case.name}: {error}") from error
    if c.get("real_type", "exp") != "exp":
        raise Unmapped(f"{case.name}: real_type={c['real_type']!r}")
    length = max(x.shape[1] for x in case.inputs.values())
    if c.get("l_max") is not None and c["l_max"] < length:
        raise Unmapped(f"{case.name}: l_max={c['l_max']} truncates the kernel below {length} tokens; ours never does")
    return config


def ssm_parameters(case: Case, at: str = "") -> dict[str, Tensor]:
    p = case.params
    return {
        "shift.B": p[f"{at}ssm_k_kernel.kernel.B"],
        "shift.C": p[f"{at}ssm_k_kernel.kernel.C"],
        "shift.D": p[f"{at}ssm_k_D"],
        "diag.A_real": p[f"{at}kernel.kernel.inv_A_real"],
        "diag.A_imag": p[f"{at}kernel.kernel.A_imag"],
        "diag.B": p[f"{at}kernel.kernel.B"],
        "diag.C": p[f"{at}kernel.kernel.C"],
        "diag.log_dt": p[f"{at}kernel.kernel.log_dt"],
        "diag.D": p[f"{at}D"],
    }


PROJECTIONS = tuple(f"{m}.{p}" for m in ("q_proj", "k_proj", "v_proj", "output_linear") for p in ("weight", "bias"))


def layer_parameters(case: Case, at: str = "") -> dict[str, Tensor]:
    if f"{at}Wqkv.weight" in case.params:
        pairs = {"qkv": "Wqkv", "out": "out_proj"}
        return {f"{o}.{x}": case.params[f"{at}{t}.{x}"] for o, t in pairs.items() for x in ("weight", "bias")}
    return ssm_parameters(case, at) | {name: case.params[f"{at}{name}"] for name in PROJECTIONS}


class Method(nn.Module):
    """One method of a module as a module's forward, for functional_call."""

    def __init__(self, module: nn.Module, function: Any) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *args: Any) -> Any:
        return self.function(self.module, *args)


def call(module: nn.Module, named: dict[str, Tensor], function: Any, *args: Any) -> Any:
    """function(module, *args) with `named` in place of the module's own parameters."""
    return functional_call(Method(module, function), {f"module.{k}": v for k, v in named.items()}, args)


def loss(case: Case, y: Tensor) -> Tensor:
    return (y * case.inputs["cotangent"].detach()).sum()


# -- cases -----------------------------------------------------------------------------------------------------------


def run_op(case: Case) -> Result:
    q, k, v = (case.inputs[name] for name in "qkv")
    mixer = H3Mixer(our_config(case), q.shape[2], bidirectional=False).double()
    named, L = ssm_parameters(case), q.shape[1]
    y, _ = call(mixer, named, lambda m, *qkv: m.mix(*qkv), q, k, v)
    shift = call(mixer, named, lambda m: m.shift.system().kernel(L, torch.float64))[0]
    diag = call(mixer, named, lambda m: m.diag.system().kernel(L, torch.float64))[0]
    values = {
        "out.y": y,
        "out.kernel_shift": F.pad(shift, (0, L - shift.shape[-1])),
        "out.kernel_diag": diag,
    }
    values |= case.gradients(loss(case, y))
    return Result(values)


def run_layer(case: Case) -> Result:
    """The layer at once, in pieces, token by token, and its final state."""
    u = case.inputs["u"]
    mixer = H3Mixer(our_config(case), u.shape[2], bidirectional=False).double()
    named = layer_parameters(case)
    y, final = call(mixer, named, lambda m, u: m(u), u)
    values = {"out.y": y, "out.state_shift": final["shift"], "out.state_diag": torch.view_as_real(final["diag"])}
    values |= case.gradients(loss(case, y), retain=True)
    with use_backend("reference"):
        torch.testing.assert_close(call(mixer, named, lambda m, u: m(u), u)[0], y, rtol=1e-9, atol=1e-11)
    state, ys = mixer.init_state(u.shape[0], device="cpu", dtype=u.dtype), []
    for u_t in u.unbind(1):
        y_t, state = call(mixer, named, lambda m, u_t, s: m.step(u_t, s), u_t, state)
        ys.append(y_t)
    values["out.y_step"] = torch.stack(ys, 1)
    same(state, final)
    for cut in {1, u.shape[1] // 3, u.shape[1] - 1} - {0, u.shape[1]}:
        first, state = call(mixer, named, lambda m, u: m(u), u[:, :cut])
        rest, state = call(mixer, named, lambda m, u, s: m(u, state=s), u[:, cut:], state)
        torch.testing.assert_close(torch.cat([first, rest], 1), y, rtol=1e-9, atol=1e-11)
        same(state, final)
    return Result({name: value for name, value in values.items() if name in case.tensors})


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-9, atol=1e-11)


def run_stack(case: Case) -> Result:
    """Embedding, blocks, final norm, the embedding as the head."""
    p, c = case.params, case.config
    E, tokens = p["backbone.embeddings.word_embeddings.weight"], case.inputs["tokens"]
    dims = ModelDims(d_model=E.shape[1], n_layers=c["n_layer"], mode="causal", max_len=tokens.shape[1])
    model = H3Backbone(our_config(case), dims).double().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.LayerNorm)):
        norm.eps = c["layer_norm_eps"]
    named = {"stack.final_norm.weight": p["backbone.ln_f.weight"], "stack.final_norm.bias": p["backbone.ln_f.bias"]}
    for i in range(c["n_layer"]):
        theirs, ours = f"backbone.layers.{i}.", f"stack.blocks.{i}."
        named |= {f"{ours}mixer.{k}": v for k, v in layer_parameters(case, f"{theirs}mixer.").items()}
        for o, t in {"norm1": "norm1", "norm2": "norm2", "mlp.linear1": "mlp.fc1", "mlp.linear2": "mlp.fc2"}.items():
            for x in ("weight", "bias"):
                named[f"{ours}{o}.{x}"] = p[f"{theirs}{t}.{x}"]
    if set(named) != {name for name, _ in model.named_parameters()}:
        raise Unmapped(f"{case.name}: {sorted(set(named) ^ {n for n, _ in model.named_parameters()})} have no partner")
    x = F.embedding(tokens, E)
    out = call(model, named, lambda m, x: m(x), x)
    logits = out.hidden @ E.T
    values = {"out.hidden": out.hidden, "out.y": logits}
    values |= case.gradients(loss(case, logits), retain=True)
    state, ys = model.init_state(x.shape[0], device="cpu", dtype=x.dtype), []
    for x_t in x.unbind(1):
        y_t, state = call(model, named, lambda m, x_t, s: m.step(x_t, s), x_t, state)
        ys.append(y_t)
    torch.testing.assert_close(torch.stack(ys, 1), out.hidden, rtol=1e-9, atol=1e-11)
    return Result(values)
