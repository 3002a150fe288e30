"""Compressive Transformer against labml's port, and against Transformer-XL's layers around its memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.parity.adapters.transformer_xl import layer_parameters as txl_parameters
from tests.parity.adapters.transformer_xl import set_eps
from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo.nn import RelativeLayer
from zoo.ops.relative import distances, visible_keys
from zoo_compressive.backbone import CompressiveBackbone, LearnedDistanceAttention
from zoo_compressive.config import CompressiveConfig
from zoo_compressive.op import Compression, plan_eviction, reconstruction_loss, update_memories

KINDS = {"conv1d": "conv", "conv": "conv", "mean": "mean", "avg": "mean", "max": "max"}
LABML = {
    "self_attn.query.linear.weight": "attention.W_q.weight",
    "self_attn.key.linear.weight": "attention.W_kE.weight",
    "self_attn.value.linear.weight": "attention.W_v.weight",
    "self_attn.value.linear.bias": "attention.W_v.bias",
    "self_attn.query_pos_bias": "attention.v",
    "self_attn.output.weight": "attention.W_o.weight",
    "self_attn.output.bias": "attention.W_o.bias",
    "norm_self_attn.weight": "norm_attn.weight",
    "norm_self_attn.bias": "norm_attn.bias",
    "feed_forward.layer1.weight": "ff.linear1.weight",
    "feed_forward.layer1.bias": "ff.linear1.bias",
    "feed_forward.layer2.weight": "ff.linear2.weight",
    "feed_forward.layer2.bias": "ff.linear2.bias",
    "norm_ff.weight": "norm_ff.weight",
    "norm_ff.bias": "norm_ff.bias",
}


def run(case: Case) -> Result:
    if case.config.get("dropout", 0.0):
        raise Unmapped(f"dropout={case.config['dropout']!r}")
    if case.level == "stack":
        return run_stack(case)
    if case.level == "layer":
        return run_attention(case) if "pos_emb" in case.params else run_layer(case)
    if "mem" in case.inputs:
        return run_compression(case)
    return run_loss(case) if "old_mem" in case.inputs else run_memory(case)


def kind_of(case: Case) -> str:
    name = case.config.get("kind", "conv1d")
    if name not in KINDS:
        raise Unmapped(f"kind={name!r}")
    return KINDS[name]


def finish(case: Case, y: Tensor) -> Result:
    loss = (y * case.inputs["cotangent"].detach()).sum()
    return Result({"out.y": y, **case.gradients(loss)})


# -- ops ---------------------------------------------------------------------------------------------------------------


def compression(case: Case, d_model: int, prefix: str = "") -> tuple[Compression, dict[str, Tensor]]:
    """Our f_c in the case's precision, and its parameters, which have the reference's names."""
    f_c = Compression(kind_of(case), d_model, case.config["compression_rate"]).to(case.dtype)
    return f_c, {name: case.params[prefix + name] for name, _ in f_c.named_parameters()}


def run_compression(case: Case) -> Result:
    mem = case.inputs["mem"]
    f_c, parameters = compression(case, mem.shape[-1])
    return finish(case, functional_call(f_c, parameters, (mem,), strict=True))


def run_memory(case: Case) -> Result:
    """The memories after every segment; nothing of them is read."""
    c, h = case.config, case.inputs["h"].detach()
    f_c, parameters = compression(case, h.shape[-1])
    f_c.load_state_dict({name: value.detach() for name, value in parameters.items()})
    B, _, D = h.shape
    sizes = (c["mem_len"], c["c_mem_len"], c["compression_rate"])
    memory, compressed = h.new_zeros(B, 0, D), h.new_zeros(B, c["c_mem_len"], D)
    m_real, c_real = (torch.zeros(part.shape[:2], dtype=torch.bool) for part in (memory, compressed))
    values = {}
    for s, piece in enumerate(h.split(c["segment_lengths"], dim=1)):
        T = piece.shape[1]
        plan = plan_eviction(m_real, c_real, torch.full((B,), T), T, sizes)
        memory, compressed, _, _ = update_memories(f_c, memory, compressed, piece, plan)
        m_real, c_real = plan.real, plan.c_real
        values[f"out.mem_after_seg{s}"] = rows(memory, m_real)
        values[f"out.cmem_after_seg{s}"] = rows(compressed, c_real)
    values["out.y"] = torch.cat([rows(compressed, c_real), rows(memory, m_real)], dim=1)
    return Result(values)


def rows(memory: Tensor, real: Tensor) -> Tensor:
    """The real rows of a memory, which must stand at its end and be as many in every row of the batch."""
    n = int(real[0].sum())
    assert bool((real.sum(1) == n).all())
    assert bool(real[:, real.shape[1] - n :].all())
    return memory[:, real.shape[1] - n :]


class Loss(nn.Module):
    """The reconstruction loss of one layer, as a function of the parameters of both."""

    def __init__(self, layer: RelativeLayer, f_c: Compression) -> None:
        super().__init__()
        self.layer, self.f_c = layer, f_c

    def forward(self, h: Tensor, old: Tensor) -> Tensor:
        return reconstruction_loss(self.layer, h, old, self.f_c(old.detach()))


def run_loss(case: Case) -> Result:
    h, p = case.inputs["h"], case.params
    D = h.shape[-1]
    f_c, theirs = compression(case, D, "compress.")
    layer = labml_layer(case, D, case.config["n_head"], 4 * D, 0)
    ours = {f"f_c.{name}": value for name, value in theirs.items()}
    ours |= {f"layer.{LABML[name]}": value for name, value in p.items() if name in LABML}
    loss = functional_call(Loss(layer, f_c), ours, (h, case.inputs["old_mem"]))
    return Result({"out.loss": loss[None], **case.gradients(loss)})


# -- layers ------------------------------------------------------------------------------------------------------------


def is_prenorm(case: Case) -> bool:
    """What the case says, or whether it has a norm in front of the attention at all."""
    return case.config.get("norm", "pre" if "norm_self_attn.weight" in case.params else "post") == "pre"


def labml_layer(case: Case, d_model: int, n_heads: int, d_ff: int, highest: int) -> RelativeLayer:
    attention = LearnedDistanceAttention(d_model, n_heads, d_model // n_heads, lowest=0, highest=highest)
    layer = RelativeLayer(attention, d_model, d_ff, pre_lnorm=is_prenorm(case)).to(case.dtype)
    set_eps(layer, case)
    return layer


def labml_parameters(theirs: dict[str, Tensor], highest: int, prefix: str = "") -> dict[str, Tensor]:
    """Our parameters of one layer; their table has P - distance, ours the distance, and only those that can occur."""
    R, S = (theirs[prefix + f"self_attn.key_pos_{name}"] for name in ("embeddings", "bias"))
    row = (R.shape[0] // 2 - torch.arange(highest + 1)).clamp_min(0)
    ours = {o: theirs[prefix + t] for t, o in LABML.items()}
    return ours | {"attention.R": R[row], "attention.S": S[row]}


def run_layer(case: Case) -> Result:
    c, x, p = case.config, case.inputs["x"], case.params
    if c.get("position") != "learned tables":
        raise Unmapped(f"position={c.get('position')!r}")
    B, T, D = x.shape
    past = [case.inputs.get(name, x.new_zeros(B, 0, D)) for name in ("cmem", "mem")]
    context = torch.cat([*past, x], dim=1)
    K = context.shape[1]
    layer = labml_layer(case, D, c["n_head"], p["feed_forward.layer1.weight"].shape[0], K - 1)
    arguments = (
        context,
        T,
        distances(T, K, two_sided=False, device=x.device),
        visible_keys(T, K, device=x.device),
    )
    return finish(case, functional_call(layer, labml_parameters(p, K - 1), arguments, strict=True))


def run_attention(case: Case) -> Result:
    """lucidrains' attention with its memories and loss: positions without S and v, values without bias, no norm."""
    i, p = case.inputs, case.params
    x, mem, cmem = i["x"], i["mem"], i["cmem"]
    (B, T, D), M, C, H = x.shape, mem.shape[1], cmem.shape[1], case.config["n_head"]
    K = C + M + T
    attention = LearnedDistanceAttention(D, H, D // H, lowest=0, highest=K - 1)
    layer = RelativeLayer(attention, D, D).to(case.dtype)
    W_k, W_v = p["to_kv.weight"].chunk(2)
    ours = {
        "W_q.weight": p["to_q.weight"],
        "W_kE.weight": W_k,
        "W_v.weight": W_v,
        "W_v.bias": torch.zeros_like(W_v[:, 0]),
        "W_o.weight": p["to_out.weight"],
        "W_o.bias": p["to_out.bias"],
        "R": p["pos_emb"].flip(1).transpose(0, 1),  # (K, H, E), theirs counts from the far end
        "S": x.new_zeros(K, H),
        "v": x.new_zeros(H, D // H),
    }
    distance = distances(T, K, two_sided=False, device=x.device)
    context = torch.cat([cmem, mem, x], dim=1)
    y = functional_call(attention, ours, (context, T, distance, visible_keys(T, K, device=x.device)), strict=True)

    f_c, theirs = compression(case, D, "compress_mem_fn.")
    m_real, c_real = (torch.ones(part.shape[:2], dtype=torch.bool) for part in (mem, cmem))
    sizes = (case.config["mem_len"], case.config["cmem_len"], case.config["compression_rate"])
    plan = plan_eviction(m_real, c_real, torch.full((B,), T), T, sizes)
    with torch.no_grad():
        f_c.load_state_dict(theirs)
        memory, compressed, old, _ = update_memories(f_c, mem, cmem, x, plan)
    ours = {f"layer.attention.{name}": value for name, value in ours.items()}
    ours |= {f"f_c.{name}": value for name, value in theirs.items()}
    aux = functional_call(Loss(layer, f_c), ours, (x, old))
    values = {"out.y": y, "out.new_mem": memory, "out.new_cmem": compressed, "out.aux": aux[None]}
    values |= case.gradients((y * i["cotangent"].detach()).sum(), retain=True)
    return Result(values | case.gradients(aux, "grad_aux."))


# -- stacks ------------------------------------------------------------------------------------------------------------


def run_stack(case: Case) -> Result:
    c, p, x = case.config, case.params, case.inputs["x"]
    learned = {"learned tables": True, "sinusoidal TXL": False}.get(c.get("position"))
    if learned is None:
        raise Unmapped(f"position={c.get('position')!r}")
    D, N = x.shape[-1], c["n_layer"]
    ff = "layers.0.feed_forward.layer1.weight" if learned else "layers.0.pos_ff.CoreNet.0.weight"
    config = CompressiveConfig(
        n_heads=c["n_head"],
        d_head=c.get("d_head"),
        d_ff=p[ff].shape[0],
        mem_len=c["mem_len"],
        c_mem_len=c["c_mem_len"],
        compression_rate=c["compression_rate"],
        compression=kind_of(case),
        positions="learned" if learned else "sinusoidal",
        pre_lnorm=c["norm"] == "pre" if learned else c["pre_lnorm"],
        final_norm=c.get("final_norm", False),
        clamp_len=c["clamp_len"] if c.get("clamp_len", -1) > 0 else None,
    )
    dims = ModelDims(d_model=D, n_layers=N, mode="causal", max_len=max(c["segment_lengths"]))
    backbone = CompressiveBackbone(config, dims).to(case.dtype)
    set_eps(backbone, case)
    ours = {f"norm.{name}": p[f"norm.{name}"] for name in ("weight", "bias")} if config.final_norm else {}
    if not learned:
        ours |= {"u": p["r_w_bias"], "v": p["r_r_bias"]}
    for n in range(N):
        prefix, f_c = f"layers.{n}.", f"layers.{n}.compress." if learned else f"compress.{n}."
        if learned:
            layer = labml_parameters(p, backbone.layers[n].attention.highest, prefix)
        else:
            layer = txl_parameters(p, prefix)
        ours |= {prefix + name: value for name, value in layer.items()}
        ours |= {f"compress.{n}.{name}": p[f_c + name] for name, _ in backbone.compress[n].named_parameters()}

    hidden, aux, states, state = [], [], [], None
    for piece in x.split(c["segment_lengths"], dim=1):
        out = functional_call(backbone, ours, (piece,), {"state": state}, strict=True)
        state = out.state
        hidden.append(out.hidden)
        aux.append(out.aux["reconstruction"])
        states.append(state)
    y, losses = torch.cat(hidden, dim=1), torch.stack(aux)
    values = {"out.y": y, "out.aux": losses}
    for name in case.wanted:
        if name.startswith(("out.mem_", "out.cmem_")):
            values[name] = memory_of(states, name.removeprefix("out."))
    values |= case.gradients((y * case.inputs["cotangent"].detach()).sum(), retain=True)
    if any(name.startswith("grad_aux.") for name in case.wanted):
        values |= case.gradients(losses.sum(), "grad_aux.", retain=True)
        untouched = {name: p[name] for name in p if "compress." not in name}
        assert all(
            g is None or not g.any() for g in torch.autograd.grad(losses.sum(), untouched.values(), allow_unused=True)
        )
    return Result(values)


def memory_of(states: list[Any], name: str) -> Tensor:
    """`mem_after_seg2.1`, `cmem_final.0` …: the real rows of one layer's memory."""
    kind, _, where = name.partition("_")
    when, _, layer = where.partition(".")
    state = states[-1] if when == "final" else states[int(when.removeprefix("after_seg"))]
    key, real = {"mem": ("memory", "valid"), "cmem": ("compressed", "compressed_valid")}[kind]
    return rows(state[key][int(layer)], state[real])
