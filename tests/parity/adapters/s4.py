"""S4 and S4D against state-spaces/s4: layers, carried states and stacks. `s4_kernels.py` maps the parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.adapters.s4_kernels import KernelCase, Runner, Theirs, discretize, run_init
from tests.parity.harness import Case, Result, Unmapped
from zoo import ModelDims
from zoo.nn import BatchNorm
from zoo_s4.backbone import S4Backbone, S4Mixer
from zoo_s4.config import S4Config


def run(case: Case) -> Result:
    if "measure" in case.config:
        return run_init(case)
    if "kernel.log_dt" in case.params:
        return Standalone(case).run()
    if any(name.startswith("model.layers.") for name in case.params):
        return Stack(case).run()
    if "segments" in case.config:
        return Segments(case).run()
    if "output_linear.0.weight" in case.params:
        return BlockCase(case).run()
    return (Convolution if "x" in case.inputs else KernelCase)(case).run()


class LayerCase(Runner):
    """A mixer built from one layer's parameters; `self.call(method, x, …)` runs it with the reference's leaves."""

    kernel_prefix = ""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.theirs = Theirs(case, self.kernel_prefix)
        C = self.theirs["C"]
        bidirectional = case.config.get("bidirectional", False)
        if C.shape[0] != (2 if bidirectional else 1):
            raise Unmapped(f"{case.name}: {C.shape[0]} kernels per channel, bidirectional={bidirectional}")
        self.mixer = S4Mixer(self.theirs.config, C.shape[1], bidirectional=bidirectional).double()

    def ours(self, *, tilde: bool = False) -> dict[str, Tensor]:
        D = self.case.params[self.kernel_prefix.removesuffix("kernel.") + "D"]
        named = {f"kernel.{k}": v for k, v in self.theirs.kernel(tilde=tilde).items()} | {"D": D.reshape(-1)}
        if "output_linear.0.weight" in self.case.params:
            named["output_linear.weight"] = self.case.params["output_linear.0.weight"].flatten(1)
            named["output_linear.bias"] = self.case.params["output_linear.0.bias"]
        return named

    def call(self, method: str, *args: Any, tilde: bool = False, **kwargs: Any) -> Any:
        named = {f"mixer.{k}": v for k, v in self.ours(tilde=tilde).items()}
        return functional_call(Method(self.mixer, method), named, args, kwargs)

    @property
    def mask(self) -> Tensor | None:
        lengths = self.case.inputs.get("lengths")
        return None if lengths is None else torch.arange(self.x.shape[1]) < lengths[:, None]

    @property
    def x(self) -> Tensor:
        """(B, L, H)"""
        x = self.case.inputs["x"]
        return x.transpose(1, 2) if self.case.config.get("transposed") else x

    def theirs_layout(self, y: Tensor) -> Tensor:
        return y.transpose(1, 2) if self.case.config.get("transposed") else y

    def loss(self, y: Tensor, cotangent: str = "cotangent") -> Tensor:
        return (y * self.case.inputs[cotangent].detach()).sum()


class Method(nn.Module):
    """One method of a module as a module's forward, for functional_call."""

    def __init__(self, mixer: nn.Module, method: str) -> None:
        super().__init__()
        self.mixer, self.method = mixer, method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.mixer, self.method)(*args, **kwargs)


class Convolution(LayerCase):
    """K * x + D x, without activation."""

    kernel_prefix = "kernel."

    def run(self) -> Result:
        y, _ = self.call("convolve", self.x, mask=self.mask)
        self.values["out.y"] = self.theirs_layout(y)
        if self.wants("out.K"):
            L = self.case.tensors["out.K"].shape[-1]
            self.values["out.K"] = discretize(self.theirs.config, self.theirs.kernel()).kernel(L, self.case.dtype)
        self.add_gradients("altgrad.", self.loss(self.theirs_layout(y)))
        y, _ = self.call("convolve", self.x, mask=self.mask, tilde=True)
        self.add_gradients("grad.", self.loss(self.theirs_layout(y)))
        return self.result()


class BlockCase(LayerCase):
    """S4Block: convolution, GELU, projection, gate; token by token where the file has that."""

    kernel_prefix = "layer.kernel."

    def run(self) -> Result:
        y, state = self.call("forward", self.x, mask=self.mask)
        self.values["out.y"] = self.theirs_layout(y)
        if self.wants("out.y_nolengths"):
            self.values["out.y_nolengths"] = self.theirs_layout(self.call("forward", self.x)[0])
        if self.wants("out.state_final"):
            self.values["out.state_final"] = their_state(state, self.case.tensors["out.state_final"])
        if self.wants("out.y_step"):
            self.values["out.y_step"] = self.theirs_layout(self.stepped(state))
        self.add_gradients("altgrad.", self.loss(self.theirs_layout(y)))
        y, _ = self.call("forward", self.x, mask=self.mask, tilde=True)
        self.add_gradients("grad.", self.loss(self.theirs_layout(y)))
        return self.result()

    def stepped(self, final: Tensor) -> Tensor:
        x = self.x if self.mask is None else self.x * self.mask[..., None]
        state = self.mixer.init_state(x.shape[0], device="cpu", dtype=x.dtype)
        ys = []
        for t in range(x.shape[1]):
            y_t, state = self.call("step", x[:, t], state)
            ys.append(y_t)
        if self.mask is None:
            torch.testing.assert_close(state, final)
        return torch.stack(ys, 1)


class Standalone(BlockCase):
    """models/s4/s4d.py: S4D alone, with +i A_imag, B = 1 and (B, H, L) throughout."""

    kernel_prefix = "kernel."

    def __init__(self, case: Case) -> None:
        Runner.__init__(self, case)
        p = case.params
        self.config = S4Config(
            d_state=2 * p["kernel.C"].shape[1], kernel="diag", disc="zoh", n_ssm=p["kernel.C"].shape[0]
        )
        self.mixer = S4Mixer(self.config, p["kernel.C"].shape[0], bidirectional=False).double()

    def ours(self, *, tilde: bool = False) -> dict[str, Tensor]:
        p = self.case.params
        one = torch.zeros_like(p["kernel.C"].detach())
        one[..., 0] = 1.0
        return {
            "kernel.A_real": p["kernel.log_A_real"],
            "kernel.A_imag": -p["kernel.A_imag"],
            "kernel.B": one,
            "kernel.C": p["kernel.C"][None],
            "kernel.inv_dt": torch.log(torch.expm1(torch.exp(p["kernel.log_dt"])))[:, None],
            "D": p["D"],
            "output_linear.weight": p["output_linear.0.weight"].flatten(1),
            "output_linear.bias": p["output_linear.0.bias"],
        }


class Segments(LayerCase):
    """Consecutive segments with carried state, from a state that is not zero."""

    kernel_prefix = "kernel."

    def run(self) -> Result:
        state: Tensor = our_state(self.case.inputs["state0"], self.mixer.kernel.C.shape[2])
        ys = []
        for i, piece in enumerate(self.x.split(self.case.config["segments"], 1), 1):
            y, state = self.call("convolve", piece, state=state)
            ys.append(y)
            name = f"out.state_{i}"
            if self.wants(name):
                self.values[name] = their_state(state, self.case.tensors[name])
        self.values["out.y"] = self.theirs_layout(torch.cat(ys, 1))
        whole = self.theirs_layout(self.call("convolve", self.x)[0])
        self.values["out.y_zero_state"] = whole
        self.add_gradients("altgrad_zero_state.", self.loss(whole, "cotangent_zero_state"))
        whole = self.theirs_layout(self.call("convolve", self.x, tilde=True)[0])
        self.add_gradients("grad_zero_state.", self.loss(whole, "cotangent_zero_state"))
        self.add_gradients("grad.", self.loss(self.values["out.y"]))
        return self.result()


def our_state(theirs: Tensor, n: int) -> Tensor:
    """(B, H, n or 2n, 2) -> (B, H, n) complex: one member of each pair."""
    state = torch.view_as_complex(theirs.detach())
    if state.shape[-1] == 2 * n:
        first, second = state[..., :n], state[..., n:]
        torch.testing.assert_close(first, second.conj().resolve_conj())
        return first
    return state


def their_state(ours: Tensor, like: Tensor) -> Tensor:
    if like.shape[-2] == 2 * ours.shape[-1]:
        ours = torch.cat([ours, ours.conj()], -1)
    return torch.view_as_real(ours.resolve_conj())


class PadsStay(S4Backbone):
    """Without clearing pads: the reference's batch statistics count what they hold."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return nn.Module.__call__(self, *args, **kwargs)


class Unmasked(nn.Module):
    """A batch norm whose statistics count pads, as the reference's do; ours does not, by choice."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.norm(x)


class Stack(Runner):
    """The residual stack under a mean-pooled linear decoder, in eval and in train mode."""

    NORMS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        config, n_layers = case.config, case.config["n_layers"]
        self.theirs = [
            Theirs(case, f"model.layers.{i}.layer.layer.kernel.", f"C_original_{i}") for i in range(n_layers)
        ]
        ours = self.theirs[0].config
        ours.prenorm, ours.norm = config["prenorm"], config["norm"]
        if ours.norm not in ("batch", "layer"):
            raise Unmapped(f"{case.name}: norm={config['norm']!r}")
        dims = ModelDims(
            d_model=case.inputs["x"].shape[2],
            n_layers=n_layers,
            mode="bidirectional" if config["bidirectional"] else "causal",
            max_len=case.inputs["x"].shape[1],
        )
        self.backbone = PadsStay(ours, dims).double()
        for module in list(self.backbone.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, BatchNorm):
                    setattr(module, name, Unmasked(child))

    def original_of(self, name: str) -> str:
        original = f"in.C_original_{name.split('.')[3]}"
        return original if original in self.case.tensors else name

    def ours(self, *, tilde: bool = False) -> dict[str, Tensor]:
        p, named = self.case.params, {}
        norms = {f"model.layers.{i}.norm.norm.": f"stack.blocks.{i}.norm1." for i in range(len(self.theirs))}
        if self.backbone.stack.final_norm is not None:
            norms["model.norm.norm."] = "stack.final_norm."
        for i, theirs in enumerate(self.theirs):
            at, layer = f"stack.blocks.{i}.mixer.", f"model.layers.{i}.layer."
            named |= {f"{at}kernel.{k}": v for k, v in theirs.kernel(tilde=tilde).items()}
            named[f"{at}D"] = p[f"{layer}layer.D"].reshape(-1)
            named[f"{at}output_linear.weight"] = p[f"{layer}output_linear.0.weight"]
            named[f"{at}output_linear.bias"] = p[f"{layer}output_linear.0.bias"]
        inner = "norm." if self.case.config["norm"] == "batch" else ""
        for theirs_at, ours_at in norms.items():
            for name in self.NORMS:
                if theirs_at + name in p:
                    # a copy of the running statistics: train mode updates them in place
                    value = p[theirs_at + name]
                    named[ours_at + inner + name] = value if name in ("weight", "bias") else value.detach().clone()
        return named

    def forward(self, named: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        p, x = self.case.params, self.case.inputs["x"]
        lengths = self.case.inputs.get("lengths")
        mask = None if lengths is None else torch.arange(x.shape[1]) < lengths[:, None]
        hidden = functional_call(self.backbone, named, (x,), {"mask": mask}).hidden
        if self.case.config.get("pool", "mean over valid positions") != "mean over valid positions":
            raise Unmapped(f"{self.case.name}: pool={self.case.config['pool']!r}")
        if "decoder.output_transform.weight" not in p:
            return hidden, hidden
        pooled = hidden.mean(1) if mask is None else (hidden * mask[..., None]).sum(1) / lengths[:, None]
        return hidden, F.linear(pooled, p["decoder.output_transform.weight"], p["decoder.output_transform.bias"])

    def run(self) -> Result:
        cotangent = self.case.inputs["cotangent"].detach()
        self.backbone.eval()
        hidden, logits = self.forward(self.ours())
        self.values |= {"out.hidden": hidden, "out.y": logits}
        self.add_gradients("altgrad.", (logits * cotangent).sum())
        self.add_gradients("grad.", (self.forward(self.ours(tilde=True))[1] * cotangent).sum())
        self.backbone.train()
        named = self.ours()
        self.values["out.logits_train_mode"] = self.forward(named)[1]
        for name in self.case.tensors:
            if name.startswith("out.after_train."):
                self.values[name] = named[self.our_norm(name.removeprefix("out.after_train."))]
        return self.result()

    def our_norm(self, name: str) -> str:
        where, statistic = name.rsplit(".norm.", 1)
        parts = where.split(".")
        ours = f"stack.blocks.{parts[2]}.norm1" if parts[1] == "layers" else "stack.final_norm"
        return f"{ours}.norm.{statistic}"
