"""Memformer against lucidrains/memformer (v1 with a GRU) and, for the paper's write, against its equations.

Their names on the left of the maps, ours on the right. In a layer their to_kv holds our k and v, one after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo.model.segments import SegmentPlan, drive
from zoo_memformer.backbone import BiasedWrite, GRUWrite, MemformerBackbone
from zoo_memformer.config import MemformerConfig

ATTENTION = {"to_q": "q", "to_kv": "kv", "to_out": "out"}
LAYER = {"0.fn.norm": "norm_self", "1.fn.norm": "norm_cross", "2.fn.norm": "norm_ff"}
LAYER |= {f"0.fn.fn.{t}": f"self_attention.{o}" for t, o in ATTENTION.items()}
LAYER |= {f"1.fn.fn.{t}": f"cross_attention.{o}" for t, o in ATTENTION.items()}
LAYER |= {"2.fn.fn.net.0": "ff.linear1", "2.fn.fn.net.2": "ff.linear2"}
WRITE = {f"mem_updater.{t}": o for t, o in ATTENTION.items()}
WRITE |= {"mem_ff.fn.norm": "norm", "mem_ff.fn.fn.net.0": "ff.linear1", "mem_ff.fn.fn.net.2": "ff.linear2"}
BMN = {"W_Q": "W_Q.weight", "W_K": "W_K.weight", "W_V": "W_V.weight", "v_bias": "v"}
NET = {
    "encoder.layer_blocks.": ("layers.", "positions."),
    "decoder.net.layer_blocks.": ("decoder.", "decoder_positions."),
}
BIAS = "rel_pos_emb.relative_attention_bias.weight"


def ours_of_layer(rest: str) -> str:
    """`1.0.fn.fn.to_q.weight` -> `1.self_attention.q.weight`."""
    index, _, rest = rest.partition(".")
    module, _, kind = rest.rpartition(".")
    return f"{index}.{LAYER[module]}.{kind}"


def ours_of_write(theirs: str) -> str:
    if theirs == "memory_slots":
        return "slots"
    module, _, kind = theirs.rpartition(".")
    return theirs if module == "gru" else f"{WRITE[module]}.{kind}"


def ours_of(theirs: str) -> str | None:
    """Our name in the backbone; None for what belongs to the frame (embeddings, logits)."""
    if theirs.endswith("token_emb.weight") or ".to_logits." in theirs:
        return None
    for prefix, (layers, bias) in NET.items():
        if theirs == prefix + BIAS:
            return f"{bias}table"
        if theirs.startswith(prefix + "layers."):
            return layers + ours_of_layer(theirs.removeprefix(prefix + "layers."))
    for prefix, norm in (("encoder.norm.", "norm."), ("decoder.net.norm.", "decoder_norm.")):
        if theirs.startswith(prefix):
            return norm + theirs.removeprefix(prefix)
    return "write." + ours_of_write(theirs)


def split_kv(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace the parameters of a layer's `kv` by those of k and v."""
    ours = {}
    for name, value in parameters.items():
        module, _, kind = name.rpartition(".")
        if module.endswith("_attention.kv"):
            k, v = value.chunk(2)
            ours |= {f"{module[:-2]}k.{kind}": k, f"{module[:-2]}v.{kind}": v}
        else:
            ours[name] = value
    return ours


def run(case: Case) -> Result:
    names = set(case.params)
    if {"W_Q", "v_bias"} <= names:
        return run_bmn(case)
    if case.level == "op" and "to_q.weight" in names:
        return run_slot_attention(case)
    if case.level == "layer":
        return run_update(case) if "enc" in case.inputs else run_encoder_layer(case)
    if case.level == "stack" and "memory_slots" in names:
        return run_decoder_loss(case) if "tgt" in case.inputs else run_encoder(case)
    raise Unmapped(f"level {case.level!r} with parameters {sorted(names)[:3]} …")


def config_of(case: Case, **more: object) -> MemformerConfig:
    c = case.config
    return MemformerConfig(n_heads=c["n_head"], n_slots=c["num_slots"], **more)  # type: ignore[arg-type]


def finish(case: Case, y: Tensor) -> Result:
    return Result({"out.y": y, **case.gradients((y * case.inputs["cotangent"].detach()).sum())})


def run_bmn(case: Case) -> Result:
    """The paper's write over one or several segments."""
    c, p, x = case.config, case.params, case.inputs["x"]
    write = BiasedWrite(config_of(case, temperature=c["temperature"]), c["d_model"]).to(case.dtype)

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.write = write

        def forward(self, x: Tensor) -> Tensor:
            m, memories = self.write.fresh().expand(x.shape[0], -1, -1), []
            for segment in x.chunk(c["steps"], dim=1):
                m = self.write(m, segment, None)
                memories.append(m)
            return torch.cat(memories, dim=1)

    return finish(case, functional_call(Chain(), {f"write.{o}": p[t] for t, o in BMN.items()}, (x,), strict=True))


def run_slot_attention(case: Case) -> Result:
    """Slot attention with the port's projections: the GRU write without its GRU."""
    i, c = case.inputs, case.config
    write = GRUWrite(config_of(case, write="gru"), c["d_model"]).to(case.dtype)
    ours = {f"{ATTENTION[t.split('.')[0]]}.{t.split('.')[1]}": value for t, value in case.params.items()}
    mask = i.get("src_mask") if c.get("use_mask", True) else None
    y = functional_call(SlotAttention(write), {f"write.{o}": v for o, v in ours.items()}, (i["mem"], i["enc"], mask))
    return finish(case, y)


class SlotAttention(nn.Module):
    def __init__(self, write: GRUWrite) -> None:
        super().__init__()
        self.write = write

    def forward(self, memory: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.write.slot_attention(memory, self.write.keys_values(x), mask)


def run_update(case: Case) -> Result:
    """The port's whole memory update."""
    i, c, p = case.inputs, case.config, case.params
    config = config_of(case, write="gru", n_updates=c["num_mem_updates"], d_ff=p["mem_ff.fn.fn.net.0.weight"].shape[0])
    write = GRUWrite(config, c["d_model"]).to(case.dtype)
    ours = {ours_of_write(t): v for t, v in p.items()} | {"slots": write.slots}
    mask = i.get("src_mask") if c.get("use_mask", True) else None
    return finish(case, functional_call(write, ours, (i["mem"], i["enc"], mask), strict=True))


def backbone_of(case: Case, mode: str, n_layers: int, **more: object) -> MemformerBackbone:
    c = case.config
    d_ff = next(v.shape[0] for k, v in case.params.items() if k.endswith("layers.0.2.fn.fn.net.0.weight"))
    table = next(v for k, v in case.params.items() if k.endswith(BIAS))
    config = config_of(case, write="gru", positions="port", d_ff=d_ff, **more)
    dims = ModelDims(d_model=c["d_model"], n_layers=n_layers, mode=mode, max_len=64)
    backbone = MemformerBackbone(config, dims).to(case.dtype)
    ours = backbone.get_parameter("positions.table").shape
    if ours != table.shape:
        raise Unmapped(f"relative bias {tuple(table.shape)}, ours {tuple(ours)}")
    return backbone


def masked(y: Tensor, mask: Tensor | None) -> Tensor:
    return y if mask is None else y * mask[..., None]


def run_encoder_layer(case: Case) -> Result:
    """One layer reading a given memory; the final norm, which is not in the file, is left out."""
    i, c = case.inputs, case.config
    depth = len({k.split(".")[1] for k in case.params if k.startswith("layers.")})
    backbone = backbone_of(case, "bidirectional", depth)
    backbone.norm = nn.Identity()  # type: ignore[assignment]
    ours = {("positions.table" if t == BIAS else "layers." + ours_of_layer(t[7:])): v for t, v in case.params.items()}
    mask = i["src_mask"] if c.get("use_mask", "src_mask" in i) else None
    out = functional_call(backbone, split_kv(ours), (i["x"],), {"mask": mask, "state": {"memory": i["mem"]}})
    return finish(case, masked(out.hidden, mask))


def run_encoder(case: Case) -> Result:
    """Segments with a carried memory, with and without the gradient through it."""
    i, c, p = case.inputs, case.config, case.params
    E = p["encoder.token_emb.weight"]
    backbone = backbone_of(case, "bidirectional", c["enc_depth"], n_updates=c["num_mem_updates"])
    ours = {o: v for t, v in p.items() if (o := ours_of(t)) is not None}
    mask = i["src_mask"] if c["use_mask"] else None
    lengths = c["segment_lengths"]
    model = Segments(backbone)

    def evaluate(detach: bool) -> tuple[Tensor, list[Tensor], Tensor]:
        y, memories = functional_call(
            model,
            {f"backbone.{o}": v for o, v in split_kv(ours).items()},
            (E[i["tokens"]], mask, lengths, detach),
            strict=True,
        )
        y = masked(y, mask)
        last = (memories[-1] * i["cotangent_memory"].detach()).sum()
        return y, memories, (y * i["cotangent"].detach()).sum() + last

    y, memories, loss = evaluate(False)
    values = {"out.y": y} | {f"out.memory_after_seg{n}": m for n, m in enumerate(memories)} | case.gradients(loss)
    if any(name.startswith("grad_detached.") for name in case.wanted):
        values |= case.gradients(evaluate(True)[2], "grad_detached.")
    return Result(values)


class Segments(nn.Module):
    """The backbone over segments of given lengths.

    A segment of pads only leaves our slots as they are; theirs are updated from themselves. There the write is
    called alone, so that what follows can be compared.
    """

    def __init__(self, backbone: MemformerBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor, mask: Tensor | None, lengths: list[int], detach: bool) -> tuple[Tensor, list[Tensor]]:
        pieces = x.split(lengths, dim=1)
        masks = [None] * len(pieces) if mask is None else mask.split(lengths, dim=1)
        state, hidden, memories = None, [], []
        for piece, real in zip(pieces, masks, strict=True):
            if state is None:
                state = self.backbone.init_state(x.shape[0], device=x.device, dtype=x.dtype)
            out = self.backbone(piece, mask=real, state=state)
            memory = out.state["memory"]
            if real is not None:
                written = self.backbone.write(state["memory"], out.hidden, real)
                memory = torch.where(real.any(1)[:, None, None], memory, written)
            hidden.append(out.hidden)
            memories.append(memory)
            state = {"memory": memory.detach() if detach else memory}
        return torch.cat(hidden, dim=1), memories


def run_decoder_loss(case: Case) -> Result:
    """Memory replay back-propagation, by the frame's segment driver, from the decoder's loss at the last segment."""
    i, c, p = case.inputs, case.config, case.params
    backbone = backbone_of(case, "seq2seq", c["enc_depth"], n_decoder_layers=c["dec_depth"])
    names = {t: o for t in p if (o := ours_of(t)) is not None}
    backbone.load_state_dict(split_kv({o: p[t].detach() for t, o in names.items()}), strict=True)
    x = p["encoder.token_emb.weight"][i["src"]]
    *_, last = drive(backbone, x, None, None, SegmentPlan(c["seg_len"], activation_checkpointing="checkpoint"))
    target = p["decoder.net.token_emb.weight"][i["tgt"][:, :-1]]
    hidden = backbone.decode(target, memory=last.hidden).hidden
    logits = F.linear(hidden, p["decoder.net.to_logits.weight"], p["decoder.net.to_logits.bias"])
    loss = F.cross_entropy(logits.transpose(1, 2), i["tgt"][:, 1:])

    gradients = {}
    for name in case.wanted:
        if name.startswith("grad.param."):
            theirs = p[name.removeprefix("grad.param.")]
            ours = names.get(name.removeprefix("grad.param."))
            leaves = [theirs] if ours is None else [backbone.get_parameter(o) for o in split_kv({ours: theirs})]
            parts = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
            gradients[name] = torch.cat(
                [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, parts, strict=True)]
            )
    return Result({"out.y": loss[None], "out.memory_final": last.state["memory"], **gradients})
