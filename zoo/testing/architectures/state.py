"""Checks of the carried state: its form, its effect, and its gradients."""

from __future__ import annotations

import copy
from functools import partial
from itertools import permutations

import torch
from torch import Tensor

from zoo.model.segments import ActivationCheckpointing, SegmentPlan, drive
from zoo.nn.backbone import Output, State
from zoo.nn.state import batch_size, compatible, describe, elements, leaves, map_state, return_state, select_rows
from zoo.testing import expect
from zoo.testing.architectures import scopes
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject, cast, random_input, run_chunks
from zoo.testing.expect import relative_size, right_padded, weighted_sum

CHUNKS = ((1, 32), (16, 17), (7, 1, 25), (5, 5, 5, 5, 13), (33,), (*(1,) * 17, 16))
"""Divisions of 33 tokens."""


@check(scopes.STATELESS)
def stateless_modes_refuse_a_state(subject: ArchitectureSubject) -> None:
    """Where no state is declared none is returned, and one that is passed raises ValueError."""
    backbone = subject.build()
    x = random_input(backbone, 7)
    returned = backbone(x).state
    assert not leaves(returned), f"returns a state {describe(returned)}, but none is declared"
    assert not leaves(backbone.init_state(2, device="cpu", dtype=torch.float32)), "init_state returns a state"
    assert backbone.state_size(7) == 0, f"state_size(7) is {backbone.state_size(7)}, expected 0"
    expect.refused(lambda: backbone(x, state=[torch.zeros(2, 3)]), "a state passed to forward")


@check(scopes.STATEFUL)
def state_is_batch_first(subject: ArchitectureSubject) -> None:
    """Every leaf of the state has the batch as its first dimension and is finite."""
    backbone = subject.build()
    shapes = []
    for batch in (3, 5):
        state = backbone(random_input(backbone, 33, batch=batch)).state
        assert leaves(state), "a state is declared, but none is returned"
        assert batch_size(state) == batch, f"x has {batch} rows, the state has leaves {describe(state)}"
        shapes.append([tuple(leaf.shape[1:]) for leaf in leaves(state)])
        for leaf in leaves(state):
            expect.finite(leaf, f"a leaf of shape {tuple(leaf.shape)}")
    assert shapes[0] == shapes[1], f"leaf shapes without the batch depend on its size: {shapes[0]} and {shapes[1]}"


@check(scopes.STATEFUL)
def init_state_equals_none(subject: ArchitectureSubject) -> None:
    """`init_state` has the given batch size and dtype, and has the effect of passing None."""
    backbone = subject.build_float64()
    fresh = backbone.init_state(2, device="cpu", dtype=torch.float64)
    assert batch_size(fresh) in (2, None), f"init_state(2) has leaves {describe(fresh)}"
    for leaf in leaves(fresh):
        double = not (leaf.is_floating_point() or leaf.is_complex()) or leaf.dtype.to_real() == torch.float64
        assert double, f"init_state with dtype float64 has a leaf of {leaf.dtype}"
    x = random_input(backbone, 16)
    ours, theirs = backbone(x, state=fresh), backbone(x)
    expect.close(ours.hidden, theirs.hidden, expect.SAME, "outputs from init_state and from None")
    expect.states_close(ours.state, theirs.state, expect.SAME, "states from init_state and from None")


@check(scopes.STATEFUL)
def state_changes_outputs(subject: ArchitectureSubject) -> None:
    """States after different inputs give different outputs."""
    backbone = subject.build_float64()
    states = [backbone(random_input(backbone, 33, seed=seed)).state for seed in (1, 2)]
    x = random_input(backbone, 16)
    assert not torch.equal(*(backbone(x, state=state).hidden for state in states)), "outputs do not depend on the state"


@check(scopes.STATEFUL)
def state_of_another_batch_is_refused(subject: ArchitectureSubject) -> None:
    """A state of another batch size raises ValueError."""
    backbone = subject.build()
    state = backbone(random_input(backbone, 16, batch=3)).state
    x = random_input(backbone, 7, batch=2)
    expect.refused(lambda: backbone(x, state=state), "a state of 3 rows for an input of 2")
    one = select_rows(state, torch.tensor([0]))
    expect.refused(lambda: backbone(x, state=one), "a state of 1 row for an input of 2")


@check(scopes.STATEFUL)
def state_of_another_architecture_is_refused(subject: ArchitectureSubject) -> None:
    """A state of another structure raises ValueError, and one of another depth or width where its shapes differ."""
    backbone = subject.build()
    deeper = subject.build(n_layers=backbone.dims.n_layers + 1)
    wider = subject.build(d_model=4 * backbone.dims.d_model)
    x = random_input(backbone, 7)
    foreign = {
        "another structure": {"stranger": [torch.zeros(2, 3, dtype=x.dtype)]},
        "another depth": deeper(random_input(deeper, 7)).state,
        "another width": wider(random_input(wider, 7)).state,
    }
    own = backbone(x).state
    for what, state in foreign.items():
        if not compatible(state, own):
            expect.refused(partial(backbone, x, state=state), f"a state of {what}")


@check(scopes.STATEFUL)
def state_size_is_correct(subject: ArchitectureSubject) -> None:
    """`state_size(L)` is the number of elements carried per sample after L tokens."""
    backbone = subject.build()
    for length in (1, 7, 33, 64):
        state = backbone(random_input(backbone, length)).state
        declared, carried = backbone.state_size(length), elements(state)
        assert declared == carried, (
            f"state_size({length}) is {declared}, but {carried} elements per sample are carried in {describe(state)} "
            "(complex numbers count twice, masks and counters not)"
        )


@check(scopes.CHUNK_EXACT)
@check(scopes.STATEFUL_DECODER, "decoded_chunks_equal_one_call")
def chunks_equal_one_call(subject: ArchitectureSubject) -> None:
    """Chunks with carried state equal one call in outputs, state and, with state_grad, gradients; also with padding."""
    backbone = subject.build_float64()
    x = random_input(backbone, 33, batch=3).requires_grad_()
    tensors = (
        {"x": x, **dict(backbone.named_parameters())} if subject.capabilities.state_grad or subject.decoder else {}
    )
    fresh = backbone.init_state(3, device="cpu", dtype=torch.float64)
    for mask in (None, right_padded(33, (33, 17, 6))):
        real = torch.ones(3, 33, dtype=torch.bool) if mask is None else mask

        def call(start: int, stop: int, state: State, mask: Tensor | None = mask) -> Output:
            return backbone(x[:, start:stop], mask=None if mask is None else mask[:, start:stop], state=state)

        whole = call(0, 33, None)
        for sizes in CHUNKS:
            outputs, where = run_chunks(call, sizes, fresh), f"chunks of {', '.join(map(str, sizes[:5]))} … tokens"
            hidden = torch.cat([out.hidden for out in outputs], dim=1)
            at_real, expected = (torch.where(real[..., None], h, 0) for h in (hidden, whole.hidden))
            expect.close(at_real, expected, expect.EQUIVALENT, f"{where}: outputs")
            expect.states_close(outputs[-1].state, whole.state, expect.EQUIVALENT, f"{where}: states")
            if not tensors:
                continue
            ours, theirs = (
                torch.autograd.grad(
                    weighted_sum(h * real.unsqueeze(-1)),
                    list(tensors.values()),
                    retain_graph=True,
                    materialize_grads=True,
                )
                for h in (hidden, whole.hidden)
            )
            largest = torch.stack([gradient.abs().max() for gradient in theirs]).max()
            for name, a, b in zip(tensors, ours, theirs, strict=True):
                difference = relative_size(a - b, largest)
                assert difference <= expect.EQUIVALENT, (
                    f"{where}: gradients of {name} differ by {difference:.3g} (relative)"
                )


@check(scopes.STEP)
def step_equals_forward(subject: ArchitectureSubject) -> None:
    """`step` token by token gives what `forward` gives, from a fresh state and after `prefill`; of an architecture that
    is fed by segments what it gives for one segment after the other."""
    backbone = subject.build_float64(max_len=10) if subject.capabilities.segment else subject.build_float64()
    x, after = (random_input(backbone, n, batch=3, seed=seed) for n, seed in ((24, 0), (9, 1)))
    whole = list(drive(backbone, x, None, None, subject.segment_plan(backbone.dims.max_len)))
    hidden = torch.cat([segment.hidden for segment in whole], dim=1)
    expected = backbone(after, state=whole[-1].state).hidden
    for start in (0, 7, 20):
        state = backbone.init_state(3, device="cpu", dtype=torch.float64)
        where = f"steps from position {start}"
        if start:
            begun = backbone.prefill(x[:, :start])
            expect.close(begun.hidden, hidden[:, :start], expect.EQUIVALENT, f"{where}: outputs of prefill and forward")
            state = begun.state
        for t in range(start, 24):
            y_t, state = backbone.step(x[:, t], state)
            expect.close(y_t, hidden[:, t], expect.EQUIVALENT, f"{where}: step and forward at position {t}")
        outputs = backbone(after, state=state).hidden
        expect.close(outputs, expected, expect.EQUIVALENT, f"{where}: outputs of forward from the states after them")


@check(scopes.STEP)
def step_refuses_invalid_inputs(subject: ArchitectureSubject) -> None:
    """`step` raises ValueError for an input of another shape, and for a state of another batch or architecture."""
    backbone = subject.build()
    x = random_input(backbone, 8, batch=3)
    state = backbone(x).state
    invalid = {
        "x of three dimensions": (x[:, 4:5], state),
        "x of another width": (x[:, 4, 1:], state),
        "x of one row for a state of three": (x[:1, 4], state),
        "x without rows": (x[:0, 4], None),
        "a state of another structure": (x[:, 4], {"stranger": [torch.zeros(3, 3)]}),
    }
    for what, (x_t, carried) in invalid.items():
        expect.refused(partial(backbone.step, x_t, carried), what)


@check(scopes.STEP)
def step_from_none_begins_afresh(subject: ArchitectureSubject) -> None:
    """`step` with a state of None gives what `forward` gives for a first token."""
    backbone = subject.build_float64()
    x = random_input(backbone, 2)
    y_0, state = backbone.step(x[:, 0], None)
    y_1, _ = backbone.step(x[:, 1], state)
    expect.close(torch.stack([y_0, y_1], 1), backbone(x).hidden, expect.EQUIVALENT, "two steps from None and forward")


@check(scopes.STATEFUL)
@check(scopes.STATEFUL_DECODER, "decoder_state_of_another_precision_is_cast")
def state_of_another_precision_is_cast(subject: ArchitectureSubject) -> None:
    """A state goes on after the backbone is cast, in any direction, with what it says, by `forward` and by `step`."""
    for before, after in permutations((torch.float32, torch.bfloat16, torch.float64), 2):
        backbone, where = cast(subject.build(d_model=32), before), f"a state of {before} in a backbone of {after}"
        state = backbone(random_input(backbone, 16)).state
        backbone = cast(backbone, after)
        x = random_input(backbone, 8, seed=1)
        out = backbone(x, state=state)
        own = map_state(lambda leaf: leaf.to(_same_kind(leaf, torch.float64)), state)
        exact = cast(copy.deepcopy(backbone), torch.float64)(x.double(), state=own).hidden
        results = {"forward": out.hidden}
        if subject.steps:
            results["step"] = backbone.step(x[:, 0], state)[0][:, None]
        for how, hidden in results.items():
            assert hidden.dtype == after, f"{where}: {how} gives {hidden.dtype}"
            expected = exact[:, : hidden.shape[1]]
            error = ((hidden.double() - expected).norm() / expected.norm()).item()
            assert error < 0.1, f"{where}: outputs of {how} differ from float64 by {error:.2g} (relative norm)"


def _same_kind(leaf: Tensor, dtype: torch.dtype) -> torch.dtype:
    """`dtype`, or its complex one, for a leaf of numbers; masks and counters keep theirs."""
    return dtype.to_complex() if leaf.is_complex() else dtype if leaf.is_floating_point() else leaf.dtype


@check(scopes.STATEFUL)
def state_gradient_contract(subject: ArchitectureSubject) -> None:
    """With state_grad later outputs have a gradient from earlier chunks; without it none, and the state is detached."""
    backbone = subject.build_float64()
    x = random_input(backbone, 16).requires_grad_()
    state = backbone(x).state
    hidden = backbone(random_input(backbone, 16, seed=1), state=state).hidden
    (gradient,) = torch.autograd.grad(weighted_sum(hidden), x, materialize_grads=True)
    if subject.capabilities.state_grad:
        assert gradient.any(), "state_grad is declared, but no gradient reaches the earlier chunk"
    else:
        assert not gradient.any(), "a gradient reaches the earlier chunk, but state_grad is not declared"
        attached = any(leaf.requires_grad for leaf in leaves(state))
        assert not attached, "the returned state requires a gradient, but state_grad is not declared"


@check(scopes.STATEFUL)
def unread_states_change_nothing(subject: ArchitectureSubject) -> None:
    """Where nobody wants the state, outputs and gradients are those of a call that returns it."""
    backbone = subject.build_float64()
    x, mask = random_input(backbone, 33, batch=3).requires_grad_(), right_padded(33, (33, 20, 5))
    start = backbone(random_input(backbone, 20, batch=3, seed=1)).state
    results = []
    for needs_state in (True, False):
        with return_state(needs_state):
            *_, last = drive(backbone, x, mask, start, SegmentPlan())
        assert needs_state or last.state is None, "a state was returned under return_state(False)"
        results.append([last.hidden, *torch.autograd.grad(weighted_sum(last.hidden), x)])
    for what, a, b in zip(("outputs", "gradients"), *results, strict=True):
        expect.close(a, b, expect.SAME, f"{what} without and with the state")


@check(scopes.SEGMENT)
def activation_checkpointing_equals_plain_segments(subject: ArchitectureSubject) -> None:
    """Segments with activation checkpointing give the loss and gradients of plain segments."""
    backbone = subject.build_float64().train()
    x, mask = random_input(backbone, 48, batch=3).requires_grad_(), right_padded(48, (48, 20, 33))
    tensors = {"x": x, **{name: p for name, p in backbone.named_parameters() if p.requires_grad}}

    def loss_and_gradients(method: ActivationCheckpointing) -> list[Tensor]:
        torch.manual_seed(1)
        loss = x.new_zeros(())
        for i, segment in enumerate(drive(backbone, x, mask, None, SegmentPlan(16, activation_checkpointing=method))):
            real = 1 if segment.mask is None else segment.mask.unsqueeze(-1)
            loss = loss + weighted_sum(segment.hidden * real, i) + sum(segment.aux.values())
        return [loss.detach(), *torch.autograd.grad(loss, list(tensors.values()), materialize_grads=True)]

    plain = loss_and_gradients("none")
    names = ["losses", *(f"gradients of {name}" for name in tensors)]
    for what, a, b in zip(names, loss_and_gradients("checkpoint"), plain, strict=True):
        expect.close(a, b, expect.SAME, f"{what} with and without activation checkpointing")
