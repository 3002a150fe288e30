"""LongT5 against transformers, by the name map of the plugin's own conversion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from tests.parity.live import mapped_tensors
from zoo import ModelDims
from zoo.convert import match_keys
from zoo.ops.blocked import blocked_attention
from zoo.ops.positions import t5_buckets
from zoo_longt5.backbone import Encoder, LongT5Backbone
from zoo_longt5.config import LongT5Config
from zoo_longt5.convert import ATTENTION, FFN, key_map
from zoo_longt5.layers import PositionBias


def run(case: Case) -> Result:
    if case.level == "stack":
        return run_stack(case)
    if case.level == "layer":
        return run_layer(case)
    if case.level == "op":
        return run_buckets(case) if "settings" in case.config else run_local(case)
    raise Unmapped(f"level {case.level!r}")


def config_of(case: Case) -> LongT5Config:
    c = case.config
    kind, ffn = c.get("encoder_attention_type", "local"), c.get("feed_forward_proj", "relu")
    if kind not in ATTENTION or ffn not in FFN:
        raise Unmapped(f"encoder_attention_type {kind!r}, feed_forward_proj {ffn!r}")
    if c.get("dropout", 0.0) or c.get("dropout_rate", 0.0):
        raise Unmapped("dropout")
    return LongT5Config(
        n_heads=c["heads"],
        d_kv=c["d_kv"],
        d_ff=c.get("d_ff", 0),
        attention=ATTENTION[kind],
        local_radius=c["local_radius"],
        global_block=c.get("global_block_size", 16),
        n_buckets=c["num_buckets"],
        max_distance=c["max_distance"],
        ffn=FFN[ffn],
        n_decoder_layers=c.get("num_decoder_layers", 0),
        norm_eps=c.get("rms_eps", 1e-6),
    )


def shape_of(case: Case, n_layers: int, mode: Any) -> ModelDims:
    return ModelDims(d_model=case.config["d_model"], n_layers=n_layers, mode=mode, max_len=case.config["length"])


def at_real(case: Case, ours: Tensor, name: str) -> Tensor:
    """Outputs at pads mean nothing and are not compared, as every case says: there the case's own numbers stand in."""
    mask = case.inputs.get("key_mask")
    return (
        ours if mask is None else torch.where(mask.view(*mask.shape, *(1,) * (ours.ndim - 2)), ours, case.tensors[name])
    )


def finish(case: Case, y: Tensor) -> Result:
    loss = (y * case.inputs["cotangent"].detach()).sum()
    return Result({"out.y": at_real(case, y, "out.y"), **case.gradients(loss)})


def run_buckets(case: Case) -> Result:
    lags = case.inputs["relative_position"]
    values = {}
    for i, s in enumerate(case.config["settings"]):
        values[f"out.y{i or ''}"] = t5_buckets(
            lags, bidirectional=s["bidirectional"], n_buckets=s["num_buckets"], max_distance=s["max_distance"]
        )
    return Result(values)


def run_local(case: Case) -> Result:
    c, i = case.config, case.inputs
    bias = PositionBias(
        LongT5Config(n_heads=c["heads"], n_buckets=c["num_buckets"], max_distance=c["max_distance"]), 1, two_sided=True
    )
    R = c["local_radius"]
    by_lag = functional_call(bias, {"table": case.params["relative_attention_bias.weight"]}, (-R, R), strict=True)
    q, k, v = (i[name].transpose(1, 2) for name in "qkv")
    y = blocked_attention(q, k, v, window=(R, R), bias=by_lag, mask=i.get("key_mask"), scale=1.0)
    return finish(case, y.transpose(1, 2))


class OneLayer(nn.Module):
    """One layer of an encoder with the encoder's biases, without its last norm."""

    def __init__(self, config: LongT5Config, dims: ModelDims) -> None:
        super().__init__()
        self.encoder = Encoder(config, dims)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.encoder.layers[0](x, mask, *self.encoder.biases(x.shape[1]))


def run_layer(case: Case) -> Result:
    """A whole block, or its attention alone, which is a block whose feed-forward layer gives nothing."""
    config, p = config_of(case), case.params
    module = OneLayer(config, shape_of(case, 1, "bidirectional")).to(case.dtype)
    own = {name: value.detach() for name, value in module.named_parameters()}
    sources = match_keys(key_map(config), own, strip_prefix="encoder.block.0.")
    names = {name: source.sources[0] for name, source in sources.items()}
    if any(name.startswith("layer.1.") for name in p):
        theirs = dict(p)
    else:
        theirs = {"layer.0." + name: value for name, value in p.items()}
        own["encoder.layers.0.ffn.wo.weight"] = torch.zeros_like(own["encoder.layers.0.ffn.wo.weight"])
    ours = {name: theirs.pop(names[name]) if names[name] in theirs else own[name] for name in own}
    if theirs:
        raise Unmapped(f"parameters {sorted(theirs)}")
    y = functional_call(module, ours, (case.inputs["x"], case.inputs.get("key_mask")), strict=True)
    return finish(case, y)


class EncodeDecode(nn.Module):
    """Both calls of a backbone as one, for `functional_call`."""

    def __init__(self, backbone: LongT5Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor, mask: Tensor | None, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The encoder's output, and the decoder's."""
        memory = self.backbone(x, mask=mask).hidden
        if y is None:
            return memory, None
        return memory, self.backbone.decode(y, memory=memory, memory_mask=mask).hidden


def run_stack(case: Case) -> Result:
    c, p, i = case.config, case.params, case.inputs
    config, two = config_of(case), "decoder_input_ids" in i
    dims = shape_of(case, c["num_layers"], "seq2seq" if two else "bidirectional")
    module = EncodeDecode(LongT5Backbone(config, dims).to(case.dtype))
    weights = mapped_tensors(key_map(config), module.backbone.state_dict(), p, "")
    ours = {f"backbone.{name}": tensor for name, tensor in weights.items()}
    x, y = p["shared.weight"][i["input_ids"]], p["shared.weight"][i["decoder_input_ids"]] if two else None
    mask = i.get("key_mask")
    memory, hidden = functional_call(module, ours, (x, mask, y), strict=True)
    if hidden is None or y is None:
        return finish(case, memory)
    head = p.get("lm_head.weight", p["shared.weight"])
    if c.get("scale_decoder_outputs", False):
        hidden = hidden * c["d_model"] ** -0.5
    logits = F.linear(hidden, head)
    values = {"out.y": logits, "out.encoder": at_real(case, memory, "out.encoder")}
    values["out.loss"] = F.cross_entropy(logits.flatten(0, 1), i["labels"].flatten(), ignore_index=-100)
    return Result(values | case.gradients((logits * i["cotangent"].detach()).sum()))
