"""Checks of an architecture's declaration, and of one call of `forward`: shapes, arguments, precision, gradients.

Those that are the same for an encoder-decoder are run there too, on `decode` over the encoded source.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.nn.backbone import Backbone, Output
from zoo.nn.state import leaves
from zoo.spec.constraints import field_types
from zoo.testing import expect
from zoo.testing.architectures import scopes
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject, cast, has_positions, random_input, random_inputs, run
from zoo.testing.expect import noise_like, relative_size, right_padded

TO_WRITE = "TO WRITE:"
"""What begins a sentence of a new plugin's card that its author is to write."""
ADVICE = "put `with without_autocast(x):` and `at_least_float32(...)` of zoo.nn around it"


@check(scopes.declaration)
def spec_without_torch(subject: ArchitectureSubject) -> None:
    """The plugin, its configuration, presets and reported scores are importable without torch."""
    spec = subject.architecture
    expect.importable_without_torch([subject.entry_point, spec.config, "zoo.spec.presets:load_presets"])


@check(scopes.declaration)
def preset_keys_exist(subject: ArchitectureSubject) -> None:
    """Presets and reported scores can be read, the presets' configuration keys exist, and accuracies are fractions."""
    config: Any = subject.architecture.load_config()
    own = [f"arch.{name}" for name in field_types(config)]
    for where, preset in subject.architecture.load_presets().items():
        keys = (key for key in preset.values if not key.startswith("task."))
        expect.known_settings(keys, f"preset {'.'.join(where)}", own)
    for score in subject.architecture.load_reported():
        fraction = score.metric != "accuracy" or 0 <= score.value <= 1
        assert fraction, f"reported {score.task}: accuracy {score.value} is not a fraction"


@check(scopes.declaration)
def card_is_written(subject: ArchitectureSubject) -> None:
    """The card has no sentence of `zoo new` left that its author is to write."""
    left = re.findall(rf"{re.escape(TO_WRITE)}\s*(.+)", subject.architecture.load_card())
    assert not left, f"README.md of {subject.architecture.package} is still to be written: {' | '.join(left)}"


@check(scopes.FORWARD)
def builds_from_defaults(subject: ArchitectureSubject) -> None:
    """The default configuration builds in every mode, and the backbone keeps its dimensions."""
    backbone = subject.build()
    assert backbone.dims.mode == subject.mode, f"dims.mode is {backbone.dims.mode!r}"
    assert any(True for _ in backbone.parameters()), "no parameters"


@check(scopes.FORWARD)
def parameter_shapes_do_not_depend_on_the_seed(subject: ArchitectureSubject) -> None:
    """Names and shapes of the parameters follow from configuration and dimensions alone."""
    first, second = ({n: p.shape for n, p in subject.build(seed=seed).named_parameters()} for seed in (0, 1))
    changed = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    assert not changed, f"with another seed these parameters differ in shape or are missing: {', '.join(changed)}"


@check(scopes.FORWARD)
def shapes(subject: ArchitectureSubject) -> None:
    """Hidden vectors have the documented shape, dtype and device for several widths, lengths and batch sizes."""
    for width in (8, 32):
        backbone, latents = subject.build(d_model=width), set()
        for length, batch in product((1, 7, 16, 33, 64), (1, 3)):
            x = random_input(backbone, length, batch=batch)
            out = backbone(x)
            assert isinstance(out, Output), (
                f"forward returned {type(out).__name__}, expected zoo.Output(hidden, state, aux): return Output(hidden)"
            )
            hidden = out.hidden
            where, out_len = f"x {tuple(x.shape)}", hidden.shape[1]
            expect.same_form(hidden, x.new_empty(batch, out_len, x.shape[2]), where)
            assert out_len > 0, f"{where}: no hidden vector"
            if subject.mode == "causal":
                assert out_len <= length, f"{where}: {out_len} hidden vectors for {length} tokens"
            elif not has_positions(backbone, out_len, length):
                latents.add(out_len)
        assert len(latents) < 2, (
            f"d_model {width}: {sorted(latents)} hidden vectors for inputs of different lengths; expected one per "
            "token, or a fixed number of latents"
        )


@check(scopes.FORWARD)
def length_contract(subject: ArchitectureSubject) -> None:
    """Any length works, or one greater than max_len raises a ValueError that names both numbers."""
    kind = subject.capabilities.length
    backbone = subject.build(max_len=48)
    limit = backbone.dims.max_len
    longer = limit + 5
    for length in (1, 2, 3, 5, 13, 31, limit - 1, limit, *([longer] if kind == "any" else [])):
        expect.finite(backbone(random_input(backbone, length)).hidden, f"length {length} with max_len {limit}")
    if kind != "any":
        where = f"length {longer} with max_len {limit}, length={kind!r}"
        message = expect.refused(lambda: backbone(random_input(backbone, longer)), where)
        named = str(longer) in message and str(limit) in message
        assert named, f"{where}: the error must name both numbers: {message!r}"


@check(scopes.FORWARD)
def invalid_inputs_are_refused(subject: ArchitectureSubject) -> None:
    """An input of another width or without tokens, and a mask of another shape or dtype, raise ValueError."""
    backbone = subject.build()
    x, mask = random_input(backbone, 8), torch.ones(2, 8, dtype=torch.bool)
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
        expect.refused(partial(backbone, inputs, mask=its_mask), what)


@check(scopes.FORWARD)
def float64_stays_float64(subject: ArchitectureSubject) -> None:
    """float64 inputs give float64 outputs and states, with the precision of float64 at every stage."""
    single = subject.build()
    double = cast(copy.deepcopy(single), torch.float64)
    x = random_input(double, 33)
    hidden, state, _ = double(x)
    for tensor in (hidden, *leaves(state)):
        if tensor.is_floating_point() or tensor.is_complex():
            assert tensor.dtype.to_real() == torch.float64, f"an output or a state leaf is {tensor.dtype}"
    expect.close(single(x.float()).hidden.double(), hidden, 1e-3, "outputs in float32 and float64")
    # the second difference of a smooth function vanishes; a stage in float32 leaves its rounding of 1e-7
    change = 1e-7 * noise_like(x)
    rounding = relative_size(double(x + change).hidden + double(x - change).hidden - 2 * hidden, hidden)
    assert rounding < 1e-10, f"relative rounding of {rounding:.2g}: a stage is computed in less than float64"


@check(scopes.FORWARD)
def finite_in_bf16(subject: ArchitectureSubject) -> None:
    """Under bfloat16 autocast outputs and gradients are finite and close to those of float32."""
    backbone = subject.build(d_model=32)
    inputs = random_inputs(backbone, 33)
    inputs[0].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = run(backbone, *inputs).hidden
        loss = subject.loss(backbone, *inputs)
    expect.finite(rough, "bfloat16 autocast: outputs")
    loss.backward()
    expect.finite_gradients(backbone, inputs[0], "bfloat16 autocast")
    exact = run(backbone, *inputs).hidden
    difference = ((rough.float() - exact).norm() / exact.norm()).item()
    assert difference < 0.2, f"outputs under bfloat16 autocast differ from float32 by {difference:.2g} (relative norm)"


class _HalfSteps(TorchDispatchMode):
    """Counts elementwise products and sums in bfloat16, the steps of a recurrence, and names cumulative ops in it."""

    STEPS = ("add", "add_", "sub", "mul", "mul_", "addcmul", "addcmul_", "lerp")
    CUMULATIVE = ("cumsum", "cumprod", "logcumsumexp")

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.cumulative = 0, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.dtype == torch.bfloat16:
            name = func.overloadpacket.__name__
            self.steps += name in self.STEPS
            self.cumulative |= {name} & set(self.CUMULATIVE)
        return out


@check(scopes.FORWARD)
def no_recurrence_in_bf16(subject: ArchitectureSubject) -> None:
    """Under bfloat16 autocast what runs along the sequence is computed in at least float32: there is no step in
    bfloat16 for each token, and no cumulative sum."""
    backbone, counts = subject.build(d_model=32), []
    for length in (9, 33):
        inputs = random_inputs(backbone, length)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), _HalfSteps() as half:
            run(backbone, *inputs)
        assert not half.cumulative, f"{', '.join(sorted(half.cumulative))} in bfloat16; {ADVICE}"
        counts.append(half.steps)
    assert counts[1] - counts[0] < 24, (
        f"{counts[0]} products and sums in bfloat16 for 9 tokens and {counts[1]} for 33: a recurrence is computed in it"
        f" and loses what is small against its state; {ADVICE}"
    )


@check(scopes.FORWARD)
@check(scopes.SEQ2SEQ, "half_precision_encoder_decoder")
def half_precision_modules(subject: ArchitectureSubject) -> None:
    """Cast to bfloat16 or float16, a backbone maps inputs of that type to outputs and gradients near float32's."""
    exact = subject.build(d_model=32)
    mask = right_padded(33, (33, 20))
    for dtype in (torch.bfloat16, torch.float16):
        backbone = copy.deepcopy(exact).to(dtype)
        for train in (False, True):
            inputs = [tensor.requires_grad_() for tensor in random_inputs(backbone, 33)]
            where = f"{dtype}, {'training' if train else 'evaluation'}"
            hidden = run(backbone.train(train), *inputs, mask=mask).hidden
            assert hidden.dtype == dtype, f"{where}: outputs are {hidden.dtype}"
            expect.finite(hidden, f"{where}: outputs")
            backbone.zero_grad()
            hidden.float().square().mean().backward()
            expect.finite_gradients(backbone, inputs[0], where)
            if train:
                continue
            theirs = run(exact, *(tensor.float() for tensor in inputs), mask=mask).hidden
            difference = ((hidden.float() - theirs).norm() / theirs.norm()).item()
            assert difference < 0.2, f"{where}: outputs differ from float32 by {difference:.2g} (relative norm)"


@check(scopes.FORWARD)
@check(scopes.SEQ2SEQ, "every_parameter_gets_a_gradient_from_decode")
def every_parameter_gets_a_gradient(subject: ArchitectureSubject) -> None:
    """Every parameter gets a finite gradient that is not zero everywhere."""
    backbone = subject.build_float64().train()
    # with segments: whole ones, because parameters that read rows leaving a full memory are reached only then
    length = 3 * (backbone.dims.max_len - 1) if subject.capabilities.segment else 60
    subject.loss(backbone, *random_inputs(backbone, length, 33, batch=3)).backward()
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            expect.finite(parameter.grad, f"gradient of {name}")
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere"


@check(scopes.FORWARD)
@check(scopes.SEQ2SEQ, "decode_gradients_match_finite_differences")
def gradients_match_finite_differences(subject: ArchitectureSubject) -> None:
    """The slope along a random direction of each input and of every parameter equals a finite difference.

    One layer: a deeper one is reached through the gradient of its input.
    """
    backbone = subject.build_float64(n_layers=1)
    inputs = random_inputs(backbone, 33)
    in_chunks = subject.capabilities.state_grad  # otherwise gradients are stopped between chunks
    loss = partial(subject.loss, backbone, *inputs, in_chunks=in_chunks)
    named = [*zip("xy", inputs, strict=False), *backbone.named_parameters()]
    tensors = {name: tensor.requires_grad_() for name, tensor in named if tensor.is_floating_point()}
    gradients = torch.autograd.grad(loss(), list(tensors.values()), materialize_grads=True)
    for i, ((name, tensor), gradient) in enumerate(zip(tensors.items(), gradients, strict=True)):
        direction = noise_like(tensor, seed=i)
        slope = (gradient * direction).sum().item()
        with torch.no_grad():
            tensor += 1e-6 * direction
            above = loss().item()
            tensor -= 2e-6 * direction
            difference = (above - loss().item()) / 2e-6
            tensor += 1e-6 * direction
        wrong = abs(slope - difference) >= 1e-4 * max(abs(slope), abs(difference), 1e-3)
        assert not wrong, f"slope along {name}: {slope:.8g} by autograd, {difference:.8g} by finite differences"


@check(scopes.FORWARD)
def deterministic(subject: ArchitectureSubject) -> None:
    """The seed determines the parameters; equal calls give equal results, in training with equal random state."""
    backbone, again = subject.build(seed=3), subject.build(seed=3)
    for (name, a), (_, b) in zip(backbone.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), f"{name} differs between two builds with the same seed"
    x = random_input(backbone, 33)
    for train in (False, True):
        results = []
        for net in (backbone.train(train), again.train(train)):
            if train:
                torch.manual_seed(5)
            results.append(net(x).hidden)
        assert torch.equal(*results), f"equal calls differ in {'training' if train else 'evaluation'} mode"


@check(scopes.FORWARD)
def pure_function(subject: ArchitectureSubject) -> None:
    """A call modifies none of its arguments, and calls in between do not change its result."""
    backbone = subject.build()
    x, mask = random_input(backbone, 16), right_padded(16, (16, 9))
    state = backbone(random_input(backbone, 7, seed=1)).state if subject.stateful else None
    arguments = (x, mask, *leaves(state))
    before = [tensor.clone() for tensor in arguments]
    first = backbone(x, mask=mask, state=state)
    backbone(x, state=state)
    for a, b in zip(before, arguments, strict=True):
        assert torch.equal(a, b), f"an argument of shape {tuple(b.shape)} is modified in place"
    backbone(random_input(backbone, 33, batch=3, seed=2))
    second = backbone(x, mask=mask, state=state)
    assert torch.equal(first.hidden, second.hidden), "a call in between changes the outputs"
    expect.states_close(second.state, first.state, 0.0, "states before and after a call in between")


@check(scopes.FORWARD)
def state_dict_round_trip(subject: ArchitectureSubject) -> None:
    """Saved weights, loaded into a backbone of another seed, give the same outputs."""
    source, target = subject.build(perturb=True), subject.build(seed=7)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True), strict=True)
    x = random_input(source, 33)
    assert torch.equal(source(x).hidden, target(x).hidden), "outputs differ: the state dict is incomplete"


@check(scopes.FORWARD)
def deepcopy_and_pickle(subject: ArchitectureSubject) -> None:
    """Copies give the same outputs and share no parameters."""
    backbone = subject.build()
    x = random_input(backbone, 16)
    hidden = backbone(x).hidden.detach()
    copies = {"deepcopy": copy.deepcopy(backbone), "pickle": pickle.loads(pickle.dumps(backbone))}
    for how, twin in copies.items():
        assert torch.equal(twin(x).hidden, hidden), f"a copy by {how} gives other outputs"
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter += noise_like(parameter)
        assert torch.equal(backbone(x).hidden, hidden), f"a copy by {how} shares parameters with the original"


@check(scopes.FORWARD)
def aux_losses_are_declared(subject: ArchitectureSubject) -> None:
    """Auxiliary losses are finite scalars with declared names."""
    backbone = subject.build().train()
    for out in subject.forward_in_chunks(backbone, random_input(backbone, 60)):
        for name, loss in out.aux.items():
            assert name in subject.capabilities.aux, f"auxiliary loss {name!r} is not in capabilities.aux"
            assert loss.ndim == 0, f"auxiliary loss {name!r} has shape {tuple(loss.shape)}, expected a scalar"
            expect.finite(loss, f"auxiliary loss {name!r}")


@check(scopes.FORWARD)
def on_step_depends_on_the_step_only(subject: ArchitectureSubject) -> None:
    """`on_step(7)` has the same effect whatever was called before, so that a resumed run equals an unbroken one."""
    unbroken, resumed = subject.build(), subject.build(seed=7)
    resumed.load_state_dict(unbroken.state_dict())
    for step in range(8):
        unbroken.on_step(step)
    resumed.on_step(7)
    x = random_input(unbroken, 16)
    same = torch.equal(unbroken(x).hidden, resumed(x).hidden)
    assert same, "after on_step(7) the outputs depend on the earlier calls of on_step"


@check(scopes.FORWARD)
def follows_the_device_of_its_input(subject: ArchitectureSubject) -> None:
    """Every tensor that a call creates is on the input's device.

    Detected without an accelerator by another default device. With a GPU, the backbone is tried there too.
    """
    backbone = subject.build()
    uncalled, on_gpu = copy.deepcopy(backbone), copy.deepcopy(backbone)  # nothing is cached in them
    x, mask = random_input(backbone, 33), right_padded(33, (33, 20))

    def outputs_of_all_forms(net: Backbone, x: Tensor, mask: Tensor) -> Tensor:
        """Masked, unmasked, with a state, and `step`, concatenated."""
        first = net(x, mask=mask)
        hidden = [first.hidden[0], net(x).hidden[0]]
        if subject.stateful:
            fresh = net.init_state(2, device=x.device, dtype=x.dtype)
            hidden += [net(x, mask=mask, state=first.state).hidden[0], net(x, state=fresh).hidden[0]]
            hidden += [net.step(x[:, 0], fresh)[0]] if subject.steps else []
        return torch.cat(hidden).detach()

    expected = outputs_of_all_forms(backbone, x, mask)
    try:
        with torch.device("meta"):  # a tensor created without `device=` cannot be combined with the inputs
            outputs = outputs_of_all_forms(uncalled, x, mask)
    except Exception as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        advice = "pass device=x.device, or device='cpu' for a table on the host"
        raise AssertionError(f"a tensor is created without device= ({advice}): {cause}") from error
    assert outputs.device == expected.device, f"inputs are on {expected.device}, outputs on {outputs.device}"
    expect.close(outputs, expected, 0.0, "outputs with default devices meta and cpu")
    if torch.cuda.is_available():
        outputs = outputs_of_all_forms(on_gpu.cuda(), x.cuda(), mask.cuda())
        assert outputs.is_cuda, f"x is on cuda, outputs are on {outputs.device}"
        expect.close(outputs.cpu(), expected, 1e-3, "outputs on GPU and CPU")
