"""Nyströmformer: its authors' LRA code, and transformers' post-norm layer through the map that converts checkpoints."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from torch import Tensor
from torch.func import functional_call

from tests.parity.harness import Case, Result, Unmapped, only_block
from tests.parity.live import mapped_tensors
from zoo_nystromformer.backbone import NystromformerBackbone
from zoo_nystromformer.config import NystromformerConfig
from zoo_nystromformer.convert import CONVERSION
from zoo_nystromformer.op import depthwise, iterative_pinv, nystrom_attention

SIZES = {"batch", "heads", "length", "head_dim", "d_model", "n_heads", "d_ff", "num_landmarks"}
RULES = {"conv_kernel_size", "pinv_init", "pinv_iterations", "n_iter", "dropout"}
LAYERS = {"layer_norm_eps", "activation", "segment_means_seq_len"}
ACTIVATIONS = {"gelu (exact)": "gelu", "gelu": "gelu", "relu": "relu", "gelu_new (tanh approximation)": "gelu_tanh"}
MLPEN = {
    "norm1": "norm1",
    "mixer.q": "mha.W_q",
    "mixer.k": "mha.W_k",
    "mixer.v": "mha.W_v",
    "mixer.out": "mha.ff",
    "norm2": "norm2",
    "mlp.linear1": "mlpblock.0",
    "mlp.linear2": "mlpblock.3",
}


def run(case: Case) -> Result:
    unknown = set(case.config) - SIZES - RULES - LAYERS
    if unknown:
        raise Unmapped(f"{case.name}: configuration {sorted(unknown)}")
    if case.config.get("dropout", 0.0):
        raise Unmapped(f"dropout {case.config['dropout']}: a reference vector must be deterministic")
    if case.config.get("pinv_init", "exact") not in get_args(get_type_hints(NystromformerConfig)["pinv_init"]):
        raise Unmapped(f"pinv_init {case.config['pinv_init']!r}")
    if "scores" in case.inputs:
        values = pinv(case)
    elif case.level == "op":
        values = {"out.y": op(case)}
    elif "mha.W_q.weight" in case.params:
        values = {"out.y": mlpen(case)}
    elif "attention.self.query.weight" in case.params:
        values = {"out.y": transformers(case)}
    else:
        raise Unmapped(f"{case.name}: parameters {sorted(case.params)}")
    return Result(values | case.gradients((values["out.y"] * case.inputs["cotangent"].detach()).sum()))


def pinv(case: Case) -> dict[str, Tensor]:
    A = case.inputs["scores"].softmax(-1)
    n_iter = case.config.get("n_iter", 6)
    original, exact = (iterative_pinv(A, n_iter=n_iter, init=init) for init in ("original", "exact"))
    residual = ((A @ exact @ A - A).norm() / A.norm()).reshape(1)
    return {"out.y": original, "out.y_exact_init": exact, "out.y_2norm_residual": residual}


def op(case: Case) -> Tensor:
    """mlpen: heads are given; pads are zero in queries, keys and the convolution, and hidden in F3."""
    config, mask = case.config, case.inputs.get("mask")
    q, k, v = (case.inputs[n] for n in "qkv")
    y = nystrom_attention(
        q,
        k,
        v,
        m=config["num_landmarks"],
        mask=mask,
        n_iter=config.get("pinv_iterations", 6),
        init=config.get("pinv_init", "exact"),
        padding="zero",
    )
    if not config.get("conv_kernel_size"):
        return y
    values = v if mask is None else v.masked_fill(~mask[:, None, :, None], 0)
    return y + depthwise(values, case.params["conv.weight"][:, 0, :, 0])


def call(config: NystromformerConfig, weights: dict[str, Tensor], case: Case) -> Tensor:
    """Run our block with their weights, all of them."""
    module = only_block(NystromformerBackbone, config, case.config["d_model"]).to(case.dtype)
    ours = dict(module.named_parameters())
    if set(ours) != set(weights):
        raise Unmapped(f"weights {sorted(set(ours) ^ set(weights))} have no counterpart")
    for name, weight in weights.items():
        if ours[name].shape != weight.shape:
            raise Unmapped(f"{name}: ours {tuple(ours[name].shape)}, theirs {tuple(weight.shape)}")
    return functional_call(module, weights, (case.inputs["x"],), {"mask": case.inputs.get("mask")})[0]


def configuration(case: Case, **others: Any) -> NystromformerConfig:
    """Their configuration in our words."""
    config = case.config
    if config["activation"] not in ACTIVATIONS:
        raise Unmapped(f"activation {config['activation']!r}")
    return NystromformerConfig(
        n_heads=config["n_heads"],
        n_landmarks=config["num_landmarks"],
        d_ff=config["d_ff"],
        conv_kernel=config.get("conv_kernel_size") or 0,
        pinv_iterations=config.get("pinv_iterations", 6),
        pinv_init=config.get("pinv_init", "exact"),
        activation=ACTIVATIONS[config["activation"]],
        norm_eps=config["layer_norm_eps"],
        **others,
    )


def mlpen(case: Case) -> Tensor:
    params = case.params
    weights = {f"{o}.{part}": params[f"{t}.{part}"] for o, t in MLPEN.items() for part in ("weight", "bias")}
    if case.config.get("conv_kernel_size"):
        weights["mixer.conv"] = params["mha.attn.conv.weight"][:, 0, :, 0]
    return call(configuration(case, padding="zero", d_qkv=params["mha.W_q.weight"].shape[0]), weights, case)


def transformers(case: Case) -> Tensor:
    """Landmarks where segment_means_seq_len is the length; exact attention where it is the number of landmarks."""
    config = case.config
    ours = configuration(case, padding="blind", prenorm=False)
    length = config.get("segment_means_seq_len", config["length"])
    if length == config["num_landmarks"]:
        ours.n_landmarks = 0
    elif length != case.inputs["x"].shape[1]:
        raise Unmapped(f"segment_means_seq_len {length} for {case.inputs['x'].shape[1]} tokens")
    block = only_block(NystromformerBackbone, ours, config["d_model"])
    prefix, module = "nystromformer.encoder.layer.0.", "stack.blocks.0."
    weights = mapped_tensors(CONVERSION.key_map(ours), block.state_dict(), case.params, prefix, module=module)
    return call(ours, weights, case)
