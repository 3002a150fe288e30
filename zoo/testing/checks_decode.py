"""Encoder-decoders: what "seq2seq" promises of `decode`, alone and together with `forward`.

B batch, L tokens of the source, T tokens of the target, D d_model. The memory is what `forward` makes of the source;
its mask is the source's where there is a vector for each token, and none where there are latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.nn.backbone import Backbone
from zoo.nn.state import leaves
from zoo.testing.check import LEAK, SAME, Check, check, require_finite, require_same, require_same_state
from zoo.testing.subject import Subject, noise_like, positions, ragged

WIDTHS = (8, 32)
SIZES = ((1, 1), (7, 3), (33, 16), (16, 33))
"""Source and target lengths."""


seq2seq = check(lambda c: "seq2seq" in c.modes, "no seq2seq mode")
"""Turns a check on for architectures that have the mode."""


def memory_of(backbone: Backbone, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The encoded source, and the mask that goes with it."""
    memory = backbone(x, mask=mask).hidden
    return memory, None if positions(backbone, memory.shape[1], x.shape[1]) is None else mask


def answer(backbone: Backbone, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Encode x (B, L, D), decode y (B, T, D) over it: (B, T, D)."""
    memory, memory_mask = memory_of(backbone, x, mask)
    return backbone.decode(y, memory=memory, memory_mask=memory_mask).hidden


def examples(subject: Subject, backbone: Backbone, source: int, target: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    return subject.input(backbone, source, batch=batch), subject.input(backbone, target, batch=batch, seed=20)


def relative(leak: Tensor, whole: Tensor) -> float:
    return (leak.abs().max() / whole.abs().max().clamp_min(1e-30)).item() if leak.numel() else 0.0


@seq2seq
def decode_shapes(subject: Subject) -> None:
    """One hidden vector per target token, of the input's width, dtype and device; only seq2seq has a decoder."""
    for width in WIDTHS:
        backbone = subject.build("seq2seq", d_model=width)
        for source, target in SIZES:
            for batch in (1, 3):
                x, y = examples(subject, backbone, source, target, batch)
                hidden = answer(backbone, x, y)
                where = f"source {tuple(x.shape)}, target {tuple(y.shape)}"
                assert hidden.shape == y.shape, f"{where}: decoded {tuple(hidden.shape)}"
                assert hidden.dtype == y.dtype, f"{where}: {y.dtype} in, {hidden.dtype} out"
                assert hidden.device == y.device, f"{where}: {y.device} in, {hidden.device} out"
                require_finite(hidden, where)
    for mode in sorted(subject.capabilities.modes - {"seq2seq"}):
        backbone = subject.build(mode)  # type: ignore[arg-type]
        x, y = examples(subject, backbone, 7, 3)
        try:
            backbone.decode(y, memory=x)
        except TypeError:
            continue
        raise AssertionError(f"{mode}: decode is there, though only seq2seq has a decoder; expected a TypeError")


@seq2seq
def decode_is_causal(subject: Subject) -> None:
    """No decoded vector has a gradient from a later target token, nor changes with one."""
    backbone = subject.probe("seq2seq")
    for source, target in ((7, 2), (16, 16), (5, 40)):
        x, y = examples(subject, backbone, source, target)
        y.requires_grad_()
        hidden = answer(backbone, x, y)
        weighted = hidden * noise_like(hidden)
        for now in sorted({0, target // 3, target - 2}):
            (gradient,) = torch.autograd.grad(weighted[:, : now + 1].sum(), y, retain_graph=True)
            leak = relative(gradient[:, now + 1 :], gradient)
            assert leak < LEAK, f"{target} tokens: outputs up to {now} have a gradient from the future ({leak:.3g})"
            later = subject.input(backbone, target - now - 1, seed=21)
            changed = answer(backbone, x, torch.cat([y[:, : now + 1], later], dim=1))
            message = f"{target} tokens: outputs up to {now} change with the future"
            require_same(changed[:, : now + 1], hidden[:, : now + 1], LEAK, message)


@seq2seq
def decode_sees_source_and_past(subject: Subject) -> None:
    """Every decoded vector depends on the whole source; the last one also on the first target token."""
    backbone = subject.probe("seq2seq")
    x, y = examples(subject, backbone, 33, 9)
    x, y = x.requires_grad_(), y.requires_grad_()
    hidden = answer(backbone, x, y)
    for token in (0, 8):
        weighted = (hidden[:, token] * noise_like(hidden[:, token])).sum()
        from_x, from_y = torch.autograd.grad(weighted, [x, y], retain_graph=True)
        blind = (from_x.abs().amax((0, 2)) == 0).nonzero().flatten().tolist()
        assert not blind, f"target token {token} does not depend on source tokens {blind}"
        assert from_y[:, : token + 1].abs().amax((0, 2)).all(), f"target token {token} does not depend on all before it"


@seq2seq
def decode_rows_do_not_mix(subject: Subject) -> None:
    """No row's output has a gradient from another row's source or target; alone it gives what it gives in company."""
    backbone = subject.probe("seq2seq")
    x, y = examples(subject, backbone, 16, 7, batch=3)
    x, y = x.requires_grad_(), y.requires_grad_()
    hidden = answer(backbone, x, y)
    for row in range(3):
        loss = (hidden[row] * noise_like(hidden[row])).sum()
        for what, gradient in zip(
            ("source", "target"), torch.autograd.grad(loss, [x, y], retain_graph=True), strict=True
        ):
            leak = relative(gradient[[r for r in range(3) if r != row]], gradient)
            assert leak == 0, f"row {row} has a gradient from the {what} of other rows ({leak:.3g})"
        alone = answer(backbone, x[row : row + 1], y[row : row + 1])[0]
        require_same(alone, hidden[row], SAME, f"row {row} alone and in the batch")


@seq2seq
def source_padding_changes_nothing(subject: Subject) -> None:
    """Right padding of the source, and what it holds, leave the decoded vectors as they are without it."""
    backbone = subject.probe("seq2seq")
    for source, lengths in ((16, (16, 15, 9, 1)), (33, (33, 7, 16, 32))):
        x, y = examples(subject, backbone, source, 6, batch=4)
        mask = ragged(source, lengths)
        padded = answer(backbone, x, y, mask)
        for row, length in enumerate(lengths):
            alone = answer(backbone, x[row : row + 1, :length], y[row : row + 1])[0]
            require_same(padded[row], alone, SAME, f"a source of {length} tokens padded to {source}")
        loud = torch.where(mask.unsqueeze(-1), x, 50 * subject.input(backbone, source, batch=4, seed=8))
        require_same(answer(backbone, loud, y, mask), padded, SAME, f"source {source}: what the pads hold")
        full = torch.ones_like(mask)
        require_same(answer(backbone, x, y, full), answer(backbone, x, y), SAME, f"source {source}: a mask of all True")


@seq2seq
def masked_memory_is_not_read(subject: Subject) -> None:
    """Memory rows behind the mask have no gradient, and may hold anything."""
    backbone = subject.probe("seq2seq")
    y = subject.input(backbone, 6, batch=3, seed=20)
    memory = subject.input(backbone, 16, batch=3).requires_grad_()
    mask = ragged(16, (16, 9, 1))
    hidden = backbone.decode(y, memory=memory, memory_mask=mask).hidden
    (gradient,) = torch.autograd.grad((hidden * noise_like(hidden)).sum(), memory)
    leak = relative(gradient[~mask], gradient)
    assert leak < SAME, f"decoded vectors have a gradient from masked memory ({leak:.3g})"
    loud = torch.where(mask.unsqueeze(-1), memory, 1e3 * noise_like(memory))
    require_same(backbone.decode(y, memory=loud, memory_mask=mask).hidden, hidden, SAME, "what masked memory holds")


@seq2seq
def fully_masked_source_is_finite(subject: Subject) -> None:
    """A row without any real source token gives finite outputs and gradients, and does not disturb its neighbours."""
    backbone = subject.probe("seq2seq")
    x, y = examples(subject, backbone, 16, 5, batch=3)
    x.requires_grad_()
    mask = ragged(16, (16, 0, 16))
    hidden = answer(backbone, x, y, mask)
    require_finite(hidden, "outputs")
    require_same(hidden[::2], answer(backbone, x[::2], y[::2]), SAME, "a source of pads changes its neighbour")
    (hidden * noise_like(hidden)).sum().backward()
    for name, leaf in [("x", x), *backbone.named_parameters()]:
        if leaf.grad is not None:
            require_finite(leaf.grad, f"gradient of {name}")


@seq2seq
def every_parameter_learns_from_answers(subject: Subject) -> None:
    """Every parameter of encoder and decoder gets a finite gradient through `decode`, and none is always zero."""
    backbone = subject.probe("seq2seq").train()
    hidden = answer(backbone, *examples(subject, backbone, 60, 33, batch=3))
    (hidden * noise_like(hidden)).sum().backward()
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            require_finite(parameter.grad, f"gradient of {name}")
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere"


@seq2seq
def answers_gradients_match_differences(subject: Subject) -> None:
    """Gradients for source, target and every parameter equal finite differences."""
    backbone = subject.probe("seq2seq")
    x, y = examples(subject, backbone, 17, 9)
    named = {"x": x.requires_grad_(), "y": y.requires_grad_(), **dict(backbone.named_parameters())}

    def loss() -> Tensor:
        hidden = answer(backbone, x, y)
        return (hidden * noise_like(hidden)).sum()

    gradients = torch.autograd.grad(loss(), list(named.values()))
    for i, ((name, leaf), gradient) in enumerate(zip(named.items(), gradients, strict=True)):
        direction = noise_like(leaf, seed=i)
        told, values = (gradient * direction).sum().item(), []
        with torch.no_grad():
            for sign in (1, -2, 1):
                leaf += sign * 1e-6 * direction
                values.append(loss().item())
        found = (values[0] - values[1]) / 2e-6
        assert abs(told - found) < 1e-4 * max(abs(told), abs(found), 1e-3), (
            f"slope along {name} is {found:.8g}, gradient says {told:.8g}"
        )


@seq2seq
def decode_precision(subject: Subject) -> None:
    """float64 stays float64 with its precision; under bfloat16 autocast outputs are finite and near float32's."""
    wide = subject.build("seq2seq", dtype=torch.float64)
    x, y = examples(subject, wide, 33, 16)
    memory, _ = memory_of(wide, x)
    hidden = wide.decode(y, memory=memory).hidden
    assert hidden.dtype == torch.float64, f"float64 in, {hidden.dtype} out"
    change = 1e-7 * noise_like(y)
    second = wide.decode(y + change, memory=memory).hidden + wide.decode(y - change, memory=memory).hidden - 2 * hidden
    rounding = relative(second, hidden)
    assert rounding < 1e-10, f"a relative {rounding:.2g} is lost on the way, so a stage runs in float32"
    narrow = subject.build("seq2seq", d_model=32)
    x, y = examples(subject, narrow, 33, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = answer(narrow, x, y)
        loss = (rough * noise_like(rough)).sum()
    require_finite(rough, "bfloat16 autocast")
    loss.backward()
    for name, parameter in narrow.named_parameters():
        if parameter.grad is not None:
            require_finite(parameter.grad, f"bfloat16 autocast: gradient of {name}")
    exact = answer(narrow, x, y)
    gap = ((rough.float() - exact).norm() / exact.norm()).item()
    assert gap < 0.2, f"bfloat16 autocast is {gap:.2g} (relative norm) away from float32"


@seq2seq
def decode_is_a_pure_function(subject: Subject) -> None:
    """A call changes none of its arguments, other calls do not change its result, and it makes no foreign tensors."""
    backbone = subject.build("seq2seq")
    x, y = examples(subject, backbone, 16, 7)
    mask = ragged(16, (16, 9))
    memory, memory_mask = memory_of(backbone, x, mask)
    memory = memory.detach()
    earlier = backbone.decode(subject.input(backbone, 5, seed=22), memory=memory, memory_mask=memory_mask).state
    given = [t for t in (y, memory, memory_mask, *leaves(earlier)) if t is not None]
    before = [t.clone() for t in given]
    first = backbone.decode(y, memory=memory, memory_mask=memory_mask, state=earlier)
    for a, b in zip(before, given, strict=True):
        assert torch.equal(a, b), f"decode changes an argument of shape {tuple(b.shape)} in place"
    answer(backbone, *examples(subject, backbone, 33, 20, batch=3))
    second = backbone.decode(y, memory=memory, memory_mask=memory_mask, state=earlier)
    assert torch.equal(first.hidden, second.hidden), "a call in between changes the result"
    require_same_state(second.state, first.state, 0.0, "a call in between changes the state")
    fresh = subject.copy(backbone)
    with torch.device("meta"):
        found = fresh.decode(y, memory=memory, memory_mask=memory_mask, state=earlier).hidden
    assert found.device == y.device, f"{y.device} in, {found.device} out"
    require_same(found, first.hidden, 0.0, "results with another default device")


class Answering(nn.Module):
    """Embeddings of source and target, backbone, linear head."""

    def __init__(self, backbone: Backbone, symbols: int) -> None:
        super().__init__()
        d_model = backbone.dims.d_model
        self.source, self.target = nn.Embedding(symbols, d_model), nn.Embedding(symbols + 1, d_model)
        self.backbone, self.head = backbone, nn.Linear(d_model, symbols)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source (B, L), target (B, T) -> logits (B, T, symbols), each from the symbols before it."""
        start = torch.full_like(target[:, :1], self.head.out_features)
        y = self.target(torch.cat([start, target[:, :-1]], dim=1))
        return self.head(answer(self.backbone, self.source(source), y))


@seq2seq
def learns_to_answer(subject: Subject) -> None:
    """Overfits eight pairs whose targets only the source can tell."""
    generator = torch.Generator().manual_seed(12)
    source = torch.randint(16, (8, 12), generator=generator)
    target = torch.randint(16, (8, 4), generator=generator)
    model = Answering(subject.build("seq2seq", d_model=32), 16).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = functional.cross_entropy(model(source, target).flatten(0, 1), target.flatten())
        if loss.item() < 0.05:
            break
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    correct = (model.eval()(source, target).argmax(-1) == target).sum().item()
    assert correct == target.numel(), f"{correct} of {target.numel()} symbols right, loss {loss.item():.3f}"


CHECKS: tuple[Check, ...] = (
    decode_shapes,
    decode_is_causal,
    decode_sees_source_and_past,
    decode_rows_do_not_mix,
    source_padding_changes_nothing,
    masked_memory_is_not_read,
    fully_masked_source_is_finite,
    every_parameter_learns_from_answers,
    answers_gradients_match_differences,
    decode_precision,
    decode_is_a_pure_function,
    learns_to_answer,
)
