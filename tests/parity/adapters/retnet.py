"""RetNet against microsoft/torchscale: the three forms of the op, the layer, the decoder layer, the decoder.

The files hold each form with its own denominators, so each is run with `denominator="published"`; besides, the forms
with the common denominator must lie within what the file itself gives as the distance between forms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo_retnet.backbone import MultiScaleRetention, RetNetBackbone
from zoo_retnet.config import RetNetConfig
from zoo_retnet.op import decay_sums, group_norm, log_decays, rotate_state, rotation_speeds

KNOWN = {
    *("d_model", "value_dim", "heads", "ffn_dim", "n_layers", "vocab", "batch", "length", "chunk_size", "eps"),
    *("gate", "activation", "normalize_before", "deepnorm", "alpha", "embed_scale"),
}
ACTIVATIONS = {"swish": "silu", "silu": "silu", "gelu": "gelu", "relu": "relu"}
FORMS = {"out.y": "parallel", "out.y_recurrent": "recurrent", "out.y_chunkwise": "chunkwise"}


def run(case: Case) -> Result:
    unknown = set(case.config) - KNOWN
    if unknown:
        raise Unmapped(f"retnet/{case.name}: configuration {sorted(unknown)}")
    check_tables(case)
    if case.level == "op" and {"q", "k", "v"} <= set(case.inputs):
        return Op(case).run()
    if "tokens" in case.inputs:
        return Decoder(case).run()
    if "x" in case.inputs:
        return (DecoderLayer if "ffn.fc1.weight" in case.params else Layer)(case).run()
    raise Unmapped(f"retnet/{case.name}: level {case.level}, inputs {sorted(case.inputs)}")


def check_tables(case: Case) -> None:
    """Their angle and decay buffers are our tables."""
    H = case.config["heads"]
    for name, value in case.params.items():
        if name.endswith("angle"):
            ours = rotation_speeds(case.config["d_model"] // H).repeat_interleave(2)
        elif name.endswith("decay"):
            ours = log_decays(H)
        else:
            continue
        torch.testing.assert_close(ours, value.detach(), rtol=1e-12, atol=1e-15)


class Runner:
    """One case; `forward(form, denominator)` is its output by one form."""

    def __init__(self, case: Case) -> None:
        self.case, c = case, case.config
        self.config = RetNetConfig(
            n_heads=c["heads"],
            value_dim=c["value_dim"],
            ffn_dim=c.get("ffn_dim"),
            chunk_size=c["chunk_size"],
            gate=self.activation("gate"),
            activation=self.activation("activation"),
            prenorm=c.get("normalize_before", True),
            deepnorm=c.get("deepnorm", False),
            norm_eps=c["eps"],
            denominator="published",
        )

    def activation(self, key: str) -> str:
        name = self.case.config.get(key, "swish")
        if name not in ACTIVATIONS:
            raise Unmapped(f"{self.case.name}: {key}={name!r}")
        return ACTIVATIONS[name]

    def mixer(self, form: str, denominator: str) -> MultiScaleRetention:
        config = replace(self.config, form=form, denominator=denominator)
        config.check(ModelDims(d_model=self.case.config["d_model"], n_layers=1, mode="causal", max_len=4096))
        return MultiScaleRetention(config, self.case.config["d_model"], bidirectional=False).to(self.case.dtype)

    def forward(self, form: str, denominator: str) -> Tensor:
        raise NotImplementedError

    def steps(self) -> Tensor:
        """The output token by token."""
        raise NotImplementedError

    def run(self) -> Result:
        values = {name: self.forward(form, "published") for name, form in FORMS.items() if name in self.case.tensors}
        y = values["out.y"]
        values |= self.case.gradients((y * self.case.inputs["cotangent"].detach()).sum(), retain=True)
        # the forms with the common denominator are one function, as far from theirs as theirs are from each other
        common = [self.forward(form, "common") for form in FORMS.values()] + [self.steps()]
        tolerance = self.case.meta["tolerance"]
        apart = tolerance.get("between_forms", tolerance["atol"])
        for other in common[1:]:
            torch.testing.assert_close(other, common[0], rtol=tolerance["rtol"], atol=tolerance["atol"])
        torch.testing.assert_close(common[0], values.get("out.y_recurrent", y), rtol=0, atol=apart)
        return Result(values | self.extras())

    def extras(self) -> dict[str, Tensor]:
        return {}

    def their_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Their final KV: keys turned as seen from token 0, divided by sqrt(s), (v, k); and s."""
        n = state["seen"]
        s = decay_sums(log_decays(self.config.n_heads), 1, seen=n - 1).squeeze(-1)  # (B, H)
        kv = rotate_state(state["kv"], n).mT / s.sqrt()[..., None, None]
        found = {"out.state": kv, "out.state_scale": s[0]}
        return {name: value for name, value in found.items() if name in self.case.tensors}


class Op(Runner):
    """Rotation, retention and group norm on given q, k, v."""

    def heads(self, name: str) -> Tensor:
        return self.case.inputs[name].unflatten(-1, (self.config.n_heads, -1)).transpose(1, 2)

    def raw(self, form: str, denominator: str) -> tuple[Tensor, Any]:
        return self.mixer(form, denominator).retain(self.heads("q"), self.heads("k"), self.heads("v"))

    def forward(self, form: str, denominator: str) -> Tensor:
        o = self.raw(form, denominator)[0]
        return group_norm(o, self.config.norm_eps).transpose(1, 2).flatten(2)

    def steps(self) -> Tensor:
        return self.forward("recurrent", "common")

    def extras(self) -> dict[str, Tensor]:
        o, state = self.raw("parallel", "published")
        values = {"out.raw_parallel": o.transpose(1, 2)} if "out.raw_parallel" in self.case.tensors else {}
        return values | self.their_state(state)


class Layer(Runner):
    """Multi-scale retention."""

    def call(self, form: str, denominator: str, method: str, *args: Any, **kwargs: Any) -> Any:
        module = Method(self.mixer(form, denominator), method)
        named = {f"module.{k}": v for k, v in self.case.params.items() if k not in ("angle", "decay")}
        return functional_call(module, named, args, kwargs, strict=True)

    def forward(self, form: str, denominator: str) -> Tensor:
        return self.call(form, denominator, "forward", self.case.inputs["x"])[0]

    def steps(self) -> Tensor:
        x = self.case.inputs["x"]
        mixer = self.mixer("recurrent", "common")
        state, ys = mixer.init_state(x.shape[0], device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, state = self.call("recurrent", "common", "step", x_t, state)
            ys.append(y_t)
        return torch.stack(ys, 1)

    def extras(self) -> dict[str, Tensor]:
        return self.their_state(self.call("recurrent", "published", "forward", self.case.inputs["x"])[1])


class Method(nn.Module):
    """One method of a module as a module's forward, for functional_call."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.module, self.method)(*args, **kwargs)


PARTS = {
    "retention.": "mixer.",
    "retention_layer_norm.": "norm1.",
    "ffn.": "mlp.",
    "final_layer_norm.": "norm2.",
}


class Stack(Runner):
    """What is built as a backbone and run by `functional_call`."""

    n_layers = 1

    def backbone(self, form: str, denominator: str) -> RetNetBackbone:
        D = self.case.config["d_model"]
        dims = ModelDims(d_model=D, n_layers=self.n_layers, mode="causal", max_len=self.case.config["length"])
        config = replace(self.config, form=form, denominator=denominator)
        config.check(dims)
        backbone = RetNetBackbone(config, dims).to(self.case.dtype)
        if "alpha" in self.case.config:
            scales = {block.residual_scale for block in backbone.stack.blocks}
            if any(abs(scale - self.case.config["alpha"]) > 1e-12 for scale in scales):
                raise Unmapped(f"alpha {self.case.config['alpha']}, ours {scales}")
        return backbone

    def named(self) -> dict[str, Tensor]:
        """Their parameters under our names."""
        raise NotImplementedError

    def embed(self) -> Tensor:
        raise NotImplementedError

    def head(self, hidden: Tensor) -> Tensor:
        return hidden

    def prepare(self, backbone: RetNetBackbone) -> RetNetBackbone:
        return backbone

    def forward(self, form: str, denominator: str) -> Tensor:
        backbone = self.prepare(self.backbone(form, denominator))
        return self.head(functional_call(backbone, self.named(), (self.embed(),), strict=True).hidden)

    def steps(self) -> Tensor:
        backbone, x = self.prepare(self.backbone("chunkwise", "common")), self.embed()
        named = {f"module.{k}": v for k, v in self.named().items()}
        state, ys = backbone.init_state(x.shape[0], device="cpu", dtype=x.dtype), []
        for x_t in x.unbind(1):
            y_t, state = functional_call(Method(backbone, "step"), named, (x_t, state), strict=True)
            ys.append(y_t)
        return self.head(torch.stack(ys, 1))


class DecoderLayer(Stack):
    """One block: a backbone of one layer without its final norm."""

    def prepare(self, backbone: RetNetBackbone) -> RetNetBackbone:
        backbone.stack.final_norm = None
        return backbone

    def named(self) -> dict[str, Tensor]:
        return block_names(self.case.params, "", 0)

    def embed(self) -> Tensor:
        return self.case.inputs["x"]


class Decoder(Stack):
    """Embedding, blocks, final norm (pre-norm only) and output projection."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.n_layers = case.config["n_layers"]

    def named(self) -> dict[str, Tensor]:
        p, named = self.case.params, {}
        for i in range(self.n_layers):
            named |= block_names(p, f"layers.{i}.", i)
        if "layer_norm.weight" in p:
            named["stack.final_norm.weight"] = p["layer_norm.weight"]
        return named

    def embed(self) -> Tensor:
        E = self.case.params["embed_tokens.weight"]
        return self.case.config.get("embed_scale", 1.0) * F.embedding(self.case.inputs["tokens"], E)

    def head(self, hidden: Tensor) -> Tensor:
        p = self.case.params
        return F.linear(hidden, p.get("output_projection.weight", p["embed_tokens.weight"]))


def block_names(params: dict[str, Tensor], prefix: str, i: int) -> dict[str, Tensor]:
    """Our parameters of block i from theirs under `prefix`."""
    named = {}
    for name, value in params.items():
        for theirs, ours in PARTS.items():
            if name.startswith(prefix + theirs):
                named[f"stack.blocks.{i}.{ours}{name.removeprefix(prefix + theirs)}"] = value
    return named
