"""Checks that no information passes between batch rows, nor from later inputs to earlier outputs in causal mode."""

from __future__ import annotations

import torch

from zoo.nn.backbone import Backbone, State
from zoo.nn.state import leaves, map_state, select_rows
from zoo.testing import expect
from zoo.testing.architectures import subject as scopes
from zoo.testing.architectures.subject import ArchitectureSubject, positions
from zoo.testing.check import check
from zoo.testing.tensors import weighted_sum

LENGTHS = (2, 16, 33, 130)
"""130: longer than the usual block or chunk of 64 or 128."""


@check(scopes.FORWARD)
def rows_do_not_mix(subject: ArchitectureSubject) -> None:
    """No row's output has a gradient from another row's input, and a row alone gives what it gives in a batch."""
    backbone = subject.build_float64()
    for length in (7, 33):
        x = subject.random_input(backbone, length, batch=3)
        expect.rows_independent(lambda x: backbone(x).hidden, {"x": x})


@check(scopes.STATEFUL)
def rows_of_the_state_do_not_mix(subject: ArchitectureSubject) -> None:
    """Rows can be reordered and selected together with their state: outputs and new state follow."""
    backbone = subject.build_float64()
    state = backbone(subject.random_input(backbone, 33, batch=3)).state
    x = subject.random_input(backbone, 16, batch=3, seed=1)
    out = backbone(x, state=state)
    for what, index in (("reordered", torch.tensor([2, 0, 1])), ("selected", torch.tensor([2]))):
        moved = backbone(x[index], state=select_rows(state, index))
        expect.close(moved.hidden, out.hidden[index], expect.SAME, f"outputs of {what} rows")
        expect.states_close(moved.state, select_rows(out.state, index), expect.SAME, f"states of {what} rows")
    trainable = map_state(lambda t: t.detach().requires_grad_(t.is_floating_point() or t.is_complex()), state)
    hidden = backbone(x, state=trainable).hidden
    inputs = [leaf for leaf in leaves(trainable) if leaf.requires_grad]
    for gradient in torch.autograd.grad(hidden[0].sum(), inputs, allow_unused=True):
        mixed = gradient is not None and bool(gradient[1:].any())
        assert not mixed, "row 0 has a gradient from the state of another row"


@check(scopes.CAUSAL)
def causal(subject: ArchitectureSubject) -> None:
    """In causal mode no output depends on later inputs."""
    backbone = subject.build_float64(max_len=max(LENGTHS))
    for length in LENGTHS:
        assert_causal(subject, backbone, length, None, f"length {length}")


@check(scopes.CAUSAL_STATEFUL)
def causal_with_state(subject: ArchitectureSubject) -> None:
    """In causal mode no output depends on later inputs when a state is carried in."""
    backbone = subject.build_float64(max_len=max(LENGTHS))
    for before, length in ((1, 2), (7, 16), (33, 33), (20, 130)):
        state = backbone(subject.random_input(backbone, before, seed=5)).state
        assert_causal(subject, backbone, length, state, f"length {length} after {before}")


@check(scopes.BIDIRECTIONAL)
def bidirectional_sees_both_ways(subject: ArchitectureSubject) -> None:
    """In bidirectional mode outputs depend on earlier and on later inputs."""
    backbone = subject.build_float64()
    x = subject.random_input(backbone, 33).requires_grad_()
    hidden = backbone(x).hidden
    (gradient,) = torch.autograd.grad(weighted_sum(hidden[:, hidden.shape[1] // 2]), x)
    assert gradient[:, :16].any(), "the middle output does not depend on earlier inputs"
    assert gradient[:, 17:].any(), "the middle output does not depend on later inputs"


def assert_causal(subject: ArchitectureSubject, backbone: Backbone, length: int, state: State, where: str) -> None:
    """Assert that no hidden vector of `forward` depends on inputs after its position."""
    x = subject.random_input(backbone, length, seed=3)
    out_len = backbone(x, state=state).hidden.shape[1]
    its_positions = positions(backbone, out_len, length)
    assert its_positions is not None, f"{where}: {out_len} hidden vectors for {length} tokens"
    cuts = {0, 1, length // 3, length // 2, 63, 64, length - 2}
    other = subject.random_input(backbone, length, seed=4)
    expect.no_future(lambda x: backbone(x, state=state).hidden, x, other, its_positions, cuts, where)
