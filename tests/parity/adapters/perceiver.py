"""The Perceiver against transformers' Perceiver IO, google-research/perceiver-ar and lucidrains' perceiver-ar-pytorch.

Each map has our name on the left and theirs on the right. Widths and head sizes are read from the weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo.nn import LayerNorm, sequence_lengths
from zoo.nn.masks import pack_rows
from zoo_perceiver.backbone import Attention, Layer, PerceiverAR, PerceiverEncoder

Params = dict[str, Tensor]

HF_ATTENTION = {"norm_q": "layernorm1", "norm_kv": "layernorm2", "W_q": "query", "W_k": "key", "W_v": "value"}
HF_LAYER = {f"attention.{ours}": f"attention.self.{theirs}" for ours, theirs in HF_ATTENTION.items()} | {
    "W_o": "attention.output.dense",
    "norm_mlp": "layernorm",
    "mlp.linear1": "mlp.dense1",
    "mlp.linear2": "mlp.dense2",
}
HAIKU_ATTENTION = {
    "attention.W_q": "attention.linear",
    "attention.W_k": "attention.linear_1",
    "attention.W_v": "attention.linear_2",
    "W_o": "attention.linear_3",
    "mlp.linear1": "dense.linear",
    "mlp.linear2": "dense.linear_1",
    "attention.norm_q": "layer_norm",
}
HAIKU_CROSS = HAIKU_ATTENTION | {"attention.norm_kv": "layer_norm_1", "norm_mlp": "layer_norm_2"}
HAIKU_SELF = HAIKU_ATTENTION | {"norm_mlp": "layer_norm_1"}
HAIKU_ACTIVATIONS = {"sq_relu": "squared_relu", "relu": "relu", "gelu": "gelu_tanh"}  # jax.nn.gelu approximates


def run(case: Case) -> Result:
    if case.config.get("dropout", 0.0):
        raise Unmapped(f"dropout={case.config['dropout']}")
    p = case.params
    if case.level == "op" and "query.weight" in p:
        return run_op(case)
    if case.level == "layer" and "attention.self.query.weight" in p:
        return run_layer(case)
    if case.level == "stack":
        if "embeddings.latents" in p:
            return run_encoder(case)
        if "cross_attention.attention.linear.w" in p:
            return run_ar_google(case)
        if "perceive_layers.0.0.to_q.weight" in p:
            return run_ar_lucidrains(case)
    raise Unmapped(f"level {case.level!r} with {sorted(p)[:3]}")


def prepared(module: torch.nn.Module, case: Case) -> torch.nn.Module:
    """In the case's dtype and with its epsilon."""
    for part in module.modules():
        if isinstance(part, LayerNorm):
            part.eps = case.config.get("layer_norm_eps", 1e-5)
    return module.to(case.dtype).eval()


def finish(case: Case, y: Tensor, **more: Tensor) -> Result:
    loss = (y * case.inputs["cotangent"].detach()).sum()
    return Result({"out.y": y, **{f"out.{k}": v for k, v in more.items()}, **case.gradients(loss)})


# -- transformers: PerceiverModel --------------------------------------------------------------------------------------


def hf(p: Params, names: dict[str, str], prefix: str = "") -> Params:
    """Ours from theirs, for the parts that are there (self-attention has no second norm)."""
    return {
        f"{ours}.{kind}": p[f"{prefix}{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
        if f"{prefix}{theirs}.{kind}" in p
    }


def under(prefix: str, ours: Params) -> Params:
    return {f"{prefix}.{name}": value for name, value in ours.items()}


def hf_attention(p: Params, prefix: str, n_heads: int) -> Attention:
    qk_channels, d_latents = p[prefix + "query.weight"].shape
    v_channels, d_input = p[prefix + "value.weight"].shape
    cross = prefix + "layernorm2.weight" in p
    return Attention(
        d_latents, d_input if cross else None, n_heads=n_heads, qk_channels=qk_channels, v_channels=v_channels
    )


def hf_layer(p: Params, prefix: str, n_heads: int, query_residual: bool = True) -> Layer:
    hidden, d_latents = p[prefix + "mlp.dense1.weight"].shape
    attention = hf_attention(p, prefix + "attention.self.", n_heads)
    return Layer(attention, d_latents, widening=hidden // d_latents, query_residual=query_residual)


def visible_of(case: Case) -> Tensor | None:
    mask = case.inputs.get("mask")
    return None if mask is None else mask[:, None, None, :]


def run_op(case: Case) -> Result:
    i, p = case.inputs, case.params
    attention = prepared(hf_attention(p, "", case.config["n_heads"]), case)
    y = functional_call(attention, hf(p, HF_ATTENTION), (i["latents"], i.get("x"), visible_of(case)), strict=True)
    return finish(case, y)


def run_layer(case: Case) -> Result:
    i, p, c = case.inputs, case.params, case.config
    layer = prepared(hf_layer(p, "", c["n_heads"], c.get("use_query_residual", True)), case)
    y = functional_call(layer, hf(p, HF_LAYER), (i["latents"], i.get("x"), visible_of(case)), strict=True)
    return finish(case, y)


def run_encoder(case: Case) -> Result:
    i, p, c = case.inputs, case.params, case.config
    n_layers = c["num_self_attends_per_block"]
    n_latents, d_latents = p["embeddings.latents"].shape
    encoder = PerceiverEncoder(
        n_latents,
        d_latents,
        hf_layer(p, "encoder.cross_attention.", c["num_cross_attention_heads"], c.get("use_query_residual", True)),
        [hf_layer(p, f"encoder.self_attends.{n}.", c["num_self_attention_heads"]) for n in range(n_layers)],
        c["num_blocks"],
    )
    ours = {"latents": p["embeddings.latents"]} | under("cross", hf(p, HF_LAYER, "encoder.cross_attention."))
    for n in range(n_layers):
        ours |= under(f"layers.{n}", hf(p, HF_LAYER, f"encoder.self_attends.{n}."))
    latents = functional_call(prepared(encoder, case), ours, (i["x"], i.get("mask")), strict=True)
    # their classification decoder is one more cross layer, with a learned query
    where = "decoder.decoder.decoding_cross_attention."
    decoder = prepared(hf_layer(p, where, c["decoder_heads"], c.get("decoder_use_query_residual", True)), case)
    query = p["decoder.decoder.output_position_encodings.position_embeddings"].expand(len(latents), -1, -1)
    read = functional_call(decoder, hf(p, HF_LAYER, where), (query, latents), strict=True)
    head = hf(p, {"head": "decoder.decoder.final_layer"})
    return finish(case, F.linear(read, head["head.weight"], head["head.bias"])[:, 0], latents=latents)


# -- google-research/perceiver-ar --------------------------------------------------------------------------------------


def haiku(p: Params, names: dict[str, str], prefix: str = "") -> Params:
    """Haiku keeps weights transposed and calls a norm's parameters scale and offset."""
    ours: Params = {}
    for name, theirs in names.items():
        where = f"{prefix}{theirs}."
        if where + "w" in p:
            ours |= {f"{name}.weight": p[where + "w"].T, f"{name}.bias": p[where + "b"]}
        else:
            ours |= {f"{name}.weight": p[where + "scale"], f"{name}.bias": p[where + "offset"]}
    return ours


def haiku_layer(case: Case, prefix: str, n_heads: int, *, cross: bool) -> Layer:
    p, c = case.params, case.config
    d_latents, qk_channels = p[prefix + "attention.linear.w"].shape
    d_input, v_channels = p[prefix + "attention.linear_2.w"].shape
    attention = Attention(
        d_latents, d_input if cross else None, n_heads=n_heads, qk_channels=qk_channels, v_channels=v_channels
    )
    if c["activation"] not in HAIKU_ACTIVATIONS:
        raise Unmapped(f"activation {c['activation']!r}")
    return Layer(
        attention,
        d_latents,
        widening=p[prefix + "dense.linear.w"].shape[1] // d_latents,
        activation=HAIKU_ACTIVATIONS[c["activation"]],
        query_residual=c["encoder_use_query_residual"] if cross else True,
    )


def run_ar_google(case: Case) -> Result:
    p, c, tokens = case.params, case.config, case.inputs["tokens"]
    if not c["positions"].startswith("absolute"):
        raise Unmapped(f"positions {c['positions']!r}")
    L = tokens.shape[1]
    N = min(c["num_latents"], L)
    names = ["self_attention" + (f"_{n}" if n else "") for n in range(c["num_latent_layers"])]
    d_input, d_latents = p["linear.w"].shape
    core = PerceiverAR(
        c["num_latents"],
        d_input,
        d_latents,
        haiku_layer(case, "cross_attention.", c["cross_heads"], cross=True),
        [haiku_layer(case, name + ".", c["latent_heads"], cross=False) for name in names],
    )
    ours = haiku(p, {"to_latents": "linear"}) | under("cross", haiku(p, HAIKU_CROSS, "cross_attention."))
    for n, name in enumerate(names):
        ours |= under(f"layers.{n}", haiku(p, HAIKU_SELF, name + "."))
    e = p["embed.embeddings"][tokens] + p["embed_1.embeddings"][:L]
    mask = tokens != 0
    shift = mask.shape[1] - sequence_lengths(mask)
    places = torch.arange(L - N, L) - shift[:, None]
    if not torch.equal(places.clamp_min(-1), case.inputs["latent_positions"]):
        raise Unmapped("latents at other positions than the last of each row")
    latents = functional_call(prepared(core, case), ours, pack_rows(e, mask, pads_first=True)[:2], strict=True)
    norm = prepared(LayerNorm(d_latents), case)
    named = haiku(p, {"norm": "layer_norm", "head": "logits"})
    z = functional_call(norm, {"weight": named["norm.weight"], "bias": named["norm.bias"]}, (latents,), strict=True)
    return finish(case, F.linear(z, named["head.weight"], named["head.bias"]))


# -- lucidrains/perceiver-ar-pytorch -----------------------------------------------------------------------------------


def lucid_layer(case: Case, prefix: str, *, cross: bool) -> tuple[Layer, Params]:
    """Their attention has no biases but the cross layer's last one, their MLP none: ours are zero there."""
    p, c = case.params, case.config
    D = p[f"{prefix}.0.norm.weight"].shape[0]
    if cross:
        W_q, (W_k, W_v) = p[f"{prefix}.0.to_q.weight"], p[f"{prefix}.0.to_kv.weight"].chunk(2)
    else:
        W_q, W_k, W_v = p[f"{prefix}.0.to_qkv.weight"].chunk(3)
    attention = Attention(
        D,
        D if cross else None,
        n_heads=c["n_heads"],
        qk_channels=W_q.shape[0],
        rotary_dim=c["rotary_dim"],
        latent_keys=cross,
    )
    hidden = p[f"{prefix}.1.1.weight"].shape[0]
    ours: dict[str, Any] = {
        "attention.norm_q.weight": p[f"{prefix}.0.norm.weight"],
        "attention.norm_q.bias": p[f"{prefix}.0.norm.bias"],
        "attention.W_q.weight": W_q,
        "attention.W_k.weight": W_k,
        "attention.W_v.weight": W_v,
        "W_o.weight": p[f"{prefix}.0.to_out.weight"],
        "norm_mlp.weight": p[f"{prefix}.1.0.weight"],
        "norm_mlp.bias": p[f"{prefix}.1.0.bias"],
        "mlp.linear1.weight": p[f"{prefix}.1.1.weight"],
        "mlp.linear2.weight": p[f"{prefix}.1.4.weight"],
    }
    if cross:
        ours |= {
            "attention.norm_kv.weight": p[f"{prefix}.0.context_norm.weight"],
            "attention.norm_kv.bias": p[f"{prefix}.0.context_norm.bias"],
            "W_o.bias": p[f"{prefix}.0.to_out.bias"],
        }
    layer = Layer(attention, D, widening=hidden // D)
    for name, parameter in layer.named_parameters():
        if name not in ours and name.endswith("bias"):
            ours[name] = torch.zeros_like(parameter, dtype=case.dtype)
    return layer, ours


def run_ar_lucidrains(case: Case) -> Result:
    p, c, tokens = case.params, case.config, case.inputs["tokens"]
    if "perceive_layers.1.0.to_q.weight" in p:
        raise Unmapped("several perceive layers")
    if c.get("rope_theta", 10000.0) != 10000.0:
        raise Unmapped(f"rope_theta={c['rope_theta']}")
    B, L = tokens.shape
    D, prefix = p["token_emb.weight"].shape[1], c["cross_attn_seq_len"]
    cross, cross_params = lucid_layer(case, "perceive_layers.0", cross=True)
    pairs = [lucid_layer(case, f"layers.{n}", cross=False) for n in range(c["n_layers"])]
    core = PerceiverAR(L - prefix, D, D, cross, [layer for layer, _ in pairs])
    # their latents are the inputs themselves
    ours = {"to_latents.weight": torch.eye(D, dtype=case.dtype), "to_latents.bias": torch.zeros(D, dtype=case.dtype)}
    ours |= under("cross", cross_params)
    for n, (_, params) in enumerate(pairs):
        ours |= under(f"layers.{n}", params)
    e = p["token_emb.weight"][tokens] + p["pos_emb.weight"][:L]
    mask = case.inputs.get("mask")
    if mask is not None:
        mask = torch.cat([mask, mask.new_ones(B, L - prefix)], dim=1)
    latents = functional_call(prepared(core, case), ours, (e, mask), strict=True)
    return finish(case, F.linear(latents, p["to_logits.weight"]))
