"""The carried state: what it holds, what it does, and what of it gradients may pass."""

from __future__ import annotations

from typing import get_args

import torch

from zoo.model.segments import Replay, SegmentPlan, drive
from zoo.nn.state import batch_size, compatible, describe, elements, leaves, select_rows
from zoo.testing.check import AGREE, SAME, Check, check, has_state, require_finite, require_same, require_same_state
from zoo.testing.subject import Subject, noise_like, ragged

PIECES = ((1, 32), (16, 17), (7, 1, 25), (5, 5, 5, 5, 13), (33,))


@check(lambda c: c.state != "memory", "carries memory in every mode")
def stateless_modes_refuse_a_state(subject: Subject) -> None:
    """Where nothing is carried the call returns no state, and one that is given is a ValueError."""
    modes = [mode for mode in subject.modes if mode not in subject.state_modes]
    for mode in modes:
        backbone = subject.build(mode)
        x = subject.input(backbone, 7)
        returned = backbone(x).state
        assert not leaves(returned), f"{mode}: returns a state {describe(returned)}, declared is none"
        assert not leaves(backbone.init_state(2, device="cpu", dtype=torch.float32)), f"{mode}: init_state is not None"
        assert backbone.state_size(7) == 0, f"{mode}: state_size is {backbone.state_size(7)}, nothing is carried"
        require_refused(lambda b=backbone, x=x: b(x, state=[torch.zeros(2, 3)]), f"{mode}: a state given to forward")


def require_refused(call: object, what: str) -> None:
    """The call raises ValueError."""
    try:
        call()  # type: ignore[operator]
    except ValueError:
        return
    raise AssertionError(f"{what}: no ValueError")


@check(has_state, "no state")
def state_is_batch_first(subject: Subject) -> None:
    """Every leaf of the state has the batch first, and is finite, detachable data."""
    for mode in subject.state_modes:
        backbone = subject.build(mode)
        shapes = []
        for batch in (3, 5):
            out = backbone(subject.input(backbone, 33, batch=batch))
            assert leaves(out.state), f"{mode}: a state is declared, none is returned"
            assert batch_size(out.state) == batch, f"{mode}: {batch} rows in, state {describe(out.state)}"
            shapes.append([tuple(leaf.shape[1:]) for leaf in leaves(out.state)])
            for leaf in leaves(out.state):
                require_finite(leaf, f"{mode}: a leaf of shape {tuple(leaf.shape)}")
        assert shapes[0] == shapes[1], f"{mode}: the state's form depends on the batch size"


@check(has_state, "no state")
def fresh_state_is_no_state(subject: Subject) -> None:
    """`init_state` has the asked batch size, device and dtype, and does what None does."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        fresh = backbone.init_state(2, device="cpu", dtype=torch.float64)
        assert batch_size(fresh) in (2, None), f"{mode}: asked for 2 rows, got {describe(fresh)}"
        for leaf in leaves(fresh):
            wide = not (leaf.is_floating_point() or leaf.is_complex()) or leaf.dtype.to_real() == torch.float64
            assert wide, f"{mode}: asked for float64, got {leaf.dtype}"
        x = subject.input(backbone, 16)
        ours, theirs = backbone(x, state=fresh), backbone(x)
        require_same(ours.hidden, theirs.hidden, SAME, f"{mode}: outputs from init_state and from None")
        require_same_state(ours.state, theirs.state, SAME, f"{mode}: state from init_state and from None")


@check(has_state, "no state")
def state_changes_outputs(subject: Subject) -> None:
    """The state carries something: another past gives other outputs."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        x = subject.input(backbone, 16)
        results = [backbone(x, state=backbone(subject.input(backbone, 33, seed=seed)).state).hidden for seed in (1, 2)]
        assert not torch.equal(*results), f"{mode}: outputs do not depend on the state"


@check(has_state, "no state")
def state_of_another_batch_is_refused(subject: Subject) -> None:
    """A state of another batch size is a ValueError."""
    for mode in subject.state_modes:
        backbone = subject.build(mode)
        state = backbone(subject.input(backbone, 16, batch=3)).state
        x = subject.input(backbone, 7, batch=2)
        require_refused(lambda b=backbone, x=x, s=state: b(x, state=s), f"{mode}: 3 rows of state for 2 of input")
        one = select_rows(state, torch.tensor([0]))
        require_refused(lambda b=backbone, x=x, s=one: b(x, state=s), f"{mode}: 1 row of state for 2 of input")


@check(has_state, "no state")
def state_of_another_architecture_is_refused(subject: Subject) -> None:
    """A state of another form is a ValueError, and one of another depth or width where that shows in its shape."""
    for mode in subject.state_modes:
        backbone = subject.build(mode)
        deeper = subject.build(mode, n_layers=backbone.dims.n_layers + 1)
        wider = subject.build(mode, d_model=4 * backbone.dims.d_model)
        x = subject.input(backbone, 7, batch=2)
        strangers = {
            "a form that is never carried": {"stranger": [torch.zeros(2, 3, dtype=x.dtype)]},
            "another depth": deeper(subject.input(deeper, 7, batch=2)).state,
            "another width": wider(subject.input(wider, 7, batch=2)).state,
        }
        own = backbone(x).state
        for what, state in strangers.items():
            if compatible(state, own):
                continue
            require_refused(lambda b=backbone, x=x, s=state: b(x, state=s), f"{mode}: a state of {what}")


@check(has_state, "no state")
def state_size_is_true(subject: Subject) -> None:
    """`state_size(L)` is the number of elements carried per sample after L tokens."""
    for mode in subject.state_modes:
        backbone = subject.build(mode)
        for length in (1, 7, 33, 64):
            state = backbone(subject.input(backbone, length)).state
            says, carries = backbone.state_size(length), elements(state)
            assert says == carries, (
                f"{mode}: state_size({length}) says {says}, carried are {carries} per sample in {describe(state)} "
                "(complex numbers count twice, masks and counters not)"
            )


@check(lambda c: c.chunk_exact, "chunk_exact is not declared")
def pieces_equal_the_whole(subject: Subject) -> None:
    """Chunks with carried state equal one call: outputs, state and, with state_grad, gradients; padded rows too."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        x = subject.input(backbone, 33, batch=3)
        for mask in (None, ragged(33, (33, 17, 6))):
            real = torch.ones(3, 33, dtype=torch.bool) if mask is None else mask
            whole_x = x.clone().requires_grad_()
            whole = backbone(whole_x, mask=mask)
            weights = noise_like(whole.hidden) * real.unsqueeze(-1)
            (whole_gradient,) = torch.autograd.grad((whole.hidden * weights).sum(), whole_x)
            for pieces in PIECES:
                where = f"{mode}, pieces {pieces}{'' if mask is None else ', padded'}"
                leaf, state, hidden, start = x.clone().requires_grad_(), None, [], 0
                for piece in pieces:
                    stop = start + piece
                    out = backbone(leaf[:, start:stop], mask=None if mask is None else mask[:, start:stop], state=state)
                    hidden.append(out.hidden)
                    state, start = out.state, stop
                together = torch.cat(hidden, dim=1)
                require_same(together[real], whole.hidden[real], AGREE, f"{where}: outputs")
                require_same_state(state, whole.state, AGREE, f"{where}: state")
                if subject.capabilities.state_grad:
                    (gradient,) = torch.autograd.grad((together * weights).sum(), leaf)
                    require_same(gradient, whole_gradient, AGREE, f"{where}: gradient for the input")


@check(lambda c: c.step, "no step form")
def step_equals_forward(subject: Subject) -> None:
    """Token by token through `step` gives what `forward` gives, from a fresh state and from a carried one."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        x = subject.input(backbone, 24, batch=3)
        whole = backbone(x)
        for prefix in (0, 7):
            if prefix:
                state = backbone(x[:, :prefix]).state
            else:
                state = backbone.init_state(3, device="cpu", dtype=torch.float64)
            for t in range(prefix, 24):
                y_t, state = backbone.step(x[:, t], state)
                message = f"{mode}: step at token {t} (steps from {prefix})"
                require_same(y_t, whole.hidden[:, t], AGREE, message)
            ours = backbone(subject.input(backbone, 9, batch=3, seed=1), state=state).hidden
            theirs = backbone(subject.input(backbone, 9, batch=3, seed=1), state=whole.state).hidden
            require_same(ours, theirs, AGREE, f"{mode}: forward after steps from {prefix}")


@check(has_state, "no state")
def state_gradient_contract(subject: Subject) -> None:
    """With state_grad a later chunk has a gradient for an earlier one; without it, exactly none."""
    promised = subject.capabilities.state_grad
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        x = subject.input(backbone, 16).requires_grad_()
        state = backbone(x).state
        carried = any(leaf.requires_grad for leaf in leaves(state))
        hidden = backbone(subject.input(backbone, 16, seed=1), state=state).hidden
        (gradient,) = torch.autograd.grad((hidden * noise_like(hidden)).sum(), x, allow_unused=True)
        flows = gradient is not None and bool(gradient.any())
        if promised:
            assert flows, f"{mode}: state_grad is declared, and no gradient reaches the earlier chunk"
        else:
            assert not flows, f"{mode}: a gradient reaches the earlier chunk, and state_grad is not declared"
            assert not carried, f"{mode}: the emitted state requires a gradient, and state_grad is not declared"


@check(lambda c: c.segment, "not fed by segments")
def replay_equals_plain(subject: Subject) -> None:
    """The segment driver's replays (checkpoint, MRBP) give the outputs and gradients of plain segments."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode).train()
        x, mask = subject.input(backbone, 48, batch=3), ragged(48, (48, 20, 33))
        results = []
        for replay in get_args(Replay):
            leaf = x.clone().requires_grad_()
            torch.manual_seed(1)
            loss = x.new_zeros(())
            for i, segment in enumerate(
                drive(backbone, leaf, mask, None, SegmentPlan(16, activation_checkpointing=replay))
            ):
                real = 1 if segment.mask is None else segment.mask.unsqueeze(-1)
                loss = loss + (segment.hidden * noise_like(segment.hidden, i) * real).sum() + sum(segment.aux.values())
            named = [("x", leaf), *((n, p) for n, p in backbone.named_parameters() if p.requires_grad)]
            found = torch.autograd.grad(loss, [t for _, t in named], allow_unused=True)
            results.append({"loss": loss.detach(), **dict(zip((n for n, _ in named), found, strict=True))})
        for replay, result in zip(("checkpoint", "mrbp"), results[1:], strict=True):
            for name, gradient in result.items():
                plain = results[0][name]
                if gradient is None or plain is None:
                    assert gradient is plain, f"{mode}, {replay}: only one of the two has a gradient for {name}"
                    continue
                require_same(gradient, plain, SAME, f"{mode}, {replay}: {name}")


CHECKS: tuple[Check, ...] = (
    stateless_modes_refuse_a_state,
    state_is_batch_first,
    fresh_state_is_no_state,
    state_changes_outputs,
    state_of_another_batch_is_refused,
    state_of_another_architecture_is_refused,
    state_size_is_true,
    pieces_equal_the_whole,
    step_equals_forward,
    state_gradient_contract,
    replay_equals_plain,
)
