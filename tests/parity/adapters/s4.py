"""S4 and S4D against state-spaces/s4.

The reference stores C_tilde = C (I - Abar^l_kernel); ours stores C. `altgrad*` has the original C as its leaf, which
is ours as it stands. For `grad*`, whose leaf is C_tilde, C = C_tilde (I - Abar^l_kernel)^-1 is made differentiably
from the reference's leaves and goes through the same modules. Outputs are taken from the original C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo import Shape
from zoo.nn import BatchNorm
from zoo.ops.dplr import DPLRSSM, as_complex, truncated_C
from zoo.ops.hippo import clip_imaginary, diagonal_init, hippo_legs, legs_dplr, legs_low_rank
from zoo_s4.backbone import S4Backbone, S4Mixer
from zoo_s4.config import S4Config
from zoo_s4.kernel import S4Kernel

TRANSFORMS = {
    "exp": torch.exp,
    "none": lambda p: p,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


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


@dataclass
class Theirs:
    """One layer's SSM as the reference names it, under `prefix`."""

    case: Case
    prefix: str
    original: str = "C_original"

    def __getitem__(self, name: str) -> Tensor:
        return self.case.params[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.case.params

    @property
    def config(self) -> S4Config:
        """Our configuration with the reference's sizes, checked for what we would not understand."""
        config = self.case.config
        for key, known in (
            ("activation", ("gelu", None)),
            ("final_act", ("glu",)),
            ("gate", (None,)),
            ("bottleneck", (None,)),
            ("rate", (1.0,)),
            ("residual", ("R",)),
            ("mode", ("dplr", "diag", "s4", "s4d", "nplr")),
            ("disc", ("zoh", "bilinear")),
        ):
            if key in config and config[key] not in known:
                raise Unmapped(f"{self.case.name}: {key}={config[key]!r}")
        if config.get("dropout"):
            raise Unmapped(f"{self.case.name}: dropout={config['dropout']}")
        dplr = "P" in self
        return S4Config(
            d_state=2 * self["A_real"].shape[-1],
            kernel="dplr" if dplr else "diag",
            disc="auto" if dplr else config.get("disc", "zoh"),
            n_ssm=self["A_real"].shape[0],
        )

    def kernel(self, *, tilde: bool = False) -> dict[str, Tensor]:
        """Our S4Kernel's parameters, as functions of the reference's leaves."""
        config = self.case.config
        try:
            real = TRANSFORMS[config.get("real_transform", "exp")]
            imag = TRANSFORMS[config.get("imag_transform", "none")]
            step = TRANSFORMS[config["dt_transform"]]
        except KeyError as error:
            raise Unmapped(f"{self.case.name}: transform {error}") from error
        same = config.get("real_transform", "exp") == "exp"
        ours = {
            "A_real": self["A_real"] if same else torch.log(real(self["A_real"])),
            "A_imag": imag(self["A_imag"]),
            "B": self["B"][0],
            "inv_dt": self["inv_dt"] if step is F.softplus else torch.log(torch.expm1(step(self["inv_dt"]))),
        }
        if "P" not in self:
            return ours | {"C": self["C"]}
        ours["P"] = self["P"]
        length = int(self["l_kernel"])
        if not tilde and self.original in self.case.inputs:
            return ours | {"C": self.case.inputs[self.original]}
        return ours | {"C": untruncate(self.config, ours, self["C"], length) if length else self["C"]}


def new_kernel(config: S4Config, C: Tensor) -> S4Kernel:
    return S4Kernel(config, C.shape[1], C.shape[0]).double()


def discretize(config: S4Config, ours: dict[str, Tensor]) -> Any:
    """Our kernel module's discrete system with `ours` in place of its parameters."""
    return functional_call(Discretize(new_kernel(config, ours["C"])), {f"kernel.{k}": v for k, v in ours.items()}, ())


class Discretize(nn.Module):
    def __init__(self, kernel: S4Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self) -> Any:
        return self.kernel.discretize()


def untruncate(config: S4Config, ours: dict[str, Tensor], C_tilde: Tensor, length: int) -> Tensor:
    """C from C_tilde = C (I - Abar^length)."""
    ssm: DPLRSSM = discretize(config, ours | {"C": C_tilde})
    A, _, row = ssm.dense
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    C = torch.linalg.solve((eye - torch.linalg.matrix_power(A, length))[None], row[:, :, None], left=False)[:, :, 0]
    return torch.view_as_real((as_complex(C) / 2).conj().resolve_conj())


class Runner:
    """Shared by all cases: the losses whose gradients a file holds, and the leaves that they are taken for."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.values: dict[str, Tensor] = {}

    def wants(self, name: str) -> bool:
        return name in self.case.tensors

    def add_gradients(self, prefix: str, loss: Tensor) -> None:
        """`prefix` NAME for each one in the file; under an altgrad prefix the leaf of C is the original C."""
        names = [k.removeprefix(prefix) for k in self.case.tensors if k.startswith(prefix)]
        if not names:
            return
        leaves = [self.leaf(name, original=prefix.startswith("altgrad")) for name in names]
        found = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
        for name, leaf, g in zip(names, leaves, found, strict=True):
            self.values[prefix + name] = torch.zeros_like(leaf) if g is None else g

    def leaf(self, name: str, *, original: bool) -> Tensor:
        if original and name.startswith("param.") and name.endswith("kernel.C"):
            name = self.original_of(name)
        leaves = self.case.leaves()
        if name not in leaves:
            raise Unmapped(f"{self.case.arch}/{self.case.name}: no leaf {name}")
        return leaves[name]

    def original_of(self, name: str) -> str:
        return "in.C_original" if "in.C_original" in self.case.tensors else name

    def has(self, prefix: str) -> bool:
        return any(k.startswith(prefix) for k in self.case.tensors)

    def result(self) -> Result:
        return Result(self.values)


class KernelCase(Runner):
    """S4Kernel: convolution kernels of any length, DPLR or diagonal."""

    def run(self) -> Result:
        theirs = Theirs(self.case, "")
        config, tensors = theirs.config, self.case.tensors
        self.original = "in.C_original"
        discs = [("y", "grad.", config)]
        if config.kernel == "diag":
            bilinear = S4Config(**{**vars(config), "disc": "bilinear"})
            discs = [("y", "grad.", config), ("y_bilinear", "grad_bilinear.", bilinear)]
        for out, grad, chosen in discs:
            if not self.wants(f"out.{out}"):
                continue
            ssm = discretize(chosen, theirs.kernel())
            lengths = {k: v.shape[-1] for k, v in tensors.items() if k.startswith("out.K")}
            for name, L in {f"out.{out}": tensors[f"out.{out}"].shape[-1], **lengths}.items():
                self.values[name] = ssm.kernel(L, self.case.dtype)
            if self.wants("out.C_tilde_L0"):
                tilde = truncated_C(ssm, self.case.config["l_max"])
                self.values["out.C_tilde_L0"] = torch.view_as_real(tilde.resolve_conj())
            if self.has("alt" + grad):
                self.add_gradients("alt" + grad, self.loss(self.values[f"out.{out}"]))
            if self.has(grad):
                y = discretize(chosen, theirs.kernel(tilde=True)).kernel(
                    tensors[f"out.{out}"].shape[-1], self.case.dtype
                )
                self.add_gradients(grad, self.loss(y))
        return self.result()

    def loss(self, y: Tensor) -> Tensor:
        return (y * self.case.inputs["cotangent"].detach()).sum()


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
        shape = Shape(
            d_model=case.inputs["x"].shape[2],
            n_layers=n_layers,
            mode="bidirectional" if config["bidirectional"] else "causal",
            max_len=case.inputs["x"].shape[1],
        )
        self.backbone = S4Backbone(ours, shape).double()
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


def run_init(case: Case) -> Result:
    """HiPPO-LegS and the S4D initial values. Eigenvectors are compared up to their phase."""
    if case.config["measure"] != "legs":
        raise Unmapped(f"{case.name}: measure={case.config['measure']!r}")
    N = case.config["N"]
    A, B = hippo_legs(N)
    init = legs_dplr(N)
    theirs = torch.view_as_complex(case.tensors["out.V"])
    inner = (init.V.conj() * theirs).sum(0)
    torch.testing.assert_close(inner.abs(), torch.ones_like(inner.abs()))
    phase = inner / inner.abs()
    P_diag, B_diag = init.P * phase.conj(), init.B * phase.conj()
    limit = case.config["B_clip"]
    values = {
        "y": A,
        "B": B,
        "P": legs_low_rank(N),
        "Lambda": init.Lambda,
        "V": init.V * phase,
        "P_diag": P_diag,
        "B_diag": B_diag,
        "B_diag_clipped": clip_imaginary(B_diag, limit),
        "B_conjP": init.B * init.P.conj(),
        "abs_B": init.B.abs(),
        "abs_P": init.P.abs(),
    }
    for kind in ("lin", "inv"):  # the reference evaluates these in float32, bit for bit as we do when asked to
        values[f"s4d_{kind}.A"], values[f"s4d_{kind}.B"] = diagonal_init(kind, N, dtype=torch.float32)
    check_single_precision_legs(case, N)
    full = {}
    for name, value in values.items():
        like = case.tensors[f"out.{name}"]
        value = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
        full[f"out.{name}"] = value.to(like.dtype)
    why = (
        "a single-precision eigh, good to 1e-5 and checked so; out.Lambda and out.B_diag_clipped are the same in double"
    )
    return Result(full, {"out.s4d_legs.*": why})


def check_single_precision_legs(case: Case, N: int) -> None:
    """S4D-LegS to the 1e-5 that the case's note allows, eigenvectors up to their sign."""
    A, B = diagonal_init("legs", N)
    theirs_A, theirs_B = (torch.view_as_complex(case.tensors[f"out.s4d_legs.{name}"]).to(A.dtype) for name in "AB")
    B = clip_imaginary(B, case.config["B_clip"])
    sign = torch.sign((B.conj() * theirs_B).real)
    torch.testing.assert_close(A, theirs_A, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(B * sign, theirs_B, rtol=1e-5, atol=1e-5)
