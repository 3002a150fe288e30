"""Where information must not go: from row to row of a batch, and from the future into the past."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, State
from zoo.nn.state import leaves, map_state, select_rows
from zoo.testing.check import LEAK, SAME, Check, check, has_state, require_same, require_same_state
from zoo.testing.subject import Subject, noise_like, positions

LENGTHS = (2, 16, 33, 130)
"""130: beyond the usual block and chunk of 64 or 128."""


def with_gradient(state: State) -> State:
    """The same state as leaves that a gradient can be asked for."""
    return map_state(lambda t: t.detach().requires_grad_(t.is_floating_point() or t.is_complex()), state)


def probed(state: State) -> list[Tensor]:
    return [leaf for leaf in leaves(state) if leaf.requires_grad]


@check()
def rows_do_not_mix(subject: Subject) -> None:
    """No row's output has a gradient from another row's input, and each row alone gives what it gives in company."""
    for mode in subject.modes:
        backbone = subject.probe(mode)
        for length in (7, 33):
            x = subject.input(backbone, length, batch=3).requires_grad_()
            hidden = backbone(x).hidden
            for row in range(3):
                (gradient,) = torch.autograd.grad((hidden[row] * noise_like(hidden[row])).sum(), x, retain_graph=True)
                others = [r for r in range(3) if r != row]
                leak = (gradient[others].abs().max() / gradient[row].abs().max().clamp_min(1e-30)).item()
                assert leak == 0, f"{mode}, length {length}: row {row} has a gradient from other rows ({leak:.3g})"
                alone = backbone(x[row : row + 1]).hidden[0]
                require_same(alone, hidden[row], SAME, f"{mode}, length {length}: row {row} alone and in the batch")


@check(has_state, "no state")
def rows_of_the_state_do_not_mix(subject: Subject) -> None:
    """Rows may be reordered and selected, state included: outputs and new state follow."""
    order = torch.tensor([2, 0, 1])
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        state = backbone(subject.input(backbone, 33, batch=3)).state
        x = subject.input(backbone, 16, batch=3, seed=1)
        out = backbone(x, state=state)
        for what, index in (("reordered", order), ("selected", order[:1])):
            moved = backbone(x[index], state=select_rows(state, index))
            require_same(moved.hidden, out.hidden[index], SAME, f"{mode}: outputs of {what} rows")
            message = f"{mode}: state of {what} rows"
            require_same_state(moved.state, select_rows(out.state, index), SAME, message)
        leafed = with_gradient(state)
        hidden = backbone(x, state=leafed).hidden
        gradients = torch.autograd.grad(hidden[0].sum(), probed(leafed), allow_unused=True)
        for gradient in gradients:
            mixed = gradient is not None and bool(gradient[1:].any())
            assert not mixed, f"{mode}: row 0 has a gradient from another row's state"


def require_causal(subject: Subject, backbone: Backbone, length: int, state: State, where: str) -> None:
    """No output has a gradient from a later input, nor changes with one."""
    x = subject.input(backbone, length, seed=3).requires_grad_()
    hidden = backbone(x, state=state).hidden
    stands_for = positions(backbone, hidden.shape[1], length)
    assert stands_for is not None, f"{where}: {hidden.shape[1]} hidden vectors for {length} tokens"
    weighted = hidden * noise_like(hidden)
    for now in sorted({0, 1, length // 3, length // 2, 63, 64, length - 2}):
        past = [i for i, position in enumerate(stands_for) if position <= now]
        if not past or now >= length - 1:
            continue
        (gradient,) = torch.autograd.grad(weighted[:, past].sum(), x, retain_graph=True)
        leak = (gradient[:, now + 1 :].abs().max() / gradient.abs().max().clamp_min(1e-30)).item()
        assert leak < LEAK, f"{where}: outputs up to {now} have a gradient from the future ({leak:.3g}, relative)"
        other = torch.cat([x[:, : now + 1], subject.input(backbone, length - now - 1, seed=4)], dim=1)
        message = f"{where}: outputs up to {now} change with the future"
        require_same(backbone(other, state=state).hidden[:, past], hidden[:, past], LEAK, message)


@check(lambda c: "causal" in c.modes, "no causal mode")
def causal(subject: Subject) -> None:
    """In causal mode nothing reaches an output from later inputs."""
    backbone = subject.probe("causal", max_len=max(LENGTHS))
    for length in LENGTHS:
        require_causal(subject, backbone, length, None, f"length {length}")


@check(lambda c: "causal" in c.modes and has_state(c), "no causal mode with a state")
def causal_with_state(subject: Subject) -> None:
    """The same when a state is carried in."""
    backbone = subject.probe("causal", max_len=max(LENGTHS))
    for before, length in ((1, 2), (7, 16), (33, 33), (20, 130)):
        state = backbone(subject.input(backbone, before, seed=5)).state
        require_causal(subject, backbone, length, state, f"length {length} after {before}")


@check(lambda c: "bidirectional" in c.modes, "no bidirectional mode")
def bidirectional_sees_both_ways(subject: Subject) -> None:
    """In bidirectional mode outputs depend on earlier and on later inputs."""
    backbone = subject.probe("bidirectional")
    x = subject.input(backbone, 33).requires_grad_()
    hidden = backbone(x).hidden
    middle = hidden.shape[1] // 2
    (gradient,) = torch.autograd.grad((hidden[:, middle] * noise_like(hidden[:, middle])).sum(), x)
    assert gradient[:, :16].any(), "the middle output does not depend on earlier inputs"
    assert gradient[:, 17:].any(), "the middle output does not depend on later inputs"


CHECKS: tuple[Check, ...] = (
    rows_do_not_mix,
    rows_of_the_state_do_not_mix,
    causal,
    causal_with_state,
    bidirectional_sees_both_ways,
)
