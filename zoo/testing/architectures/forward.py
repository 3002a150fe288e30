"""Checks of an architecture's declaration, and of one call of `forward`: shapes, arguments, precision, gradients."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone
from zoo.nn.state import leaves
from zoo.spec.errors import did_you_mean
from zoo.spec.presets import Preset, Reported
from zoo.testing import expect
from zoo.testing.architectures.subject import FORWARD, METADATA, ArchitectureSubject, cast, positions
from zoo.testing.check import check
from zoo.testing.tensors import noise_like, right_padded

SECTIONS = ("model", "optim", "train", "task", "segments", "arch")
WIDTHS = (8, 32)
LENGTHS = (1, 7, 16, 33, 64)


@check(METADATA)
def spec_without_torch(subject: ArchitectureSubject) -> None:
    """The plugin, its configuration, presets and reported scores are importable without torch."""
    spec = subject.architecture
    expect.importable_without_torch([subject.entry_point, spec.config, "zoo.spec.presets:load_presets"])


@check(METADATA)
def preset_keys_exist(subject: ArchitectureSubject) -> None:
    """Presets and reported scores have the right types and sources, and the presets' configuration keys exist."""
    known = {f.name for f in fields(subject.architecture.load_config())}
    for where, preset in subject.architecture.load_presets().items():
        assert isinstance(where, tuple) and len(where) == 2, f"preset key {where!r}: expected (task, protocol)"  # noqa: PT018
        assert isinstance(preset, Preset), f"preset {where}: {type(preset).__name__}, expected Preset"
        for key in preset.values:
            section, _, name = key.partition(".")
            assert section in SECTIONS, f"preset {where}: key {key!r}{did_you_mean(section, SECTIONS)}"
            valid = name in known if section == "arch" else name
            assert valid, f"preset {where}: key {key!r}{did_you_mean(name, known)}"
            assert preset.sources[key], f"preset {where}: {key} has no source"
    for score in subject.architecture.load_reported():
        assert isinstance(score, Reported), f"reported: {type(score).__name__}, expected Reported"
        assert score.source, f"reported {score.task}: no source"
        fraction = score.metric != "accuracy" or 0 <= score.value <= 1
        assert fraction, f"reported {score.task}: accuracy {score.value} is not a fraction"


@check(FORWARD)
def builds_from_defaults(subject: ArchitectureSubject) -> None:
    """The default configuration builds in every mode, and the backbone keeps its dimensions."""
    backbone = subject.build()
    assert backbone.dims.mode == subject.mode, f"dims.mode is {backbone.dims.mode!r}"
    assert any(True for _ in backbone.parameters()), "no parameters"


@check(FORWARD)
def parameter_shapes_do_not_depend_on_the_seed(subject: ArchitectureSubject) -> None:
    """Names and shapes of the parameters follow from configuration and dimensions alone."""
    first, second = ({n: p.shape for n, p in subject.build(seed=seed).named_parameters()} for seed in (0, 1))
    changed = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    assert not changed, f"with another seed these parameters differ in shape or are missing: {', '.join(changed)}"


@check(FORWARD)
def shapes(subject: ArchitectureSubject) -> None:
    """Hidden vectors have the documented shape, dtype and device for several widths, lengths and batch sizes."""
    for width in WIDTHS:
        backbone, latents = subject.build(d_model=width), set()
        for length, batch in ((length, batch) for length in LENGTHS for batch in (1, 3)):
            x = subject.random_input(backbone, length, batch=batch)
            hidden = backbone(x).hidden
            where, out_len = f"x {tuple(x.shape)}", hidden.shape[1]
            expect.hidden_like(hidden, x, out_len, where)
            assert out_len > 0, f"{where}: no hidden vector"
            if subject.mode == "causal":
                assert out_len <= length, f"{where}: {out_len} hidden vectors for {length} tokens"
            elif positions(backbone, out_len, length) is None:
                latents.add(out_len)
        assert len(latents) < 2, (
            f"d_model {width}: {sorted(latents)} hidden vectors for inputs of different lengths; expected one per "
            "token, or a fixed number of latents"
        )


@check(FORWARD)
def length_contract(subject: ArchitectureSubject) -> None:
    """Any length works, or one greater than max_len raises a ValueError that names both numbers."""
    kind = subject.capabilities.length
    backbone = subject.build(max_len=48)
    limit = backbone.dims.max_len
    for length in (1, 2, 3, 5, 13, 31, limit - 1, limit):
        expect.finite(backbone(subject.random_input(backbone, length)).hidden, f"length {length}")
    too_long = subject.random_input(backbone, limit + 5)
    if kind not in ("max", "fixed"):
        expect.finite(backbone(too_long).hidden, f"length {limit + 5} with max_len {limit}")
        return
    message = expect.value_error(
        lambda: backbone(too_long), f"length {limit + 5} with max_len {limit}, length={kind!r}"
    )
    named = str(limit + 5) in message and str(limit) in message
    assert named, f"length {limit + 5} with max_len {limit}: the error must name both numbers: {message!r}"


@check(FORWARD)
def invalid_inputs_are_refused(subject: ArchitectureSubject) -> None:
    """An input of another width or without tokens, and a mask of another shape or dtype, raise ValueError."""
    backbone = subject.build()
    x, mask = subject.random_input(backbone, 8), torch.ones(2, 8, dtype=torch.bool)
    invalid: dict[str, tuple[Tensor, Tensor | None]] = {
        "x of another width": (x[..., 1:], None),
        "x without tokens": (x[:, :0], None),
        "x without rows": (x[:0], None),
        "x of two dimensions": (x[0], None),
        "a mask that is shorter than x": (x, mask[:, 1:]),
        "a mask with fewer rows than x": (x, mask[:1]),
        "a mask of floats": (x, mask.to(x.dtype)),
    }
    for what, (inputs, its_mask) in invalid.items():
        expect.value_error(partial(backbone, inputs, mask=its_mask), what)


@check(FORWARD)
def float64_stays_float64(subject: ArchitectureSubject) -> None:
    """float64 inputs give float64 outputs and states, with the precision of float64."""
    single = subject.build()
    double = cast(copy.deepcopy(single), torch.float64)
    x = subject.random_input(double, 33)
    out = double(x)
    for leaf in leaves(out.state):
        if leaf.is_floating_point() or leaf.is_complex():
            assert leaf.dtype.to_real() == torch.float64, f"a state leaf is {leaf.dtype}"
    expect.float64_throughout(lambda x: double(x).hidden, x)
    expect.close(single(x.float()).hidden.double(), out.hidden, 1e-3, "outputs in float32 and float64")


@check(FORWARD)
def finite_in_bf16(subject: ArchitectureSubject) -> None:
    """Under bfloat16 autocast outputs and gradients are finite and close to those of float32."""
    backbone = subject.build(d_model=32)
    x = subject.random_input(backbone, 33).requires_grad_()
    expect.close_in_bfloat16(backbone, x, lambda: backbone(x).hidden, lambda: subject.loss(backbone, x))


@check(FORWARD)
def every_parameter_gets_a_gradient(subject: ArchitectureSubject) -> None:
    """Every parameter gets a finite gradient that is not zero everywhere."""
    backbone = subject.build_float64().train()
    # with segments: whole ones, because parameters that read rows leaving a full memory are reached only then
    length = 3 * (backbone.dims.max_len - 1) if subject.capabilities.segment else 60
    expect.all_parameters_trained(backbone, subject.loss(backbone, subject.random_input(backbone, length, batch=3)))


@check(FORWARD)
def gradients_match_finite_differences(subject: ArchitectureSubject) -> None:
    """Gradients of the input and of every parameter equal finite differences."""
    backbone = subject.build_float64()
    x = subject.random_input(backbone, 33).requires_grad_()
    in_chunks = subject.capabilities.state_grad  # otherwise gradients are stopped between chunks
    tensors = {"x": x, **dict(backbone.named_parameters())}
    expect.gradients_correct(lambda: subject.loss(backbone, x, in_chunks=in_chunks), tensors)


@check(FORWARD)
def deterministic(subject: ArchitectureSubject) -> None:
    """The seed determines the parameters; equal calls give equal results, in training with equal random state."""
    backbone, again = subject.build(seed=3), subject.build(seed=3)
    for (name, a), (_, b) in zip(backbone.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), f"{name} differs between two builds with the same seed"
    x = subject.random_input(backbone, 33)
    for train in (False, True):
        results = []
        for net in (backbone.train(train), again.train(train)):
            if train:
                torch.manual_seed(5)
            results.append(net(x).hidden)
        assert torch.equal(*results), f"equal calls differ in {'training' if train else 'evaluation'} mode"


@check(FORWARD)
def pure_function(subject: ArchitectureSubject) -> None:
    """A call modifies none of its arguments, and calls in between do not change its result."""
    backbone = subject.build()
    x, mask = subject.random_input(backbone, 16), right_padded(16, (16, 9))
    state = backbone(subject.random_input(backbone, 7, seed=1)).state if subject.stateful else None
    other = subject.random_input(backbone, 33, batch=3, seed=2)
    expect.pure(lambda: backbone(x, mask=mask, state=state), (x, mask, *leaves(state)), lambda: backbone(other))


@check(FORWARD)
def state_dict_round_trip(subject: ArchitectureSubject) -> None:
    """Saved weights, loaded into a backbone of another seed, give the same outputs."""
    source, target = subject.build(perturb=True), subject.build(seed=7)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True), strict=True)
    x = subject.random_input(source, 33)
    assert torch.equal(source(x).hidden, target(x).hidden), "outputs differ: the state dict is incomplete"


@check(FORWARD)
def deepcopy_and_pickle(subject: ArchitectureSubject) -> None:
    """Copies give the same outputs and share no parameters."""
    backbone = subject.build()
    x = subject.random_input(backbone, 16)
    hidden = backbone(x).hidden.detach()
    copies = {"deepcopy": copy.deepcopy(backbone), "pickle": pickle.loads(pickle.dumps(backbone))}
    for how, twin in copies.items():
        assert torch.equal(twin(x).hidden, hidden), f"a copy by {how} gives other outputs"
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter += noise_like(parameter)
        assert torch.equal(backbone(x).hidden, hidden), f"a copy by {how} shares parameters with the original"


@check(FORWARD)
def aux_losses_are_declared(subject: ArchitectureSubject) -> None:
    """Auxiliary losses are finite scalars with declared names."""
    backbone = subject.build().train()
    for out in subject.forward_in_chunks(backbone, subject.random_input(backbone, 60)):
        for name, loss in out.aux.items():
            assert name in subject.capabilities.aux, f"auxiliary loss {name!r} is not in capabilities.aux"
            assert loss.ndim == 0, f"auxiliary loss {name!r} has shape {tuple(loss.shape)}, expected a scalar"
            expect.finite(loss, f"auxiliary loss {name!r}")


@check(FORWARD)
def on_step_depends_on_the_step_only(subject: ArchitectureSubject) -> None:
    """`on_step(7)` has the same effect whatever was called before, so that a resumed run equals an unbroken one."""
    unbroken = subject.build()
    resumed = subject.rebuild(unbroken)
    for step in range(8):
        unbroken.on_step(step)
    resumed.on_step(7)
    x = subject.random_input(unbroken, 16)
    same = torch.equal(unbroken(x).hidden, resumed(x).hidden)
    assert same, "after on_step(7) the outputs depend on the earlier calls of on_step"


@check(FORWARD)
def follows_the_device_of_its_input(subject: ArchitectureSubject) -> None:
    """Every tensor that a call creates is on the input's device.

    Detected without an accelerator by another default device. With a GPU, the backbone is tried there too.
    """
    backbone = subject.build()
    x, mask = subject.random_input(backbone, 33), right_padded(33, (33, 20))
    uncalled = subject.rebuild(backbone)
    expected = outputs_of_all_forms(subject, backbone, x, mask)
    expect.same_without_default_device(lambda: outputs_of_all_forms(subject, uncalled, x, mask), expected)
    if torch.cuda.is_available():
        on_gpu = outputs_of_all_forms(subject, subject.rebuild(backbone).cuda(), x.cuda(), mask.cuda())
        assert on_gpu.is_cuda, f"x is on cuda, outputs are on {on_gpu.device}"
        expect.close(on_gpu.cpu(), expected, 1e-3, "outputs on GPU and CPU")


def outputs_of_all_forms(subject: ArchitectureSubject, backbone: Backbone, x: Tensor, mask: Tensor) -> Tensor:
    """Outputs of every form that the backbone has (masked, unmasked, with a state, `step`), concatenated."""
    first = backbone(x, mask=mask)
    hidden = [first.hidden[0], backbone(x).hidden[0]]
    if subject.stateful:
        hidden.append(backbone(x, mask=mask, state=first.state).hidden[0])
        fresh = backbone.init_state(2, device=x.device, dtype=x.dtype)
        hidden.append(backbone(x, state=fresh).hidden[0])
        if subject.capabilities.step:
            hidden.append(backbone.step(x[:, 0], fresh)[0])
    return torch.cat(hidden).detach()
