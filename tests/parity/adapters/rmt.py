"""RMT against its authors' three implementations: LM-RMT, and the ports on GPT-2 and BERT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.adapters.transformer_xl import MAP as TXL
from tests.parity.adapters.transformer_xl import layer_parameters as txl_parameters
from tests.parity.adapters.transformer_xl import set_eps
from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo.model.segments import SegmentPlan, drive
from zoo.nn.state import detach
from zoo_rmt.backbone import RMTBackbone
from zoo_rmt.config import RMTConfig
from zoo_rmt.op import segment_mask

VANILLA = {name: ours for name, ours in TXL.items() if "net" not in name} | {
    "dec_attn.o_net.weight": "mixer.out.weight",
    "dec_attn.layer_norm.weight": "norm1.weight",
    "dec_attn.layer_norm.bias": "norm1.bias",
    "pos_ff.CoreNet.0.weight": "mlp.linear1.weight",
    "pos_ff.CoreNet.0.bias": "mlp.linear1.bias",
    "pos_ff.CoreNet.3.weight": "mlp.linear2.weight",
    "pos_ff.CoreNet.3.bias": "mlp.linear2.bias",
    "pos_ff.layer_norm.weight": "norm2.weight",
    "pos_ff.layer_norm.bias": "norm2.bias",
}
GPT2 = {"ln_1": "norm1", "attn.c_attn": "mixer.qkv", "attn.c_proj": "mixer.out", "ln_2": "norm2"}
GPT2 |= {"mlp.c_fc": "mlp.linear1", "mlp.c_proj": "mlp.linear2"}
BERT = {
    "attention.output.dense": "mixer.out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.linear1",
    "output.dense": "mlp.linear2",
    "output.LayerNorm": "norm2",
}
PARTS = ("weight", "bias")


def run(case: Case) -> Result:
    if case.config.get("dropout", 0.0):
        raise Unmapped(f"dropout={case.config['dropout']!r}")
    if case.level == "op":
        return run_mask(case)
    if "mem_tokens" in case.params:
        return run_lm_rmt(case)
    return run_gpt2(case) if "wte.weight" in case.params else run_bert(case)


def run_mask(case: Case) -> Result:
    c = case.config
    mask = segment_mask(
        c["num_mem_tokens"],
        c["tgt_len"],
        cached=torch.ones(1, c["mem_len"], dtype=torch.bool),
        read_mem_from_cache=c["read_mem_from_cache"],
        device=torch.device("cpu"),
    )
    return Result({"out.y": mask[0]})


def build(case: Case, config: RMTConfig, d_model: int, n_layers: int, max_len: int) -> RMTBackbone:
    mode = "bidirectional" if config.body == "bert" else "causal"
    backbone = RMTBackbone(config, ModelDims(d_model=d_model, n_layers=n_layers, mode=mode, max_len=max_len)).to(
        case.dtype
    )
    set_eps(backbone, case)
    return backbone


@contextmanager
def top_rows(backbone: RMTBackbone) -> Iterator[list[Tensor]]:
    """What the last layer gives in every call, memory and special rows included."""
    seen: list[Tensor] = []
    hook = backbone.body.layers[-1].register_forward_hook(
        lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    yield seen
    hook.remove()


def gradients(case: Case, loss: Tensor, prefix: str) -> dict[str, Tensor]:
    """The gradients under `prefix`, where the case has such."""
    wanted = any(name.startswith(prefix) for name in case.wanted)
    return case.gradients(loss, prefix, retain=True) if wanted else {}


# -- LM-RMT, the paper's code ------------------------------------------------------------------------------------------


def run_lm_rmt(case: Case) -> Result:
    c, p = case.config, case.params
    if not c.get("mem_at_end", True):
        raise Unmapped("mem_at_end=False")
    if c["attn_type"] not in (0, 2) or (c["attn_type"] == 2 and (c["pre_lnorm"] or c["mem_len"])):
        # attn_type 2 normalises its keys and not its queries, and adds positions to the cache in place, again and again
        raise Unmapped(f"attn_type={c['attn_type']}, pre_lnorm={c['pre_lnorm']}, mem_len={c['mem_len']}")
    E, N = p["word_emb.emb_layers.0.weight"], c["n_layer"]
    D = E.shape[1]
    config = RMTConfig(
        body="transformer" if c["attn_type"] == 2 else "transformer_xl",
        num_mem_tokens=c["num_mem_tokens"],
        n_heads=c["n_head"],
        d_head=c["d_head"],
        d_ff=c["d_inner"],
        mem_len=c["mem_len"],
        read_mem_from_cache=c["read_mem_from_cache"],
        pre_lnorm=c["pre_lnorm"],
    )
    backbone = build(case, config, D, N, max(c["segment_lengths"]))
    ours = {"memory": p["mem_tokens"][:, 0]}
    if config.body == "transformer_xl":
        ours |= {"body.u": p["r_w_bias"], "body.v": p["r_r_bias"]}
    for n in range(N):
        prefix = f"layers.{n}."
        if config.body == "transformer_xl":
            layer = txl_parameters(p, prefix)
        else:
            qkv = torch.cat([p[prefix + "dec_attn.q_net.weight"], p[prefix + "dec_attn.kv_net.weight"]])
            layer = {"mixer.qkv.weight": qkv} | {o: p[prefix + t] for t, o in VANILLA.items()}
        ours |= {f"body.{prefix}{name}": value for name, value in layer.items()}
    pieces = (E[case.inputs["tokens"]] * D**0.5).split(c["segment_lengths"], dim=1)

    def loss_of(hidden: list[Tensor], memory: Tensor) -> Tensor:
        loss = (torch.cat(hidden, dim=1) * case.inputs["cotangent"].detach()).sum()
        return loss + (memory * case.inputs["cotangent_memory"].detach()).sum()

    values = {}
    for prefix, cut in (("grad.", False), ("grad_detached.", True)):
        hidden, states, state = [], [], None
        with top_rows(backbone) as top:
            for piece in pieces:
                out = functional_call(backbone, ours, (piece,), {"state": state}, strict=True)
                hidden.append(out.hidden)
                states.append(out.state)
                state = detach(out.state) if cut else out.state
        if not cut:
            values["out.y"] = torch.cat(hidden, dim=1)
            values |= {f"out.memory_after_seg{s}": after["memory"] for s, after in enumerate(states)}
            if config.mem_len:
                filled = int(states[-1]["cache_valid"][0].sum())
                # the cache of the top layer is never read: ours has none, and it is the end of the output of that layer
                caches = [*states[-1]["cache"], torch.cat(top, dim=1)]
                values |= {f"out.cache_final.{n}": cache[:, -filled:] for n, cache in enumerate(caches)}
        values |= gradients(case, loss_of(hidden, states[-1]["memory"]), prefix)
    return Result(values)


# -- the port on GPT-2 -------------------------------------------------------------------------------------------------


def run_gpt2(case: Case) -> Result:
    c, p = case.config, case.params
    memory, wte, N = p["memory"], p["wte.weight"], c["n_layer"]
    n, D = memory.shape
    longest = max(c["segment_lengths"])
    config = RMTConfig(body="gpt2", num_mem_tokens=n, n_heads=c["n_head"], d_ff=p["h.0.mlp.c_fc.weight"].shape[1])
    backbone = build(case, config, D, N, longest)
    ours = {"memory": memory, "body.positions": p["wpe.weight"][: longest + 2 * n]}
    ours |= {f"body.norm.{part}": p[f"ln_f.{part}"] for part in PARTS}
    for i in range(N):
        for theirs, name in GPT2.items():
            for part in PARTS:
                value = p[f"h.{i}.{theirs}.{part}"]
                # their Conv1D has (in, out)
                ours[f"body.layers.{i}.{name}.{part}"] = value.T if value.ndim == 2 else value
    tokens = case.inputs["tokens"]
    pieces = wte[tokens].split(c["segment_lengths"], dim=1)
    k2 = c.get("k2", -1)

    def is_cut(s: int) -> bool:
        """The reference's rule for the memory that segment s leaves."""
        return k2 > 0 and s > 0 and s + k2 <= c["max_n_segments"]

    values = {}
    for all_cut in (False, True):
        hidden, states, state = [], [], None
        for s, piece in enumerate(pieces):
            out = functional_call(backbone, ours, (piece,), {"state": state}, strict=True)
            hidden.append(out.hidden)
            states.append(out.state)
            state = detach(out.state) if all_cut or is_cut(s) else out.state
        logits = torch.cat(hidden, dim=1) @ wte.T
        loss = (logits * case.inputs["cotangent"].detach()).sum()
        if all_cut:
            values |= gradients(case, loss, "grad_detached.")
            continue
        labelled = case.inputs["labels_mask"][:, :-1]
        nll = F.cross_entropy(logits[:, :-1][labelled], tokens[:, 1:][labelled])
        values |= {"out.y": logits, "out.loss": nll[None]}
        values |= {f"out.memory_after_seg{s}": after["memory"] for s, after in enumerate(states)}
        values |= gradients(case, loss, "grad.")
        values |= gradients(case, nll, "grad_aux.")
    return Result(values)


# -- the encoder on BERT -----------------------------------------------------------------------------------------------


class Driven(nn.Module):
    """A backbone under the frame's segment driver, as a function of its parameters: CLS of each last segment."""

    def __init__(self, backbone: RMTBackbone, plan: SegmentPlan) -> None:
        super().__init__()
        self.backbone, self.plan = backbone, plan

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        cls = x.new_zeros(x.shape[0], x.shape[2])
        with top_rows(self.backbone) as top:
            for segment in drive(self.backbone, x, mask, None, self.plan):
                live = segment.mask.any(1, keepdim=True)
                cls = torch.where(live, top[-1][:, 0], cls)
        return cls


def run_bert(case: Case) -> Result:
    c, p = case.config, case.params
    words, N, n, V = p["embeddings.word_embeddings.weight"], c["n_layer"], c["num_mem_tokens"], c["vocab"]
    D, T = c["hidden"], c["segment_size"]
    lengths = torch.tensor(c["true_lengths"])
    if int(lengths.max()) > T * c["max_n_segments"]:
        raise Unmapped(f"{int(lengths.max())} tokens do not fit into {c['max_n_segments']} segments of {T}")
    config = RMTConfig(body="bert", num_mem_tokens=n, n_heads=c["n_head"], d_ff=c["intermediate"])
    backbone = build(case, config, D, N, T)
    positions = p["embeddings.position_embeddings.weight"] + p["embeddings.token_type_embeddings.weight"][0]
    ours = {
        "memory": words[V : V + n],
        "cls": words[c["cls"]],
        "sep": words[c["sep"]],
        "body.positions": positions[: n + 3 + T],
    }
    ours |= {f"body.norm.{part}": p[f"embeddings.LayerNorm.{part}"] for part in PARTS}
    for i in range(N):
        prefix = f"encoder.layer.{i}."
        for part in PARTS:
            q, k, v = (p[f"{prefix}attention.self.{name}.{part}"] for name in ("query", "key", "value"))
            ours[f"body.layers.{i}.mixer.qkv.{part}"] = torch.cat([q, k, v])
            ours |= {f"body.layers.{i}.{name}.{part}": p[f"{prefix}{theirs}.{part}"] for theirs, name in BERT.items()}
    driven = Driven(backbone, SegmentPlan(T, align=c["segment_alignment"]))
    tokens = case.inputs["tokens"]
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    ours = {f"backbone.{name}": value for name, value in ours.items()}
    cls = functional_call(driven, ours, (words[tokens], mask), strict=True)
    pooled = F.linear(cls, p["pooler.dense.weight"], p["pooler.dense.bias"]).tanh()
    y = F.linear(pooled, p["classifier.weight"], p["classifier.bias"])
    values = {"out.y": y, "out.loss": F.cross_entropy(y, case.inputs["labels"])[None]}
    return Result(values | case.gradients((y * case.inputs["cotangent"].detach()).sum()))
