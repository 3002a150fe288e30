"""S4's reference parameters as ours, kernels on their own, and initial values; `s4.py` has the layers and stacks.

The reference stores C_tilde = C (I - Abar^l_kernel); ours stores C. `altgrad*` has the original C as its leaf, which
is ours as it stands. For `grad*`, whose leaf is C_tilde, C = C_tilde (I - Abar^l_kernel)^-1 is made differentiably
from the reference's leaves and goes through the same modules. Outputs are taken from the original C.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.parity.harness import Case, Result, Unmapped
from zoo.ops.complex import as_complex
from zoo.ops.dplr import DPLRSSM
from zoo.ops.hippo import clip_imaginary, diagonal_init, hippo_legs, legs_dplr, legs_low_rank
from zoo_s4.config import S4Config
from zoo_s4.kernel import S4Kernel

TRANSFORMS = {
    "exp": torch.exp,
    "none": lambda p: p,
    "relu": lambda p: F.relu(p) + 1e-4,  # the reference keeps clear of zero
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


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
        originals = self.case.inputs
        if not tilde and self.original in originals:
            C = originals[self.original]
        elif "P" in self and int(self["l_kernel"]):
            C = untruncate(self.config, ours | {"P": self["P"]}, self["C"], int(self["l_kernel"]))
        else:
            C = self["C"]
        return ours | {"C": C} | ({"P": self["P"]} if "P" in self else {})


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


def truncated_C(ssm: DPLRSSM, L: int) -> Tensor:
    """C_tilde = C (I - Abar^L), which the published code has as its parameter (S4 appendix C.3)."""
    A, _, row = ssm.dense
    tilde = row - torch.einsum("chm,hmn->chn", row, torch.linalg.matrix_power(A, L))
    return (as_complex(tilde) / 2).conj()


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
        discs = [("y", "grad.", config), ("y_bilinear", "grad_bilinear.", replace(config, disc="bilinear"))]
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
                L = tensors[f"out.{out}"].shape[-1]
                y = discretize(chosen, theirs.kernel(tilde=True)).kernel(L, self.case.dtype)
                self.add_gradients(grad, self.loss(y))
        return self.result()

    def loss(self, y: Tensor) -> Tensor:
        return (y * self.case.inputs["cotangent"].detach()).sum()


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
    why = "a single-precision eigh, checked to 1e-5; out.Lambda and out.B_diag_clipped are the same in double"
    return Result(full, {"out.s4d_legs.*": why})


def check_single_precision_legs(case: Case, N: int) -> None:
    """S4D-LegS to the 1e-5 that the case's note allows, eigenvectors up to their sign."""
    A, B = diagonal_init("legs", N)
    theirs_A, theirs_B = (torch.view_as_complex(case.tensors[f"out.s4d_legs.{name}"]).to(A.dtype) for name in "AB")
    B = clip_imaginary(B, case.config["B_clip"])
    sign = torch.sign((B.conj() * theirs_B).real)
    torch.testing.assert_close(A, theirs_A, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(B * sign, theirs_B, rtol=1e-5, atol=1e-5)
