"""Performer: jax's FAVOR+ of Long Range Arena, performer-pytorch's layer, idiap's masked and strictly causal maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.parity.harness import Case, Result, Unmapped, only_block
from zoo.ops.random_features import orthogonal_rows
from zoo_performer.backbone import PerformerAttention, PerformerBackbone
from zoo_performer.config import PerformerConfig
from zoo_performer.op import FeatureMap, causal_linear_attention, linear_attention

SIZES = {"batch", "length", "heads", "head_dim", "nb_features", "d_model", "n_heads", "qkv_dim", "d_ff"}
RULES = {"causal", "kernel", "kernel_eps", "eps", "denominator_eps", "grad_through_max", "normalize_data"}
OTHERS = {"strictly_causal", "dropout", "layer_norm_eps", "activation", "qkv_bias", "bias"}
ACTIVATIONS = {"gelu (exact)": "gelu", "gelu": "gelu", "relu": "relu", "gelu (tanh)": "gelu_tanh"}


def run(case: Case) -> Result:
    unknown = set(case.config) - SIZES - RULES - OTHERS
    if unknown:
        raise Unmapped(f"{case.name}: configuration {sorted(unknown)}")
    if case.config.get("dropout", 0.0):
        raise Unmapped(f"dropout {case.config['dropout']}: a reference vector must be deterministic")
    if "blocks" in case.inputs:
        return Result(orthogonal(case))
    if case.level == "op":
        y = op(case)
    elif "to_q.weight" in case.params:
        y = lucidrains(case)
    elif "MultiHeadDotProductAttention_1.query.kernel" in case.params:
        y = flax_block(case)
    elif "query.kernel" in case.params:
        y = flax_attention(case)
    else:
        raise Unmapped(f"{case.name}: parameters {sorted(case.params)}")
    values = {"out.y": y}
    return Result(values | case.gradients((y * case.inputs["cotangent"].detach()).sum()))


def kernel_of(config: dict) -> str:
    """Their name of the kernel -> ours."""
    theirs = config["kernel"].split()[0]
    kernels = {"softmax": "softmax", "favor": "hyperbolic", "relu": "relu"}
    if theirs not in kernels:
        raise Unmapped(f"kernel {config['kernel']!r}")
    return kernels[theirs]


def feature_eps(config: dict) -> float:
    """idiap's features have none."""
    return config.get("kernel_eps", config.get("eps", 0.0))


def orthogonal(case: Case) -> dict[str, Tensor]:
    """The case fixes rows up to their signs, which QR leaves open: ours are turned to theirs."""
    blocks, gaussian = case.inputs["blocks"].detach(), case.inputs["norm_gaussian"].detach()
    m, d = gaussian.shape
    values = {}
    equal = torch.full((m,), d**0.5, dtype=blocks.dtype)
    for name, norms in (("out.W_scaling0", gaussian.norm(dim=-1)), ("out.W_scaling1", equal)):
        if name in case.tensors:
            ours = orthogonal_rows(blocks, norms)
            signs = (ours * case.tensors[name]).sum(-1, keepdim=True).sign()
            values[name] = ours * signs
    return values


def op(case: Case) -> Tensor:
    """Heads are given: jax (its maxima, eps after the exponential) or idiap (no maximum, hyperbolic features)."""
    config, (q, k, v) = case.config, (case.inputs[n] for n in "qkv")
    mask, kernel = case.inputs.get("mask"), kernel_of(case.config)
    W = case.inputs.get("projection_matrix")
    if kernel != "relu" and not config.get("normalize_data", True):
        raise Unmapped("softmax features of queries and keys that are not scaled")
    phi = FeatureMap(
        kernel,
        None if W is None else W.detach(),
        feature_eps(config),
        scaled=config.get("normalize_data", False),
        shifted=kernel != "hyperbolic",
        grad_shift=config.get("grad_through_max", True),
    )
    floor = config.get("denominator_eps", 0.0)
    if not config["causal"]:
        return linear_attention(phi.queries(q), phi.keys(k, mask), v, mask=mask, denominator_eps=floor)
    if config.get("strictly_causal", True):
        phi_k, running = phi.causal_keys(k, mask)
    else:
        # jax takes the maximum over future keys too; our layer never does, but its parts can be put together so
        phi_k, running = phi.keys(k, mask), None
    return causal_linear_attention(
        phi.queries(q), phi_k, v, mask=mask, running=running, denominator_eps=floor, chunk=7
    )[0]


def call(module: nn.Module, weights: dict[str, Tensor], case: Case) -> Tensor:
    """Run our module with their weights, all of them, and their features."""
    module = module.to(case.dtype)
    ours = dict(module.named_parameters())
    if set(ours) != set(weights):
        raise Unmapped(f"weights {sorted(set(ours) ^ set(weights))} have no counterpart")
    buffers = {name: case.inputs["projection_matrix"].detach() for name, _ in module.named_buffers()}
    for name, tensor in (ours | dict(module.named_buffers())).items():
        given = (weights | buffers)[name]
        if tensor.shape != given.shape:
            raise Unmapped(f"{name}: ours {tuple(tensor.shape)}, theirs {tuple(given.shape)}")
    return functional_call(module, weights | buffers, (case.inputs["x"],), {"mask": case.inputs.get("mask")})[0]


def all_or_no_biases(weights: dict[str, Tensor], prefix: str = "") -> bool:
    """Our four projections have biases together: where theirs has some, the others get zeros."""
    names = [f"{prefix}{name}" for name in ("q", "k", "v", "out")]
    if not any(f"{name}.bias" in weights for name in names):
        return False
    for name in names:
        weight = weights[f"{name}.weight"]
        weights.setdefault(f"{name}.bias", torch.zeros(weight.shape[0], dtype=weight.dtype))
    return True


def configuration(case: Case, *, d_qkv: int, bias: bool, **others: object) -> PerformerConfig:
    """Their configuration in our words."""
    config, W = case.config, case.inputs.get("projection_matrix")
    kernel = kernel_of(config)
    scaled = config.get("normalize_data", W is not None or kernel != "relu")
    if scaled != (W is not None):
        raise Unmapped(f"normalize_data {scaled} {'without' if W is None else 'with'} a projection")
    return PerformerConfig(
        n_heads=config["n_heads"],
        d_qkv=d_qkv,
        kernel=kernel,
        n_features=0 if W is None else W.shape[0],
        project=W is not None,
        eps=feature_eps(config),
        denominator_eps=config.get("denominator_eps", 0.0),
        grad_shift=config.get("grad_through_max", True),
        bias=bias,
        **others,
    )


def lucidrains(case: Case) -> Tensor:
    params = case.params
    weights = {
        f"{mine}.{part}": params[f"{name}.{part}"]
        for mine, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out"))
        for part in ("weight", "bias")
        if f"{name}.{part}" in params
    }
    bias = all_or_no_biases(weights)
    ours = configuration(case, d_qkv=params["to_q.weight"].shape[0], bias=bias)
    return call(PerformerAttention(ours, case.config["d_model"], causal=case.config["causal"]), weights, case)


def flax_weights(params: dict[str, Tensor], theirs: str = "", ours: str = "") -> dict[str, Tensor]:
    """Kernels (D, H, d) and (H, d, D)."""
    weights = {}
    for name, long in (("q", "query"), ("k", "key"), ("v", "value")):
        weights[f"{ours}{name}.weight"] = params[f"{theirs}{long}.kernel"].flatten(1).T
        if f"{theirs}{long}.bias" in params:
            weights[f"{ours}{name}.bias"] = params[f"{theirs}{long}.bias"].flatten()
    weights[f"{ours}out.weight"] = params[theirs + "out.kernel"].flatten(0, 1).T
    if f"{theirs}out.bias" in params:
        weights[f"{ours}out.bias"] = params[theirs + "out.bias"]
    return weights


def flax_attention(case: Case) -> Tensor:
    weights = flax_weights(case.params)
    ours = configuration(case, d_qkv=weights["q.weight"].shape[0], bias=all_or_no_biases(weights))
    return call(PerformerAttention(ours, case.config["d_model"], causal=case.config["causal"]), weights, case)


def flax_block(case: Case) -> Tensor:
    config, params = case.config, case.params
    if config["activation"] not in ACTIVATIONS:
        raise Unmapped(f"activation {config['activation']!r}")
    weights = flax_weights(params, "MultiHeadDotProductAttention_1.", "mixer.")
    for mine, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
        weights |= {f"{mine}.weight": params[f"{name}.scale"], f"{mine}.bias": params[f"{name}.bias"]}
    for mine, name in (("linear1", "Dense_0"), ("linear2", "Dense_1")):
        weights[f"mlp.{mine}.weight"] = params[f"MlpBlock_3.{name}.kernel"].T
        weights[f"mlp.{mine}.bias"] = params[f"MlpBlock_3.{name}.bias"]
    ours = configuration(
        case,
        d_qkv=weights["mixer.q.weight"].shape[0],
        bias=all_or_no_biases(weights, "mixer."),
        d_ff=config["d_ff"],
        activation=ACTIVATIONS[config["activation"]],
        norm_eps=config["layer_norm_eps"],
    )
    return call(only_block(PerformerBackbone, ours, config["d_model"], causal=config["causal"]), weights, case)
