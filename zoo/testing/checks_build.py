"""What an architecture says of itself, and what comes out when it is built and called."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from dataclasses import fields

import torch

from zoo.nn.state import leaves
from zoo.spec.architecture import Preset, Reported
from zoo.spec.errors import did_you_mean
from zoo.testing.check import Check, check, require_finite, require_same, require_same_state
from zoo.testing.subject import Subject, cast, noise_like, positions

WIDTHS = (8, 32)
LENGTHS = (1, 7, 16, 33, 64)
SECTIONS = ("model", "optim", "train", "task", "segments", "arch")


def require_torch_free(modules: list[str]) -> None:
    """AssertionError when importing one of `modules`, in a process of its own, fails or brings in torch."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name + ' imports torch')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    why = (done.stderr.strip().splitlines() or ["no message"])[-1]
    assert done.returncode == 0, f"importing {', '.join(modules)}: {why}"


@check()
def spec_without_torch(subject: Subject) -> None:
    """The plugin, its configuration and its presets are importable without torch."""
    require_torch_free(subject.modules())


@check()
def presets_name_real_keys(subject: Subject) -> None:
    """Presets and reported scores are of the right type, and preset keys exist."""
    known = {f.name for f in fields(subject.architecture.load_config())}
    for where, preset in subject.architecture.load_presets().items():
        assert isinstance(where, tuple) and len(where) == 2, f"preset key {where!r}: expected (task, protocol)"  # noqa: PT018
        assert isinstance(preset, Preset), f"preset {where}: {type(preset).__name__}, expected Preset"
        for key in preset.values:
            section, _, name = key.partition(".")
            assert section in SECTIONS, f"preset {where}: key {key!r}{did_you_mean(section, SECTIONS)}"
            assert name, f"preset {where}: key {key!r} names no setting"
            if section == "arch":
                assert name in known, f"preset {where}: key {key!r}{did_you_mean(name, known)}"
            assert preset.source(key), f"preset {where}: {key} has no source"
    for score in subject.architecture.load_reported():
        assert isinstance(score, Reported), f"reported: {type(score).__name__}, expected Reported"
        assert score.source, f"reported {score.task}: no source"
        if score.metric == "accuracy":
            assert 0 <= score.value <= 1, f"reported {score.task}: accuracy {score.value} is not a fraction"


@check()
def builds_from_defaults(subject: Subject) -> None:
    """The default configuration builds in every mode, and the backbone has its shape."""
    for mode in subject.modes:
        backbone = subject.build(mode)
        assert backbone.dims.mode == mode, f"dims.mode is {backbone.dims.mode!r}, built as {mode!r}"
        assert any(True for _ in backbone.parameters()), f"{mode}: no parameters"


@check()
def shapes(subject: Subject) -> None:
    """Hidden vectors have the contract's shape, dtype and device for several widths and lengths."""
    for mode in subject.modes:
        latents: dict[int, set[int]] = {}
        for width in WIDTHS:
            backbone = subject.build(mode, d_model=width)
            for length in LENGTHS:
                for batch in (1, 3):
                    x = subject.input(backbone, length, batch=batch)
                    hidden = backbone(x).hidden
                    where = f"{mode}, x {tuple(x.shape)}"
                    assert hidden.ndim == 3, f"{where}: hidden has {hidden.ndim} dimensions"
                    assert hidden.shape[0] == batch, f"{where}: hidden has {hidden.shape[0]} rows"
                    assert hidden.shape[2] == x.shape[2], f"{where}: hidden is {hidden.shape[2]} wide"
                    assert hidden.dtype == x.dtype, f"{where}: {x.dtype} in, {hidden.dtype} out"
                    assert hidden.device == x.device, f"{where}: {x.device} in, {hidden.device} out"
                    require_finite(hidden, where)
                    out_len = hidden.shape[1]
                    assert out_len > 0, f"{where}: no hidden vector"
                    if mode == "causal":
                        assert out_len <= length, f"{where}: {out_len} hidden vectors for {length} tokens"
                    elif positions(backbone, out_len, length) is None:
                        latents.setdefault(width, set()).add(out_len)
        for width, counts in latents.items():
            assert len(counts) == 1, (
                f"{mode}, d_model {width}: {sorted(counts)} hidden vectors for other numbers of tokens; expected one "
                "for each token, or always as many latents"
            )


@check()
def length_contract(subject: Subject) -> None:
    """Any length works, or one beyond max_len is a ValueError that names both numbers."""
    kind = subject.capabilities.length
    for mode in subject.modes:
        backbone = subject.build(mode, max_len=48)
        limit = backbone.dims.max_len
        for length in (1, 2, 3, 5, 13, 31, limit - 1, limit):
            require_finite(backbone(subject.input(backbone, length)).hidden, f"{mode}, length {length}")
        beyond = subject.input(backbone, limit + 5)
        if kind == "any":
            require_finite(backbone(beyond).hidden, f"{mode}, length {limit + 5} beyond max_len {limit}")
            continue
        try:
            backbone(beyond)
        except ValueError as error:
            message = str(error)
            assert str(limit + 5) in message and str(limit) in message, (  # noqa: PT018
                f"{mode}: length {limit + 5} beyond max_len {limit} must name both numbers, says {message!r}"
            )
        else:
            raise AssertionError(f"{mode}: length {limit + 5} is taken though max_len is {limit} and length={kind!r}")


@check()
def what_does_not_fit_is_refused(subject: Subject) -> None:
    """An input of another width, an empty one, and a mask of another shape or kind are ValueErrors."""
    for mode in subject.modes:
        backbone = subject.build(mode)
        x = subject.input(backbone, 8)
        whole = torch.ones(2, 8, dtype=torch.bool)
        misfits: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {
            "another width": (x[..., 1:], None),
            "no tokens": (x[:, :0], None),
            "no rows": (x[:0], None),
            "two dimensions": (x[0], None),
            "a shorter mask": (x, whole[:, 1:]),
            "a mask of one row": (x, whole[:1]),
            "a mask of numbers": (x, whole.to(x.dtype)),
        }
        for what, (given, mask) in misfits.items():
            try:
                backbone(given, mask=mask)
            except ValueError:
                continue
            raise AssertionError(f"{mode}: {what}: no ValueError")


@check()
def float64_stays_float64(subject: Subject) -> None:
    """float64 in, float64 out, with the precision of float64."""
    for mode in subject.modes:
        narrow = subject.build(mode)
        wide = cast(copy.deepcopy(narrow), torch.float64)
        x = subject.input(wide, 33)
        out = wide(x)
        assert out.hidden.dtype == torch.float64, f"{mode}: float64 in, {out.hidden.dtype} out"
        for leaf in leaves(out.state):
            if leaf.is_floating_point() or leaf.is_complex():
                assert leaf.dtype in (torch.float64, torch.complex128), f"{mode}: state leaf in {leaf.dtype}"
        # a smooth function's second difference vanishes; a stage in float32 leaves its rounding, 1e-7, behind
        change = 1e-7 * noise_like(x)
        second = wide(x + change).hidden + wide(x - change).hidden - 2 * out.hidden
        rounding = (second.abs().max() / out.hidden.abs().max()).item()
        assert rounding < 1e-10, f"{mode}: a relative {rounding:.2g} is lost on the way, so a stage runs in float32"
        require_same(narrow(x.float()).hidden.double(), out.hidden, 1e-3, f"{mode}: float32 against float64")


@check()
def finite_in_bf16(subject: Subject) -> None:
    """Under bfloat16 autocast outputs and gradients are finite and near those of float32."""
    for mode in subject.modes:
        backbone = subject.build(mode, d_model=32)
        x = subject.input(backbone, 33).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = backbone(x).hidden
            loss = subject.loss(backbone, x)
        require_finite(hidden, f"{mode}: forward")
        loss.backward()
        for name, parameter in [("x", x), *backbone.named_parameters()]:
            if parameter.grad is not None:
                require_finite(parameter.grad, f"{mode}: gradient of {name}")
        gap = (hidden.float() - backbone(x).hidden).norm() / backbone(x).hidden.norm()
        assert gap < 0.2, f"{mode}: bfloat16 autocast is {gap:.2g} (relative norm) away from float32"


@check()
def every_parameter_gets_a_gradient(subject: Subject) -> None:
    """Every parameter gets a finite gradient, and for none is it always zero."""
    for mode in subject.modes:
        backbone = subject.probe(mode).train()
        # whole segments where there are any: what works on rows that leave a full memory is reached only then
        length = 3 * (backbone.dims.max_len - 1) if subject.capabilities.segment else 60
        subject.loss(backbone, subject.input(backbone, length, batch=3)).backward()
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{mode}: {name} gets no gradient"
                require_finite(parameter.grad, f"{mode}: gradient of {name}")
                assert parameter.grad.any(), f"{mode}: the gradient of {name} is zero everywhere"


@check()
def gradients_match_differences(subject: Subject) -> None:
    """Gradients for the input and for every parameter equal finite differences."""
    for mode in subject.modes:
        backbone = subject.probe(mode)
        x = subject.input(backbone, 33).requires_grad_()
        # what stops gradients on purpose is compared within one call
        pieces = 3 if subject.capabilities.state_grad else 1
        leaves_ = {"x": x, **{n: p for n, p in backbone.named_parameters() if p.is_floating_point()}}
        loss = subject.loss(backbone, x, pieces=pieces)
        gradients = torch.autograd.grad(loss, list(leaves_.values()), allow_unused=True)
        for i, ((name, leaf), gradient) in enumerate(zip(leaves_.items(), gradients, strict=True)):
            direction = noise_like(leaf, seed=i)
            told = 0.0 if gradient is None else (gradient * direction).sum().item()
            with torch.no_grad():
                values = []
                for sign in (1, -2, 1):
                    leaf += sign * 1e-6 * direction
                    values.append(subject.loss(backbone, x, pieces=pieces).item())
            found = (values[0] - values[1]) / 2e-6
            scale = max(abs(told), abs(found), 1e-3)
            assert abs(told - found) < 1e-4 * scale, (
                f"{mode}: slope along {name} is {found:.8g}, gradient says {told:.8g}"
            )


@check()
def deterministic(subject: Subject) -> None:
    """The seed decides the parameters, and equal calls give equal results, in training with equal random state."""
    for mode in subject.modes:
        backbone, again = subject.build(mode, seed=3), subject.build(mode, seed=3)
        for (name, a), (_, b) in zip(backbone.state_dict().items(), again.state_dict().items(), strict=True):
            assert torch.equal(a, b), f"{mode}: {name} differs between two builds with one seed"
        x = subject.input(backbone, 33)
        for train in (False, True):
            results = []
            for net in (backbone.train(train), again.train(train)):
                if train:
                    torch.manual_seed(5)
                results.append(net(x).hidden)
            assert torch.equal(*results), f"{mode}: equal calls differ ({'training' if train else 'evaluation'})"


@check()
def pure_function(subject: Subject) -> None:
    """A call changes none of its arguments, and other calls in between do not change its result."""
    for mode in subject.modes:
        backbone = subject.build(mode)
        x, mask = subject.input(backbone, 16), torch.ones(2, 16, dtype=torch.bool)
        mask[1, 9:] = False
        state = backbone(subject.input(backbone, 7, seed=1)).state if mode in subject.state_modes else None
        before = [copy.deepcopy(x), copy.deepcopy(mask), *(leaf.clone() for leaf in leaves(state))]
        first = backbone(x, mask=mask, state=state)
        for a, b in zip(before, [x, mask, *leaves(state)], strict=True):
            assert torch.equal(a, b), f"{mode}: forward changes an argument of shape {tuple(b.shape)} in place"
        backbone(subject.input(backbone, 33, batch=3, seed=2))
        second = backbone(x, mask=mask, state=state)
        assert torch.equal(first.hidden, second.hidden), f"{mode}: a call in between changes the result"
        require_same_state(second.state, first.state, 0.0, f"{mode}: a call in between changes the state")


@check()
def parameters_depend_on_shape_only(subject: Subject) -> None:
    """Names and shapes of the parameters follow from (config, shape), whatever the seed."""
    for mode in subject.modes:
        first, second = (
            {name: tuple(p.shape) for name, p in subject.build(mode, seed=seed).named_parameters()} for seed in (0, 1)
        )
        assert first == second, f"{mode}: {len(first)} parameters with seed 0, {len(second)} with seed 1, or of others"


@check()
def state_dict_round_trip(subject: Subject) -> None:
    """Saved weights, loaded into a backbone of another seed, give the same outputs."""
    for mode in subject.modes:
        source, target = subject.build(mode, jitter=True), subject.build(mode, seed=7)
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target.load_state_dict(torch.load(file, weights_only=True), strict=True)
        x = subject.input(source, 33)
        assert torch.equal(source(x).hidden, target(x).hidden), f"{mode}: outputs differ: something is not saved"


@check()
def deepcopy_and_pickle(subject: Subject) -> None:
    """Copies give the same outputs, and training one leaves the other alone."""
    for mode in subject.modes:
        backbone = subject.build(mode)
        x = subject.input(backbone, 16)
        hidden = backbone(x).hidden.detach()
        for how, twin in (
            ("deepcopy", copy.deepcopy(backbone)),
            ("pickle", pickle.loads(pickle.dumps(backbone))),
        ):
            assert torch.equal(twin(x).hidden, hidden), f"{mode}: a copy by {how} gives other outputs"
            with torch.no_grad():
                for parameter in twin.parameters():
                    parameter += noise_like(parameter)
            assert torch.equal(backbone(x).hidden, hidden), f"{mode}: a copy by {how} shares parameters"


@check()
def aux_is_declared(subject: Subject) -> None:
    """Auxiliary losses are finite scalars with declared names."""
    declared = set(subject.capabilities.aux)
    for mode in subject.modes:
        backbone = subject.build(mode).train()
        for out in subject.chunks(backbone, subject.input(backbone, 60)):
            for name, loss in out.aux.items():
                assert name in declared, f"{mode}: auxiliary loss {name!r} is not in capabilities.aux"
                assert loss.ndim == 0, f"{mode}: auxiliary loss {name!r} has shape {tuple(loss.shape)}"
                require_finite(loss, f"{mode}: auxiliary loss {name!r}")


CHECKS: tuple[Check, ...] = (
    spec_without_torch,
    presets_name_real_keys,
    builds_from_defaults,
    parameters_depend_on_shape_only,
    shapes,
    length_contract,
    what_does_not_fit_is_refused,
    float64_stays_float64,
    finite_in_bf16,
    every_parameter_gets_a_gradient,
    gradients_match_differences,
    deterministic,
    pure_function,
    state_dict_round_trip,
    deepcopy_and_pickle,
    aux_is_declared,
)
